//! See `mainspring::fuzzing::cuts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mainspring::fuzzing::cuts(data));
