//! Arbitrary accesses to every device of the chipset.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| devices::fuzzing::fuzz(data));
