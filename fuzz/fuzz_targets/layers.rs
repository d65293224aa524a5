//! Arbitrary bytes as the layers of a root file system.
#![no_main]

#[path = "../../crates/rootfs/tests/any_archive/rig.rs"]
#[allow(dead_code)] // what the tests call
mod any_archive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| any_archive::fuzz(data));
