//! What a thread needs before it runs translated code: RSP is the guest's there, so no signal
//! handler may run on it.
#![allow(unsafe_code)] // signal stack, signal mask, GS; see docs/UNSAFE.md

use std::cell::Cell;
use std::mem::MaybeUninit;

/// Bytes of the alternate stack: room for AVX-512's signal frame and the fault guard.
const STACK: usize = 64 << 10;

thread_local! {
    static READY: Cell<bool> = const { Cell::new(false) };
    /// What this thread's GS base points to.
    static BASE: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}

/// Gives this thread an alternate signal stack, and keeps away handlers that would not use it. Once
/// a thread.
#[inline]
pub(super) fn prepare() {
    if !READY.get() {
        alternate_stack();
        block_handlers();
        READY.set(true);
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
        // SAFETY: as above, by system call.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) };
    }
}

/// Whether WRGSBASE is enabled (AT_HWCAP2 bit 1).
fn fsgsbase() -> bool {
    // SAFETY: getauxval reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & 2 != 0 }
}

fn alternate_stack() {
    let memory = Box::leak(vec![0u8; STACK].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: the memory lives as long as the process; a thread that ends leaves it behind.
    unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
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
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) != 0 {
                continue;
            }
            let handled =
                action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
            if handled && action.sa_flags & libc::SA_ONSTACK == 0 {
                libc::sigaddset(&raw mut set, signal);
            }
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}
