//! Arbitrary bytes as a disk that is to boot by itself.
#![no_main]

#[path = "../../crates/disk-boot/tests/any_disk/rig.rs"]
mod any_disk;

libfuzzer_sys::fuzz_target!(|data: &[u8]| any_disk::fuzz(data));
