//! Forks with a lot of memory and checks that neither side sees what the other writes.
#![no_std]
#![no_main]

use programs::abi::rights;

programs::program!(run);

const PAGES: usize = 64;

fn run(_: &[u8]) -> i32 {
    let Ok(memory) = programs::map(PAGES as u64 * 4096, rights::WRITE) else { return 2 };
    // SAFETY: the nucleus has just mapped these pages for this process alone.
    let bytes = unsafe { core::slice::from_raw_parts_mut(memory, PAGES * 4096) };
    fill(bytes, 1);
    match programs::fork() {
        Ok(0) => child(bytes),
        Ok(pid) => {
            programs::yield_now();
            fill(&mut bytes[..PAGES * 2048], 3);
            let end = programs::wait(pid);
            let mine = holds(&bytes[..PAGES * 2048], 3) && holds(&bytes[PAGES * 2048..], 1);
            i32::from(!(mine && end == Ok((pid, 7))))
        }
        Err(_) => 4,
    }
}

fn child(bytes: &mut [u8]) -> i32 {
    if !holds(bytes, 1) {
        return 5;
    }
    fill(bytes, 2);
    programs::yield_now();
    if holds(bytes, 2) { 7 } else { 6 }
}

fn fill(bytes: &mut [u8], value: u8) {
    bytes.iter_mut().step_by(512).for_each(|b| *b = value);
}

fn holds(bytes: &[u8], value: u8) -> bool {
    bytes.iter().step_by(512).all(|b| *b == value)
}
