//! Arbitrary guests of the user-mode network.
#![no_main]

#[path = "../../crates/net/tests/any_frames/rig.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rig::fuzz(data);
});
