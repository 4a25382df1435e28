//! See `mainspring_fuzz::tls_wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mainspring_fuzz::tls_wire(data));
