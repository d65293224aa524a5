//! Arbitrary drivers of virtio devices.
#![no_main]

#[path = "../../crates/share/tests/any_request/rig.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rig::fuzz(data));
