//! System calls with random numbers and arguments, so many of them: whatever comes, the nucleus has
//! to survive it.
#![no_std]
#![no_main]

use programs::abi::call;
use programs::{Random, syscall, trap};

programs::program!(run);

static mut DATA: [u8; 4096] = [0; 4096];

fn run(argument: &[u8]) -> i32 {
    let mut random = Random(programs::number(argument, 0).unwrap_or(1) * 2 + 1);
    for _ in 0..programs::number(argument, 1).unwrap_or(1000) {
        let number = match random.draw() % 32 {
            0 => random.draw(),
            n => n % (call::COUNT as u64 + 2),
        };
        let mut arguments = [0; 4].map(|_: u64| value(&mut random));
        match number {
            call::EXIT | call::READ | call::RECEIVE if !random.draw().is_multiple_of(64) => {
                continue;
            }
            call::SLEEP => arguments[0] %= 1000,
            call::WRITE => arguments[1] %= 3, // the console is slow
            _ => {}
        }
        let way = if random.draw().is_multiple_of(2) { trap } else { syscall };
        let result = way(number, arguments);
        if number == call::FORK && result == 0 {
            return 0;
        }
    }
    0
}

/// Addresses and numbers near the borders where mistakes are made.
fn value(random: &mut Random) -> u64 {
    let data = &raw mut DATA as u64;
    let small = random.draw() % 5000;
    match random.draw() % 12 {
        0 => data + small,
        1 => data,
        2 => 0x40_0000 + small * 16,
        3 => 0x10_0000_0000 + small * 64,
        4 => 0x7FFF_FFFF_0000 - small * 64,
        5 => 0xFFFF_FFFF_8010_0000 + small * 512,
        6 => 0xFFFF_8000_0000_0000 + (random.draw() >> 30),
        7 => 1 << (random.draw() % 64),
        8 => (1u64 << (random.draw() % 64)).wrapping_sub(small),
        9 => random.draw(),
        10 => small % 16,
        _ => small,
    }
}
