//! See [`sensor_user::token::jose::fuzz`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sensor_user::token::jose::fuzz(data));
