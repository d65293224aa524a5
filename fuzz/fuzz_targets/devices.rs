//! Arbitrary accesses to every device of the chipset.
#![no_main]

#[path = "../../crates/devices/tests/any_device/rig.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rig::fuzz(data));
