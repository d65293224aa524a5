//! Arbitrary drivers of virtio devices.
#![no_main]

#[allow(dead_code)] // what the crate's own tests call
#[path = "../../crates/devices/tests/any_virtio/rig.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rig::fuzz(data));
