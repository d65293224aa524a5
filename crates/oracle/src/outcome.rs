//! What a case did: the state at the event that ended it.
//!
//! Plain data with a fixed layout: the native child writes it into shared memory from its signal
//! handler.

use x86::addr::La;

/// How a case ended. Vectors are the processor's; those above 255 are the runner's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// The exception's vector. INT3 (3) is the regular end of straight-line code, #DB (1) that of a
    /// single step.
    pub vector: u32,
    /// The error code, 0 for vectors that push none.
    pub error_code: u32,
    /// #PF: the faulting linear address; otherwise 0.
    pub cr2: u64,
}

impl Event {
    /// The case did not end in time.
    pub const TIMEOUT: u32 = 0x100;
    /// The case tried a system call; the sandbox stopped it.
    pub const SYSCALL: u32 = 0x101;
    /// The native child died on it. `error_code` is the wait status.
    pub const DIED: u32 = 0x102;
    /// The engine reported a triple fault.
    pub const SHUTDOWN: u32 = 0x103;
    /// The engine gave up, or stopped for a reason that a case cannot have.
    pub const ENGINE: u32 = 0x104;

    /// Whether the ending can be judged: engine and host may end in these ways only together.
    pub const fn comparable(self) -> bool {
        self.vector != Self::SYSCALL && self.vector != Self::DIED
    }

    /// An exception other than the regular ends #BP and #DB.
    pub fn fault(self) -> Option<Self> {
        (self.vector != 1 && self.vector != 3).then_some(self)
    }

    /// Forces the present bit in the error code of a user access to the upper half, since Linux
    /// hides whether a kernel page is mapped (arch/x86/mm/fault.c, `sanitize_error_code`).
    pub const fn normalized(mut self) -> Self {
        if self.vector == 14 && self.cr2 >= 0x7fff_ffff_f000 {
            self.error_code |= 1;
        }
        self
    }
}

/// One 8-byte word of memory that the case changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Change {
    /// Its linear address, 8-byte aligned.
    pub address: La,
    /// Its value afterwards, little endian.
    pub value: u64,
}

/// The x87 unit without its last-instruction pointers, which differ between vendors (APM vol. 2,
/// 11.4.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct X87Registers {
    /// ST(0) to ST(7), 80 bits each, the rest zero.
    pub st: [[u8; 16]; 8],
    /// Control word.
    pub fcw: u16,
    /// Status word.
    pub fsw: u16,
    /// Abridged tag word.
    pub ftw: u16,
}

/// The state at the end of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Outcome {
    /// General registers in encoding order.
    pub gpr: [u64; 16],
    /// RIP as the exception frame shows it.
    pub rip: u64,
    /// RFLAGS as the exception frame shows it.
    pub rflags: u64,
    /// FS base.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// YMM0 to YMM15.
    pub ymm: [[u8; 32]; 16],
    /// x87 registers.
    pub x87: X87Registers,
    /// MXCSR.
    pub mxcsr: u32,
    /// Words of memory changed.
    pub changed: u32,
    /// Hash over the address and value of each.
    pub memory_hash: u64,
    /// The first of them in ascending order of address; the rest zero.
    pub changes: [Change; Self::CHANGES],
    /// What ended the case.
    pub event: Event,
}

impl Outcome {
    /// Changed words that are listed one by one; those of an XSAVE image fit.
    pub const CHANGES: usize = 112;

    /// All zero.
    pub const ZERO: Self = Self {
        gpr: [0; 16],
        rip: 0,
        rflags: 0,
        fs_base: 0,
        gs_base: 0,
        ymm: [[0; 32]; 16],
        x87: X87Registers { st: [[0; 16]; 8], fcw: 0, fsw: 0, ftw: 0 },
        mxcsr: 0,
        changed: 0,
        memory_hash: 0,
        changes: [Change { address: La(0), value: 0 }; Self::CHANGES],
        event: Event { vector: 0, error_code: 0, cr2: 0 },
    };

    /// An outcome that is nothing but an ending.
    pub const fn ended(vector: u32, error_code: u32) -> Self {
        let mut outcome = Self::ZERO;
        outcome.event = Event { vector, error_code, cr2: 0 };
        outcome
    }

    /// The changed words that are listed.
    pub fn changes(&self) -> &[Change] {
        &self.changes[..(self.changed as usize).min(Self::CHANGES)]
    }

    /// Notes that memory at `address` now holds `value`. Call in ascending order of address.
    pub(crate) fn note_change(&mut self, address: La, value: u64) {
        if let Some(slot) = self.changes.get_mut(self.changed as usize) {
            *slot = Change { address, value };
        }
        self.changed += 1;
        let mixed = (self.memory_hash ^ address.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ value;
        self.memory_hash = mixed.rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
}
