//! Arbitrary code, state and page tables in the software engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| generated::run(data));
