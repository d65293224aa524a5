//! Prepares a thread for translated code: RSP is the guest's there, so no signal handler may run on
//! it.
#![allow(unsafe_code)] // signal stack, signal mask, GS; see docs/UNSAFE.md

use std::cell::{Cell, OnceCell};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

/// Bytes of the alternate stack: room for AVX-512's signal frame and the fault guard.
const STACK: usize = 64 << 10;
/// Bytes below the stack that fault when it overflows.
const GUARD: usize = 4 << 10;

thread_local! {
    static READY: Cell<bool> = const { Cell::new(false) };
    /// Freed when the thread ends.
    static SIGNAL_STACK: OnceCell<SignalStack> = const { OnceCell::new() };
    /// What this thread's GS base points to.
    static BASE: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// Gives this thread an alternate signal stack, and keeps away handlers that would not use it. Once
/// a thread.
///
/// # Errors
/// The host gives no memory for the stack: this thread must not run translated code.
#[inline]
pub(super) fn prepare() -> io::Result<()> {
    if READY.get() { Ok(()) } else { prepare_anew() }
}

#[cold]
fn prepare_anew() -> io::Result<()> {
    let stack = SignalStack::install()?;
    SIGNAL_STACK.with(|slot| slot.set(stack).map_err(drop)).expect("installed once a thread");
    block_handlers();
    READY.set(true);
    Ok(())
}

/// This thread's alternate signal stack, above a guard page.
struct SignalStack {
    /// The mapping: `GUARD` bytes without access, then the stack.
    mapping: NonNull<libc::c_void>,
}

impl SignalStack {
    fn install() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object.
        let mapping =
            unsafe { libc::mmap(ptr::null_mut(), GUARD + STACK, libc::PROT_NONE, flags, -1, 0) };
        let mapping = NonNull::new(mapping).filter(|m| m.as_ptr() != libc::MAP_FAILED);
        let stack = Self { mapping: mapping.ok_or_else(io::Error::last_os_error)? };
        stack.activate()?;
        Ok(stack)
    }

    fn activate(&self) -> io::Result<()> {
        let start = self.mapping.as_ptr().wrapping_byte_add(GUARD);
        let stack = libc::stack_t { ss_sp: start, ss_flags: 0, ss_size: STACK };
        // SAFETY: the range is the upper part of the mapping that `self` owns. It stays mapped
        // while it is the signal stack: `drop` takes it out of use first.
        let done = unsafe {
            libc::mprotect(start, STACK, libc::PROT_READ | libc::PROT_WRITE) == 0
                && libc::sigaltstack(&raw const stack, ptr::null_mut()) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        READY.set(false);
        let none =
            libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: STACK };
        // SAFETY: `self` owns the mapping, and it is dropped on the thread that made it, outside
        // every signal handler. The kernel uses the stack no longer once it is disabled.
        unsafe {
            libc::sigaltstack(&raw const none, ptr::null_mut());
            libc::munmap(self.mapping.as_ptr(), GUARD + STACK);
        }
    }
}

/// Points GS to `base` on this thread. WRGSBASE costs as much as some dozen instructions, so not
/// without need.
#[inline]
pub(super) fn set_gs(base: *mut u8) {
    if BASE.get() != base {
        write_gs(base);
        BASE.set(base);
    }
}

#[cold]
fn write_gs(base: *mut u8) {
    if fsgsbase() {
        // SAFETY: the host lets user code set GS (checked); nothing of ours or of libc uses GS on
        // x86-64 Linux.
        unsafe { std::arch::asm!("wrgsbase {}", in(reg) base, options(nostack, preserves_flags)) };
    } else {
        const ARCH_SET_GS: libc::c_int = 0x1001;
        // SAFETY: the call changes this thread's GS base only, and nothing of ours or of libc uses
        // GS on x86-64 Linux.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) };
    }
}

/// Has this processor of the host's drop what it has fetched of code: what others have written to
/// code before, it runs from now on (SDM vol. 3, 10.1.3 and 10.3: IRET serializes at any level).
pub(super) fn serialize() {
    // SAFETY: IRET to the next instruction, with the stack pointer, flags and segments as they are.
    // The red zone is skipped.
    unsafe {
        std::arch::asm!(
            "mov {old}, rsp",
            "sub rsp, 128",
            "mov {segment:e}, ss",
            "push {segment}",
            "push {old}",
            "pushfq",
            "mov {segment:e}, cs",
            "push {segment}",
            "lea {segment}, [rip + 2f]",
            "push {segment}",
            "iretq",
            "2:",
            old = out(reg) _,
            segment = out(reg) _,
        );
    }
}

/// Whether WRGSBASE is enabled (AT_HWCAP2 bit 1).
fn fsgsbase() -> bool {
    // SAFETY: getauxval reads the auxiliary vector, which the kernel has placed before `main`.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & 2 != 0 }
}

/// Blocks, on this thread, every signal whose handler would run on the interrupted stack; other
/// threads take them.
fn block_handlers() {
    // SAFETY: sigset_t and sigaction are plain data; the calls get pointers to live values.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
        libc::sigemptyset(&raw mut set);
        for signal in 1..=64 {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            if libc::sigaction(signal, ptr::null(), &raw mut action) != 0 {
                continue;
            }
            let handled =
                action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
            if handled && action.sa_flags & libc::SA_ONSTACK == 0 {
                libc::sigaddset(&raw mut set, signal);
            }
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
    }
}
