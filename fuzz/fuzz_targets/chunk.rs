//! See [`sensor_fuzz::wire::chunk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sensor_fuzz::wire::chunk(data));
