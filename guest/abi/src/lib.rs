//! What the nucleus and its programs agree on: the numbers of the system calls and of their errors.
//!
//! A call is made by `int 0x80` or by SYSCALL, with its number in RAX and its arguments in RDI,
//! RSI, RDX and R10. The result comes back in RAX, negative for an [`Error`]. All other registers
//! come back as they were, except that SYSCALL itself overwrites RCX and R11.
#![no_std]

/// The numbers of the system calls.
pub mod call {
    /// `exit(code)`: ends the process.
    pub const EXIT: u64 = 0;
    /// `write(pointer, length)`: writes to the console; returns the length.
    pub const WRITE: u64 = 1;
    /// `read(pointer, length)`: waits for a line typed at the console; returns its length.
    pub const READ: u64 = 2;
    /// `spawn(name, length, argument, length)`: starts a program; returns its process number.
    pub const SPAWN: u64 = 3;
    /// `fork()`: a copy of this process, memory copied on write; returns its number, and 0 in the
    /// copy.
    pub const FORK: u64 = 4;
    /// `wait(pid)`: waits for a child to end (0: any); returns `pid << 32 | end`, see
    /// [`crate::end`].
    pub const WAIT: u64 = 5;
    /// `sleep(microseconds)`.
    pub const SLEEP: u64 = 6;
    /// `yield()`: gives the rest of the quantum away.
    pub const YIELD: u64 = 7;
    /// `map(length, rights)`: new memory, zero at first touch; returns its address.
    pub const MAP: u64 = 8;
    /// `unmap(address, length)`.
    pub const UNMAP: u64 = 9;
    /// `getpid()`.
    pub const GETPID: u64 = 10;
    /// `time()`: microseconds since boot.
    pub const TIME: u64 = 11;
    /// `semaphore(initial)`: creates a semaphore; returns its number.
    pub const SEM_CREATE: u64 = 12;
    /// `wait(semaphore)`: takes one, or waits for one.
    pub const SEM_WAIT: u64 = 13;
    /// `signal(semaphore)`: gives one.
    pub const SEM_SIGNAL: u64 = 14;
    /// `send(pid, pointer, length)`: sends a message of at the most [`crate::MESSAGE_MAX`] bytes.
    pub const SEND: u64 = 15;
    /// `receive(pointer, length)`: waits for a message; returns `sender << 32 | length`.
    pub const RECEIVE: u64 = 16;
    /// `info(what)`: a figure, see [`crate::info`].
    pub const INFO: u64 = 17;
    /// How many there are.
    pub const COUNT: usize = 18;
}

/// Rights for [`call::MAP`].
pub mod rights {
    /// The memory can be written.
    pub const WRITE: u64 = 1;
    /// The memory holds instructions.
    pub const EXECUTE: u64 = 2;
}

/// Figures for [`call::INFO`].
pub mod info {
    /// Context switches since boot.
    pub const SWITCHES: u64 = 0;
    /// Page faults of this process.
    pub const FAULTS: u64 = 1;
    /// Frames of physical memory that are free.
    pub const FREE_FRAMES: u64 = 2;
    /// Frames there are.
    pub const FRAMES: u64 = 3;
    /// Whether the processor has AVX and the nucleus has enabled it.
    pub const AVX: u64 = 4;
}

/// How a process ended, as [`call::WAIT`] tells it: the exit code's low byte, or one of these plus
/// a detail.
pub mod end {
    /// Plus the vector: ended by an exception.
    pub const EXCEPTION: u64 = 0x100;
    /// Killed from the console.
    pub const KILLED: u64 = 0x200;
    /// There was no memory left for it.
    pub const OUT_OF_MEMORY: u64 = 0x300;
}

/// The longest message.
pub const MESSAGE_MAX: usize = 64;

/// Why a system call did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Error {
    /// There is no such process, or it is not a child of the caller.
    NoProcess = -3,
    /// There is no such program.
    NoProgram = -2,
    /// The table that would have to grow is full.
    Limit = -11,
    /// No memory is left, and none can be moved to disk.
    NoMemory = -12,
    /// The memory named is not the caller's, or not writable where it has to be.
    BadPointer = -14,
    /// An argument makes no sense.
    Invalid = -22,
    /// There is no system call of this number.
    NoCall = -38,
}
