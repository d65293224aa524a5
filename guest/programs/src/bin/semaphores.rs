//! Several processes contend for one semaphore. Each notes when it came into the critical section
//! and when it left, and sends that to the parent, which checks that no two were in at the same
//! time.
#![no_std]
#![no_main]

use core::arch::x86_64::_rdtsc;

programs::program!(run);

const CHILDREN: u64 = 6;
const ROUNDS: u64 = 40;

fn now() -> u64 {
    // SAFETY: RDTSC reads a counter and changes no memory.
    unsafe { _rdtsc() }
}

fn run(_: &[u8]) -> i32 {
    let parent = programs::getpid();
    let Ok(mutex) = programs::semaphore(1) else { return 2 };
    for _ in 0..CHILDREN {
        match programs::fork() {
            Ok(0) => return child(parent, mutex),
            Ok(_) => {}
            Err(_) => return 3,
        }
    }
    // Mutual exclusion also orders the sections: each must begin after the last one has ended.
    let (mut last, mut count) = (0, 0);
    let mut message = [0; 16];
    while count < CHILDREN * ROUNDS {
        let Ok((_, 16)) = programs::receive(&mut message) else { return 4 };
        let begin = u64::from_le_bytes(message[..8].try_into().unwrap_or_default());
        let end = u64::from_le_bytes(message[8..].try_into().unwrap_or_default());
        if begin < last || end < begin {
            return 1;
        }
        (last, count) = (end, count + 1);
    }
    let well = (0..CHILDREN).all(|_| matches!(programs::wait(0), Ok((_, 0))));
    if well { 0 } else { 5 }
}

/// The message goes out inside the section, so messages arrive in the sections' order.
fn child(parent: u64, mutex: u64) -> i32 {
    for round in 0..ROUNDS {
        if programs::sem_wait(mutex).is_err() {
            return 1;
        }
        let begin = now();
        if round % 3 == 0 {
            programs::yield_now();
        }
        let mut message = [0; 16];
        message[..8].copy_from_slice(&begin.to_le_bytes());
        message[8..].copy_from_slice(&now().to_le_bytes());
        if programs::send(parent, &message).is_err() || programs::sem_signal(mutex).is_err() {
            return 2;
        }
    }
    0
}
