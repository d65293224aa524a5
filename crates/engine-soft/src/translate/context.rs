//! The fields that translated code and the run loop share, inside [`crate::cpu::Cpu`].
#![allow(unsafe_code)] // fields that a signal's handler writes; see docs/UNSAFE.md

use crate::tlb::Entry;
use x86::state::Segment;

/// The page that a stack lies on.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct StackPage {
    /// Its linear address.
    pub(super) page: u64,
    /// Its host address.
    pub(super) host: u64,
}

impl StackPage {
    /// No stack's page. An address on it is none at all, and is found at host address 0, where
    /// nothing is: the fault leaves to the interpreter.
    pub(super) const NONE: Self = Self { page: 1 << 63, host: 0 };
}

/// What a page at hand was found in: the view, and what the TLB had lost by then.
pub(crate) type Source = (*const Entry, u64);

/// What belongs to a privilege level (see [`super::gate`]).
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Level {
    pub(super) view: *const Entry,
    pub(super) fetch: u64,
    pub(super) fetch_view: usize,
    pub(super) targets: u64,
    pub(super) slots: u64,
    pub(super) segments: [Segment; 2],
}

/// What SYSCALL and SYSRET load, if they may be done in translated code.
#[repr(C)]
pub(super) struct Gates {
    pub(super) open: u8,
    /// The kernel's and the user's.
    pub(super) levels: [Level; 2],
}

impl Gates {
    pub(super) const CLOSED: Self = {
        let none = Segment { base: 0, limit: 0, selector: 0, access: 0 };
        let (view, segments) = (std::ptr::null(), [none; 2]);
        let level = Level { view, fetch: 0, fetch_view: 0, targets: 0, slots: 0, segments };
        Self { open: 0, levels: [level; 2] }
    };

    /// The view that a gate leads to at `level`: 0 the kernel's, 1 the user's.
    pub(super) fn view(&self, level: usize) -> Option<*const Entry> {
        (self.open != 0).then(|| self.levels[level].view)
    }
}

/// Fields that translated code addresses through GS.
#[repr(C)]
pub(crate) struct Context {
    /// Which exit was taken (an index of the translator's sites, or [`FAULTED`]).
    pub(crate) exit: u32,
    /// 1 while the guest's vector registers are in the state rather than in the host's.
    pub(crate) vectors_out: u8,
    /// Not 0: do not enter translated code (see `super::interrupt`).
    pub(crate) stop: u8,
    /// Status flags saved during address checks.
    pub(crate) flags: u16,
    /// The address that polls read: of a readable word, or [`UNREADABLE`] when translated code is
    /// to stop.
    pub(crate) poll: u64,
    /// The host's stack pointer while the guest's is in RSP.
    pub(crate) host_rsp: u64,
    /// Where to jump on entry.
    pub(crate) target: u64,
    /// Where to jump from the boundary's stub: into a per-access translation.
    pub(crate) beside: u64,
    /// A value on its way through an address check.
    pub(crate) scratch: u64,
    /// The pages that the kernel's stack and the user's lie on.
    pub(crate) stack_page: [StackPage; 2],
    /// A register's value while the TLB is asked for the stack's page.
    pub(crate) stack_scratch: u64,
    /// RIP in host code where a fault was met.
    pub(crate) fault_pc: u64,
    /// Guest instructions that translated code may still run: it counts down where it counts, and
    /// stops below 0 where it is bounded.
    pub(crate) left: i64,
    /// Entries into translations that count, and their look-ups in the table of targets.
    pub(crate) entered: u64,
    pub(crate) looked_up: u64,
    /// The table of indirect-branch targets of the current view.
    pub(crate) targets: u64,
    /// The slots of branches to other pages of the current view (see `super::cross_page`).
    pub(crate) slots: u64,
    /// Counts down where links to other pages do not hold.
    pub(crate) relink_countdown: i32,
    /// The host's MXCSR.
    pub(crate) host_mxcsr: u32,
    /// The fault exit's address, for the fault guard.
    pub(crate) leave: u64,
    /// The entry code's address.
    pub(crate) enter: u64,
    /// The processor itself, for what stub calls.
    pub(crate) cpu: u64,
    /// Where the code lies that may run: start and end.
    code: [u64; 2],
    /// All registers as a fault found them.
    pub(crate) raw: [u64; 16],
    /// The missed check needs each access checked by itself.
    pub(crate) per_access: bool,
    /// What SYSCALL and SYSRET load.
    pub(super) gates: Gates,
}

