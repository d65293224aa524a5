//! The file of a saved machine with any header.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    machine::saved::fuzz::fuzz(data);
});
