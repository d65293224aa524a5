//! A console device under any driver.
#![no_main]

#[path = "../../crates/devices/tests/any_console/rig.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rig::fuzz(data);
});
