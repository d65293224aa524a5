//! The same system calls by INT 80H and by SYSCALL, good ones and bad ones: same results either
//! way.
#![no_std]
#![no_main]

use programs::abi::{Error, call, rights};
use programs::{check, syscall, trap};

programs::program!(run);

/// An address of the nucleus, none at all, and one whose end wraps around.
const BAD: [u64; 4] = [0xFFFF_FFFF_8010_0000, 0, u64::MAX - 2, 1 << 47];

fn run(_: &[u8]) -> i32 {
    type Way = fn(u64, [u64; 4]) -> i64;
    let pid = programs::getpid();
    for way in [trap as Way, syscall as Way] {
        let is = |number, arguments, error| check(way(number, arguments)) == Err(error);
        if check(way(call::GETPID, [0; 4])) != Ok(pid) {
            return 1;
        }
        for number in [call::COUNT as u64, 999, u64::MAX, 1 << 63] {
            if !is(number, [0; 4], Error::NoCall) {
                return 2;
            }
        }
        for address in BAD {
            let bad_pointer = is(call::WRITE, [address, 8, 0, 0], Error::BadPointer)
                && is(call::SPAWN, [address, 5, 0, 0], Error::BadPointer)
                && is(call::SEND, [pid, address, 8, 0], Error::BadPointer);
            if !bad_pointer {
                return 3;
            }
        }
        // A pointer to our own text is good to read from, not to write to.
        let own = run as fn(&[u8]) -> i32 as usize as u64;
        if check(way(call::SEND, [pid, own, 8, 0])) != Ok(0)
            || !is(call::RECEIVE, [own, 8, 0, 0], Error::BadPointer)
        {
            return 4;
        }
        let mut message = [0; 8];
        if check(way(call::RECEIVE, [message.as_mut_ptr() as u64, 8, 0, 0])) != Ok(pid << 32 | 8) {
            return 5;
        }
        if !is(call::WAIT, [0; 4], Error::NoProcess)
            || !is(call::SPAWN, [c"none".as_ptr() as u64, 4, 0, 0], Error::NoProgram)
            || !is(call::UNMAP, [0x1000, 0x1000, 0, 0], Error::Invalid)
            || !is(call::MAP, [0, rights::WRITE, 0, 0], Error::Invalid)
            || !is(call::SEM_WAIT, [12345, 0, 0, 0], Error::Invalid)
        {
            return 6;
        }
    }
    0
}
