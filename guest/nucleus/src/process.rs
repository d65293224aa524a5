//! The process descriptor: a processor's complete state in memory, and what belongs to its process.

use crate::physical::Frame;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// Number of a process; 0 is the nucleus itself.
pub type Pid = u32;

/// Largest XSAVE area for x87, SSE and AVX (SDM vol. 1, 13.4): 512 + 64 + 256 bytes.
const XSAVE: usize = 832;

/// The processor's registers. entry.s pushes and pops them in this order.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Frame64 {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    /// Pushed by the stubs: which vector, and the error code or 0.
    pub vector: u64,
    pub error: u64,
    /// Pushed by the processor: the return register and its companions.
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// The part of the descriptor that the processor and entry.s read and write.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Context {
    pub frame: Frame64,
    padding: [u64; 2],
    pub fpu: [u8; XSAVE],
    pub fs_base: u64,
    pub gs_base: u64,
}

impl Context {
    /// As a program finds the processor: everything zero, x87 and SSE as after FNINIT and LDMXCSR
    /// 1F80H.
    pub fn new(entry: u64, stack: u64) -> Self {
        let mut fpu = [0; XSAVE];
        fpu[0..2].copy_from_slice(&0x037Fu16.to_le_bytes());
        fpu[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
        fpu[512] = 3; // XSTATE_BV: x87 and SSE are in the area, AVX in its initial state
        let frame = Frame64 {
            rip: entry,
            rsp: stack,
            rflags: 0x202, // IF
            cs: crate::tables::USER_CODE.into(),
            ss: crate::tables::USER_DATA.into(),
            ..Frame64::default()
        };
        Self { frame, padding: [0; 2], fpu, fs_base: 0, gs_base: 0 }
    }

    /// Where TSS.RSP0 has to point so that interrupts save into this frame.
    pub fn frame_end(&self) -> u64 {
        &raw const self.frame as u64 + size_of::<Frame64>() as u64
    }
}

const _: () = assert!(size_of::<Frame64>() == 176 && core::mem::offset_of!(Context, fpu) == 192);

/// What a process waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A line from the console.
    Line,
    /// The end of a child.
    Child,
    /// A semaphore.
    Semaphore(u64),
    /// A message.
    Message,
    /// Room in that process's mailbox.
    Room(Pid),
    /// A time, in microseconds since boot.
    Until(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Runs, or stands in the ready queue.
    Ready,
    Blocked(Wait),
    /// Ended; the parent has not asked yet.
    Ended(End),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Exception { vector: u8, error: u64, address: u64 },
    Killed,
    OutOfMemory,
}

/// Where the pages of a region come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Zeros.
    Zero,
    /// A program's image: `file` bytes at `offset` go to `address`, the rest is zero.
    Image { program: usize, offset: u64, file: u64, address: u64 },
}

/// A stretch of a process's memory, promised but not necessarily there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: u64,
    pub end: u64,
    pub write: bool,
    pub execute: bool,
    pub source: Source,
    pub name: &'static str,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time stamp counts at user level, nucleus time on its behalf not included.
    pub tsc: u64,
    pub quanta: u64,
    pub calls: u64,
    pub faults: u64,
}

pub struct Message {
    pub sender: Pid,
    pub bytes: Vec<u8>,
}

/// The descriptor.
pub struct Process {
    pub context: Box<Context>,
    pub pid: Pid,
    pub parent: Pid,
    pub name: String,
    pub state: State,
    /// What CR3 is while it runs.
    pub root: Frame,
    pub regions: Vec<Region>,
    pub usage: Usage,
    /// Microseconds by which the last quantum was too long.
    pub debt: u64,
    pub mailbox: VecDeque<Message>,
}

impl Process {
    pub fn region(&self, address: u64) -> Option<&Region> {
        self.regions.iter().find(|r| (r.start..r.end).contains(&address))
    }
}
