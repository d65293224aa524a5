//! Thunks: guest instructions executed by the host's own execution units.
//!
//! Guest and host have the same instruction set, so an instruction without a handler of its own is
//! not emulated but *run*. A thunk is a short generated function. It loads the guest registers that
//! the instruction uses, executes it with its memory operand rewritten to a host pointer, and
//! stores the registers that it wrote. SSE to AVX2, x87, MMX, BMI, LOCKed read-modify-writes and
//! the corners of the integer ISA thus behave exactly as on the host.
//!
//! - [`classify`] judges whether an instruction can be a thunk and what it does to memory and which
//!   unit it needs; what cannot is named by [`Unthunkable`], with the reason the interpreter has to
//!   act on.
//! - [`ThunkCache`] compiles and memoizes; [`Thunk::run`] executes under [`guard`]'s signal
//!   handlers, which turn a host fault inside a thunk into a [`ThunkFault`].
//! - [`HostFeatures`] says what the host really executes.
//! - [`masked`] does masked moves and gathers element by element: no thunk can, since their
//!   accesses are many.
//! - [`x87`] keeps the last-instruction and last-operand pointers, which some hosts do not save.
//!
//! A cache belongs to one virtual processor's thread; nothing here locks. Before it runs a thunk,
//! the interpreter checks the unit ([`FpuClass`]: #NM, #UD by CR0, CR4, XCR0) and #AC, that the
//! guest's CPUID has the feature, and, for a bounce buffer, the alignment
//! ([`MemOperand::alignment`]); it translates the memory operand.

pub(crate) mod area;
mod assemble;
mod cache;
mod classify;
mod emit;
mod enter;
pub(crate) mod guard;
mod host;
pub mod masked;
mod run;
mod types;
pub mod x87;

pub use cache::ThunkCache;
pub use classify::classify;
pub use host::{Feature, HostFeatures};
pub use run::Thunk;
pub use types::{Classification, FpuClass, MemAccess, MemOperand, ThunkFault, Unthunkable};

/// Checks that the host gives executable memory.
///
/// # Errors
/// Why not.
pub(crate) fn executable_memory() -> std::io::Result<()> {
    area::CodeArea::new(4096).map(drop)
}
