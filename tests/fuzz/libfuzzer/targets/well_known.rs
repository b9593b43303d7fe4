#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lighter_fuzz::transport::well_known(data));
