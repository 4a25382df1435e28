//! See `mainspring::fuzzing::timers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mainspring::fuzzing::timers(data));
