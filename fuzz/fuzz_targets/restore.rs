//! A saved machine of which any numbers are wrong.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| machine::saved::fuzz::fuzz(data));
