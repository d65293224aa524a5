//! Arbitrary bytes as kernel, initrd and module.
#![no_main]

#[path = "../../crates/boot/tests/it/any_files.rs"]
mod any_files;

libfuzzer_sys::fuzz_target!(|data: &[u8]| any_files::fuzz(data));
