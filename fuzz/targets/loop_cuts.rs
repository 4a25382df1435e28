//! See `mainspring_fuzz::loop_cuts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mainspring_fuzz::loop_cuts(data));
