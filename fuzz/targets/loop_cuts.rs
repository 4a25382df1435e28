//! See `mainspring::fuzzing::loop_cuts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mainspring::fuzzing::loop_cuts(data));
