//! Code for translators, on both tiers and in lockstep.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| generated::twins(data));
