//! See `mainspring_fuzz::framers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mainspring_fuzz::framers(data));
