//! See `mainspring_fuzz::output`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mainspring_fuzz::output(data));
