//! Has 64 MiB promised, touches some pages of them (the argument says how many), sleeps a while (so
//! many milliseconds).
#![no_std]
#![no_main]

use programs::abi::rights;

programs::program!(run);

const LENGTH: u64 = 64 << 20;

fn run(argument: &[u8]) -> i32 {
    let Ok(memory) = programs::map(LENGTH, rights::WRITE) else { return 2 };
    for i in 0..programs::number(argument, 0).unwrap_or(40) {
        // SAFETY: the mapping has just been made; the pages lie 128 KiB apart in it.
        unsafe { memory.add((i << 17) as usize % LENGTH as usize).write_volatile(1) };
    }
    programs::sleep(programs::number(argument, 1).unwrap_or(10) * 1000);
    i32::from(programs::unmap(memory, LENGTH).is_err())
}
