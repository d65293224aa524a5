//! Running a thunk, and what a fault in it means.
#![allow(unsafe_code)] // Reason: calls generated code.

use super::enter::{Enter, Outcome};
use super::guard::FAULTED;
use super::host::{Feature, HostFeatures};
use super::types::{Classification, ThunkFault};
use std::ptr::NonNull;
use x86::state::CpuState;

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
    if HostFeatures::probe().has(Feature::Avx) {
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
