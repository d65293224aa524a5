//! Arbitrary qcow2 images, and guests on them.
#![no_main]

#[path = "../../crates/disk-image/tests/any_image/rig.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rig::fuzz(data);
});
