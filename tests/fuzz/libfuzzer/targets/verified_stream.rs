#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lighter_fuzz::transport::verified_stream(data));
