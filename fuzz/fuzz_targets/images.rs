//! Arbitrary bytes as kernel, initrd and module.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| boot::fuzz(data));
