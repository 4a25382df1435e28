//! See `mainspring::fuzzing::output`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mainspring::fuzzing::output(data));
