//! See [`sensor_fuzz::wire::packet`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sensor_fuzz::wire::packet(data));
