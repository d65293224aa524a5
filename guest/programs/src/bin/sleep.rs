//! Sleeps for so many milliseconds, and tells by its exit code how many turned over: 0 if it woke
//! in time.
#![no_std]
#![no_main]

programs::program!(run);

fn run(argument: &[u8]) -> i32 {
    let wanted = programs::number(argument, 0).unwrap_or(1000) * 1000;
    let start = programs::time();
    programs::sleep(wanted);
    let slept = programs::time() - start;
    i32::from(slept < wanted)
}