/// The most that [`Context::left`] begins with: as long as its upper byte is 0 translated code goes
/// on.
pub(crate) const MOST_LEFT: u64 = (1 << 56) - 1;

/// No page is ever mapped there.
pub(crate) const UNREADABLE: u64 = 1;
/// What polls read otherwise.
static READABLE: u64 = 0;

impl Context {
    /// Translated code may be entered, and goes on at its polls unless `stopping`. A signal's
    /// handler may close it at any time.
    pub(crate) fn open(&mut self, stopping: bool) {
        let poll = if stopping { UNREADABLE } else { (&raw const READABLE).addr() as u64 };
        // SAFETY: fields of this processor, which its own thread's handler writes.
        unsafe {
            std::ptr::write_volatile(&raw mut self.stop, 0);
            std::ptr::write_volatile(&raw mut self.poll, poll);
        }
    }

    /// Code may run from `start` to `end`. A signal's handler may ask at any time, and finds
    /// nothing or one of both ranges.
    pub(crate) fn set_code(&mut self, start: u64, end: u64) {
        for (n, value) in [(1, 0), (0, start), (1, end)] {
            // SAFETY: a field of this processor, which its own thread's handler reads.
            unsafe { std::ptr::write_volatile(&raw mut self.code[n], value) };
        }
    }

    /// Where the code lies that may run.
    #[inline(always)]
    pub(crate) fn code_start(&self) -> u64 {
        self.code[0]
    }

    /// Where in the code that may run `rip` is; `None`: it is elsewhere.
    ///
    /// # Safety
    /// `this` is the context of the processor that this thread runs.
    pub(crate) unsafe fn offset(this: *const Self, rip: u64) -> Option<u32> {
        // SAFETY: the caller passes the context of this thread's processor, which is interrupted.
        let [start, end] = unsafe { std::ptr::read_volatile(&raw const (*this).code) };
        (start..end).contains(&rip).then(|| (rip - start) as u32)
    }

    /// Translated code is not entered, and stops at its next poll.
    ///
    /// # Safety
    /// `this` is the context of the processor that this thread runs.
    pub(crate) unsafe fn close(this: *mut Self) {
        // SAFETY: the caller passes the context of this thread's processor. Rust looks at these
        // fields by volatile accesses only, and translated code reads them as it goes.
        unsafe {
            std::ptr::write_volatile(&raw mut (*this).stop, 1);
            std::ptr::write_volatile(&raw mut (*this).poll, UNREADABLE);
        }
    }
}

/// `Context::exit` after a host fault, or a stop.
pub(crate) const FAULTED: u32 = u32::MAX;
/// `Context::exit` behind a SYSCALL or SYSRET to where no translation is known. RIP is in the
/// state, and status flags in [`Context::flags`].
pub(crate) const PASSED: u32 = u32::MAX - 2;
/// `Context::exit` if translated code was not entered.
pub(crate) const NOT_ENTERED: u32 = u32::MAX - 1;

impl Default for Context {
    fn default() -> Self {
        Self {
            exit: 0,
            vectors_out: 1,
            stop: 0,
            flags: 0,
            poll: UNREADABLE,
            host_rsp: 0,
            target: 0,
            beside: 0,
            scratch: 0,
            stack_page: [StackPage::NONE; 2],
            stack_scratch: 0,
            fault_pc: 0,
            left: 0,
            entered: 0,
            looked_up: 0,
            targets: 0,
            slots: 0,
            relink_countdown: 0,
            host_mxcsr: 0x1f80,
            leave: 0,
            enter: 0,
            cpu: 0,
            code: [0; 2],
            raw: [0; 16],
            per_access: false,
            gates: Gates::CLOSED,
        }
    }
}
