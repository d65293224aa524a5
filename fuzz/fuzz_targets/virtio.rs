//! Arbitrary drivers of virtio devices.
#![no_main]

#[path = "../../crates/devices/tests/any_virtio/rig.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rig::fuzz(data));
