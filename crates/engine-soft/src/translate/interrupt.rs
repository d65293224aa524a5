//! Stops translated code when a signal is raised for its processor. Translated code does not poll.
//!
//! Raising a signal also sends the host's signal [`WAKE`] to the processor's thread. If its handler
//! finds translated code in the middle of a guest instruction, it lets the host step (RFLAGS.TF)
//! until the next one begins, where the guest's state is whole. There it leaves as a fault does. If
//! the handler finds the thread in Rust, it sets [`Context::stop`], which the entry stub reads on
//! every entry into translated code. REP is not stepped through: a poll follows it.
//!
//! In lockstep translated code polls as well. With a limit in instructions it counts down, too
//! (`super::count`).
//!
//! [`Context::stop`]: super::context::Context::stop
#![allow(unsafe_code)] // signal handlers, and editing the interrupted context; see docs/UNSAFE.md

use super::context::{Context, FAULTED};
use super::tick::{Tells, tells};
use crate::cpu::Cpu;
use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::{Arc, OnceLock};
use vcpu::{Kick, Residence, Signals};

/// Ignored by default, so that one that comes late, or to a process without a handler, does
/// nothing.
const WAKE: i32 = libc::SIGURG;
/// `si_code` of a step's SIGTRAP.
const TRAP_TRACE: i32 = 2;
/// RFLAGS.TF.
const TF: i64 = 1 << 8;

static BEFORE_WAKE: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());
static BEFORE_TRAP: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    /// The processor that runs on this thread.
    static RUNNING: Cell<*mut Cpu> = const { Cell::new(ptr::null_mut()) };
    /// Its signals, which live as long.
    static SIGNALS: Cell<*const Signals> = const { Cell::new(ptr::null()) };
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

/// Makes translated code stop that `thread` runs, if that is another.
pub(crate) fn send(thread: u32) {
    let thread = thread as i32;
    if thread != this_thread() {
        // SAFETY: a system call without pointers; a thread that has ended is not found.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, WAKE) };
    }
}

/// The id of this thread.
fn this_thread() -> i32 {
    if THREAD.get() == 0 {
        // SAFETY: gettid has no arguments and no preconditions.
        THREAD.set(unsafe { libc::gettid() });
    }
    THREAD.get()
}

/// Catches the signals, the first time.
///
/// # Errors
/// The host lets no process catch them.
pub(crate) fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    let error = |error: io::Error| error.raw_os_error().unwrap_or(libc::EINVAL);
    DONE.get_or_init(|| {
        host::install_handler(WAKE, &BEFORE_WAKE, woken).map_err(error)?;
        host::install_handler(libc::SIGTRAP, &BEFORE_TRAP, stepped).map_err(error)
    })
    .map_err(io::Error::from_raw_os_error)
}

/// As long as this lives a processor runs on this thread; it does not any more when it is dropped,
/// also by a panic.
pub(crate) struct Running(Arc<Signals>);

impl Running {
    /// `cpu` runs on this thread from now on.
    pub(crate) fn begin(cpu: &mut Cpu) -> Self {
        let signals = cpu.core.signals.clone();
        super::tick::arm(this_thread(), WAKE);
        SIGNALS.set(Arc::as_ptr(&signals));
        RUNNING.set(cpu);
        signals.settle(Residence::Running(this_thread() as u32));
        Self(signals)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.settle(Residence::Queued);
        RUNNING.set(ptr::null_mut());
    }
}

extern "C" fn woken(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let cpu = RUNNING.get();
    // One that comes before a run begins or when it has ended is late, or early: what was raised is
    // seen anyway.
    if !cpu.is_null() {
        // SAFETY: the signals live as long as `RUNNING` names the processor.
        let signals = unsafe { &*SIGNALS.get() };
        // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
        match tells(unsafe { (*info).si_code }) {
            Tells::Wanted => {}
            // One of the host's signals stands for all that came while it was pending.
            Tells::Second if signals.bits() == 0 => return,
            Tells::Second => {}
            Tells::Away => signals.kick_here(Kick::Away),
        }
        // SAFETY: the kernel passes a valid ucontext; `cpu` is alive as long as `RUNNING` names it.
        unsafe { stop(cpu, &mut *context.cast()) };
    }
}

extern "C" fn stepped(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let cpu = RUNNING.get();
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    if cpu.is_null() || unsafe { (*info).si_code } != TRAP_TRACE {
        // SAFETY: the kernel passed these arguments to this handler, for the same signal.
        unsafe { host::chain(signal, info, context, &BEFORE_TRAP) };
        return;
    }
    // SAFETY: the kernel passes a valid ucontext; `cpu` is alive as long as `RUNNING` names it.
    unsafe { stop(cpu, &mut *context.cast()) };
}

/// Lets the interrupted code leave, step on to where it may, or stop on its way in.
///
/// # Safety
/// `cpu` is the processor that runs on this thread, interrupted at `uc`.
unsafe fn stop(cpu: *mut Cpu, uc: &mut libc::ucontext_t) {
    let registers = &mut uc.uc_mcontext.gregs;
    let rip = registers[libc::REG_RIP as usize] as u64;
    let flags = &mut registers[libc::REG_EFL as usize];
    *flags &= !TF;
    // SAFETY: the caller passes the processor that this thread runs, so this context is its own.
    let offset = unsafe {
        Context::close(&raw mut (*cpu).jit);
        Context::offset(&raw const (*cpu).jit, rip)
    };
    let Some(offset) = offset else { return };
    // SAFETY: translated code and stub are interrupted, so no code changes this processor or holds
    // a reference to it.
    let cpu = unsafe { &mut *cpu };
    let Some(generation) = cpu.translator.generation() else { return };
    if generation.begins_instruction(offset) {
        (cpu.jit.exit, cpu.jit.fault_pc) = (FAULTED, rip);
        registers[libc::REG_RIP as usize] = cpu.jit.leave as i64;
    } else if !repeats(generation.area.glance(offset as usize)) {
        *flags |= TF;
    }
}

/// Whether `code` begins with a repeated string instruction, as `super::asm` has it: stepping would
/// stop at each element.
fn repeats(code: [u8; 4]) -> bool {
    let string = |byte| matches!(byte, 0xa4 | 0xa5 | 0xaa | 0xab);
    match code {
        [0x66, 0xf3, opcode, _] | [0xf3, 0x48, opcode, _] | [0xf3, opcode, ..] => string(opcode),
        _ => false,
    }
}
