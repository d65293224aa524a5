//! Counts: for ever, or up to the number given. Never asks the nucleus for anything, so only the
//! timer can stop it.
#![no_std]
#![no_main]

programs::program!(run);

fn run(argument: &[u8]) -> i32 {
    let end = programs::number(argument, 0).unwrap_or(u64::MAX);
    let mut count = 0u64;
    while count < end {
        count = core::hint::black_box(count + 1);
    }
    0
}
