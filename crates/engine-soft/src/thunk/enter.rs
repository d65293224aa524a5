//! Calling a thunk.
//!
//! A thunk is entered with RDI = guest state and RSI = memory pointer, and returns RAX = 0. The
//! guest state's address lies on the stack above the return address, for the fault guard. A thunk
//! preserves no register: the full entry saves the callee-saved ones, the light entry is for thunks
//! that touch none of them.
#![allow(unsafe_code)] // Reason: naked functions that call generated code.

use std::arch::naked_asm;
use std::ptr::NonNull;

use x86::state::CpuState;

use super::guard::FAULTED;
use super::types::{Classification, ThunkFault};
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

/// A compiled instruction. Valid until its cache is reset or dropped.
#[derive(Clone, Copy, Debug)]
pub struct Thunk {
    pub(super) code: NonNull<u8>,
    pub(super) enter: Enter,
    /// What the instruction needs and does.
    pub class: Classification,
}

// SAFETY: a thunk is an address of immutable code; running it is `unsafe` and asks for the cache to
// be alive.
unsafe impl Send for Thunk {}

impl Thunk {
    /// Executes the instruction on the guest registers in `state`, and memory at `mem`.
    ///
    /// RIP is not advanced. On a fault registers, flags and memory are as before; MXCSR has the
    /// flags that #XM reports.
    ///
    /// # Errors
    /// What the host raised.
    ///
    /// # Safety
    /// The cache that compiled this thunk is alive and has not been reset since. If `class.mem` is
    /// some, `mem` is valid for its size and access (other threads may race: guest memory is theirs
    /// too); else it is not used.
    #[inline]
    pub unsafe fn run(&self, state: &mut CpuState, mem: *mut u8) -> Result<(), ThunkFault> {
        // SAFETY: the code is a thunk as described above, alive by this function's contract;
        // `state` is exclusively borrowed.
        let outcome = unsafe { (self.enter)(state, mem, self.code.as_ptr()) };
        if outcome.code == 0 { Ok(()) } else { Err(fault(outcome)) }
    }

    /// The address of the generated code: equal for equal thunks of one cache.
    pub fn address(&self) -> u64 {
        self.code.as_ptr() as u64
    }
}

#[cold]
fn fault(outcome: Outcome) -> ThunkFault {
    if super::host::HostFeatures::probe().has(super::host::Feature::Avx) {
        // SAFETY: the host executes AVX; VZEROUPPER changes only upper halves, which no Rust
        // function keeps across a call.
        unsafe { std::arch::asm!("vzeroupper", options(nomem, nostack, preserves_flags)) };
    }
    match (outcome.code & !FAULTED) as u8 {
        0 => ThunkFault::DivideError,
        6 => ThunkFault::InvalidOpcode,
        13 => ThunkFault::GeneralProtection,
        14 => ThunkFault::HostMemory(outcome.address),
        16 => ThunkFault::X87,
        17 => ThunkFault::Alignment,
        19 => ThunkFault::SimdFp,
        other => ThunkFault::Other(other),
    }
}
