//! See [`sensor_fuzz::wire::head`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sensor_fuzz::wire::head(data));
