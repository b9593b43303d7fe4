#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lighter_fuzz::address_books::carddav_answer(data));
