//! The signal handlers that turn a host fault inside a thunk into a value.
//!
//! SIGFPE, SIGILL, SIGSEGV and SIGBUS are caught for the whole process, once. If the interrupted
//! RIP lies in a registered code area, the handler makes the thunk *return* with a fault code: a
//! thunk never moves RSP before its guest instruction has run, so [RSP] is its return address and
//! [RSP+8] holds the guest state's address (see `enter`). Any other fault goes to the handler that
//! was there before. The handler takes no lock, allocates nothing and uses no thread-local.
#![allow(unsafe_code)] // Reason: sigaction, and editing the interrupted context.

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicPtr;

use host::{Ranges, chain, install_handler};
use x86::state::CpuState;

/// Set in RAX, above the host's trap number, when a thunk was left by a fault.
pub(super) const FAULTED: u64 = 1 << 8;

/// RFLAGS.TF.
const TF: i64 = 1 << 8;

/// Code areas that virtual processors and probes may have at once.
const SLOTS: usize = 1024;
static THUNKS: Ranges<SLOTS> = Ranges::new();
/// With pointers to [`Translated`].
static TRANSLATED: Ranges<SLOTS> = Ranges::new();

const SIGNALS: [i32; 4] = [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS];
static PREVIOUS: [AtomicPtr<libc::sigaction>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];

/// Keeps an address range registered as thunk code.
#[derive(Debug)]
pub(super) struct Registration {
    slot: usize,
}

impl Registration {
    /// Registers start..end, installing the handlers the first time.
    pub(super) fn new(start: usize, end: usize) -> io::Result<Self> {
        install()?;
        let slot = THUNKS.enter(start, end, 0).ok_or_else(full)?;
        Ok(Self { slot })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        THUNKS.take(self.slot);
    }
}

fn full() -> io::Error {
    io::Error::other(format!("more than {SLOTS} code areas in one process; drop some first"))
}

/// What the guard needs to end translated code of any processor: it sets `exit` and `fault_pc` and
/// continues at `leave`, with all registers as they were. GS points to the processor there; the
/// first three are offsets in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translated {
    /// The processor's own address.
    pub(crate) this: usize,
    pub(crate) exit: usize,
    pub(crate) fault_pc: usize,
    pub(crate) leave: u64,
}

/// Keeps a range of translated code registered.
#[derive(Debug)]
pub(crate) struct TranslatedRegistration {
    slot: usize,
}

impl TranslatedRegistration {
    /// Registers start..end, where GS points to what `data` says.
    pub(crate) fn new(start: usize, end: usize, data: Translated) -> io::Result<Self> {
        install()?;
        let data = Box::into_raw(Box::new(data));
        match TRANSLATED.enter(start, end, data as usize) {
            Some(slot) => Ok(Self { slot }),
            None => {
                // SAFETY: `Box::into_raw` made it above, and no range holds it: `enter` has refused
                // it.
                drop(unsafe { Box::from_raw(data) });
                Err(full())
            }
        }
    }
}

impl Drop for TranslatedRegistration {
    fn drop(&mut self) {
        let data = TRANSLATED.take(self.slot) as *mut Translated;
        // SAFETY: made by `Box::into_raw` in `new`; the range is no longer found, and no code runs
        // in it.
        drop(unsafe { Box::from_raw(data) });
    }
}

/// Sends a fault in translated code to its exit. False: RIP is elsewhere.
fn leave_translated(uc: &mut libc::ucontext_t) -> bool {
    let rip = uc.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    let Some(data) = TRANSLATED.find(rip) else { return false };
    let data = data as *const Translated;
    // SAFETY: registered, so alive: this thread runs there. Translated code runs with GS at its
    // thread's processor (`translate::run::attach`), which the kernel leaves as it is for handlers;
    // the offsets are that type's.
    unsafe {
        let Translated { this, exit, fault_pc, leave } = *data;
        let cpu: *mut u8;
        std::arch::asm!("mov {}, gs:[{}]", out(reg) cpu, in(reg) this,
            options(nostack, readonly, preserves_flags));
        cpu.add(exit).cast::<u32>().write(u32::MAX);
        cpu.add(fault_pc).cast::<u64>().write(rip as u64);
        uc.uc_mcontext.gregs[libc::REG_RIP as usize] = leave as i64;
    }
    // It may have been stepped through.
    uc.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TF;
    true
}

pub(super) fn is_thunk(rip: usize) -> bool {
    THUNKS.find(rip).is_some()
}

fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    DONE.get_or_init(|| {
        for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
            install_handler(signal, previous, handler)
                .map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))?;
        }
        Ok(())
    })
    .map_err(io::Error::from_raw_os_error)
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo and ucontext to an SA_SIGINFO handler.
    let (code, uc) = unsafe { ((*info).si_code, &mut *context.cast::<libc::ucontext_t>()) };
    let rip = uc.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    // si_code > 0: raised by the processor, not sent by a process.
    if code > 0 && is_thunk(rip) {
        // SAFETY: RIP is in a thunk, whose frame is as described above.
        unsafe { leave_thunk(uc) };
    } else if code > 0 && leave_translated(uc) {
        // The translated code stores its registers and returns.
    } else {
        // SAFETY: the kernel passed these arguments to this handler, for the same signal.
        unsafe { chain(signal, info, context, previous(signal)) };
    }
}

/// Makes the interrupted thunk return with a fault code and the host's floating-point environment.
///
/// # Safety
/// The interrupted RIP lies in a thunk that was entered through `enter`.
unsafe fn leave_thunk(uc: &mut libc::ucontext_t) {
    let fp = uc.uc_mcontext.fpregs;
    let regs = &mut uc.uc_mcontext.gregs;
    let trap = regs[libc::REG_TRAPNO as usize];
    let rsp = regs[libc::REG_RSP as usize] as *const u64;
    // SAFETY: [RSP] is the return address into `enter`, [RSP+8] the `*mut CpuState` it was given;
    // the thunk's caller lent that state to the thunk, so this is the only access. `fpregs` points
    // into the signal frame when not null.
    unsafe {
        let state = *rsp.add(1) as *mut CpuState;
        if !fp.is_null() {
            if trap == 19 && !state.is_null() {
                (*state).x87.mxcsr = (*fp).mxcsr;
            }
            (*fp).mxcsr = 0x1f80;
            (*fp).cwd = 0x37f;
            (*fp).swd = 0;
            (*fp).ftw = 0;
        }
        if trap == 14 && !state.is_null() {
            // Where the host page fault was travels in RDX, as the second half of the result.
            regs[libc::REG_RDX as usize] = regs[libc::REG_CR2 as usize];
        }
        regs[libc::REG_RIP as usize] = *rsp as i64;
    }
    regs[libc::REG_RSP as usize] += 8;
    regs[libc::REG_RAX as usize] = (FAULTED as i64) | (trap & 0xff);
}

/// The action of `signal` before ours.
fn previous(signal: i32) -> &'static AtomicPtr<libc::sigaction> {
    &PREVIOUS[SIGNALS.iter().position(|s| *s == signal).unwrap_or(0)]
}
