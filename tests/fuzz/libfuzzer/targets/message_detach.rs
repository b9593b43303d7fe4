#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lighter_fuzz::message::message_detach(data));
