//! What every program of the nucleus needs: a start, the system calls, printing.
#![no_std]

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};

pub use abi;
use abi::{Error, call};
use string as _; // memcpy and kin, for the linker

// RDI and RSI have the argument; the stack is aligned.
global_asm!(
    ".section .text.start, \"ax\"",
    ".global _start",
    "_start:",
    "call program_main",
    "mov rdi, rax",
    "xor eax, eax",
    "int 0x80",
    "ud2"
);

/// Makes `fn(&[u8]) -> i32` the program; its result is the exit code.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[unsafe(export_name = "program_main")]
        extern "C" fn start(argument: *const u8, length: usize) -> i64 {
            // SAFETY: the nucleus has put `length` bytes there.
            let argument = unsafe { core::slice::from_raw_parts(argument, length) };
            let run: fn(&[u8]) -> i32 = $main;
            run(argument).into()
        }
    };
}

/// A system call by INT 80H, as it is.
pub fn trap(number: u64, arguments: [u64; 4]) -> i64 {
    let result;
    let [a, b, c, d] = arguments;
    // SAFETY: the nucleus writes only to memory that the arguments name, and leaves all other
    // registers alone.
    unsafe {
        asm!("int 0x80", inout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d);
    }
    result
}

/// The same by SYSCALL.
pub fn syscall(number: u64, arguments: [u64; 4]) -> i64 {
    let result;
    let [a, b, c, d] = arguments;
    // SAFETY: the nucleus writes only to memory that the arguments name; SYSCALL uses up RCX and
    // R11, which are declared.
    unsafe {
        asm!("syscall", inout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, out("rcx") _, out("r11") _);
    }
    result
}

/// A result or an error.
pub fn check(result: i64) -> Result<u64, Error> {
    const ERRORS: [Error; 7] = [
        Error::NoProcess,
        Error::NoProgram,
        Error::Limit,
        Error::NoMemory,
        Error::BadPointer,
        Error::Invalid,
        Error::NoCall,
    ];
    match ERRORS.into_iter().find(|&error| error as i64 == result) {
        Some(error) => Err(error),
        None => Ok(result as u64),
    }
}

fn call(number: u64, arguments: [u64; 4]) -> Result<u64, Error> {
    check(syscall(number, arguments))
}

pub fn exit(code: i32) -> ! {
    loop {
        let _ = call(call::EXIT, [code as u64, 0, 0, 0]);
    }
}

pub fn write(text: &[u8]) -> Result<u64, Error> {
    call(call::WRITE, [text.as_ptr() as u64, text.len() as u64, 0, 0])
}

pub fn read(to: &mut [u8]) -> Result<usize, Error> {
    call(call::READ, [to.as_mut_ptr() as u64, to.len() as u64, 0, 0]).map(|n| n as usize)
}

pub fn spawn(name: &str, argument: &[u8]) -> Result<u64, Error> {
    let (n, m) = (name.len() as u64, argument.len() as u64);
    call(call::SPAWN, [name.as_ptr() as u64, n, argument.as_ptr() as u64, m])
}

pub fn fork() -> Result<u64, Error> {
    call(call::FORK, [0; 4])
}

/// Waits for a child (0: any): its number, and how it ended (`abi::end`).
pub fn wait(child: u64) -> Result<(u64, u64), Error> {
    call(call::WAIT, [child, 0, 0, 0]).map(|r| (r >> 32, r & 0xFFFF_FFFF))
}

pub fn sleep(microseconds: u64) {
    let _ = call(call::SLEEP, [microseconds, 0, 0, 0]);
}

pub fn yield_now() {
    trap(call::YIELD, [0; 4]);
}

pub fn map(length: u64, rights: u64) -> Result<*mut u8, Error> {
    call(call::MAP, [length, rights, 0, 0]).map(|address| address as *mut u8)
}

pub fn unmap(address: *mut u8, length: u64) -> Result<u64, Error> {
    call(call::UNMAP, [address as u64, length, 0, 0])
}

pub fn getpid() -> u64 {
    call(call::GETPID, [0; 4]).unwrap_or(0)
}

/// Microseconds since boot.
pub fn time() -> u64 {
    call(call::TIME, [0; 4]).unwrap_or(0)
}

pub fn semaphore(count: u64) -> Result<u64, Error> {
    call(call::SEM_CREATE, [count, 0, 0, 0])
}

pub fn sem_wait(semaphore: u64) -> Result<u64, Error> {
    call(call::SEM_WAIT, [semaphore, 0, 0, 0])
}

pub fn sem_signal(semaphore: u64) -> Result<u64, Error> {
    call(call::SEM_SIGNAL, [semaphore, 0, 0, 0])
}

pub fn send(to: u64, message: &[u8]) -> Result<u64, Error> {
    call(call::SEND, [to, message.as_ptr() as u64, message.len() as u64, 0])
}

/// Waits for a message: its sender and length.
pub fn receive(to: &mut [u8]) -> Result<(u64, usize), Error> {
    call(call::RECEIVE, [to.as_mut_ptr() as u64, to.len() as u64, 0, 0])
        .map(|r| (r >> 32, (r & 0xFFFF_FFFF) as usize))
}

pub fn info(what: u64) -> u64 {
    call(call::INFO, [what, 0, 0, 0]).unwrap_or(0)
}

/// A number out of the argument: the `index`th word.
pub fn number(argument: &[u8], index: usize) -> Option<u64> {
    core::str::from_utf8(argument).ok()?.split_ascii_whitespace().nth(index)?.parse().ok()
}

/// Numbers that look random (xorshift64*), the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Gathers a line so that it goes out by one system call.
pub struct Out {
    bytes: [u8; 256],
    used: usize,
}

impl Out {
    pub const fn new() -> Self {
        Self { bytes: [0; 256], used: 0 }
    }

    pub fn flush(&mut self) {
        let _ = write(&self.bytes[..self.used]);
        self.used = 0;
    }
}

impl Default for Out {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        let mut out = $crate::Out::new();
        let _ = writeln!(out, $($arg)*);
        out.flush();
    }};
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("process {}: {info}", getpid());
    exit(101)
}
