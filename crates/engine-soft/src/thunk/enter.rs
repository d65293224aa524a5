//! Calling a thunk.
//!
//! A thunk is entered with RDI = guest state and RSI = memory pointer, and returns RAX = 0. The
//! guest state's address lies on the stack above the return address, for the fault guard. A thunk
//! preserves no register: the full entry saves the callee-saved ones, the light entry is for thunks
//! that touch none of them.
#![allow(unsafe_code)] // Reason: naked functions that call generated code.

use std::arch::naked_asm;

use x86::state::CpuState;

use super::guard::FAULTED;
use super::x87;

/// What a thunk left: 0, or `FAULTED` and the trap number; then the host address of a page fault.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) code: u64,
    pub(super) address: u64,
}

pub(super) type Enter = unsafe extern "sysv64" fn(*mut CpuState, *mut u8, *const u8) -> Outcome;

/// For thunks that touch caller-saved registers only.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn enter_light(
    _state: *mut CpuState,
    _mem: *mut u8,
    _code: *const u8,
) -> Outcome {
    naked_asm!("push rdi", "call rdx", "pop rcx", "ret")
}

/// For all other thunks.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn enter_full(
    _state: *mut CpuState,
    _mem: *mut u8,
    _code: *const u8,
) -> Outcome {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15", "push rdi",
        "call rdx", "pop rcx", "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
    )
}

/// The entry for MMX instructions. It checks for a pending x87 error and enters MMX state, so that
/// the thunk finds MMn in `st[n]`.
pub(super) unsafe extern "sysv64" fn enter_mmx(
    state: *mut CpuState,
    mem: *mut u8,
    code: *const u8,
) -> Outcome {
    // SAFETY: `Thunk::run` borrows the state exclusively and passes it here.
    let x87 = unsafe { &mut (*state).x87 };
    if x87::error_pending(x87) {
        return Outcome { code: FAULTED | 16, address: 0 };
    }
    x87::enter_mmx(x87);
    // SAFETY: `Thunk::run` passes a thunk that is alive, its memory operand and a borrowed state.
    unsafe { enter_full(state, mem, code) }
}
