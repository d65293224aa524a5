//! Thunks: guest instructions executed by the host's own execution units.
//!
//! Guest ISA = host ISA, so an instruction that the interpreter does not know by hand is not
//! emulated but *run*: for each distinct one a short function is generated that loads the guest
//! registers it uses, executes it with its memory operand rewritten to a host pointer, and stores
//! the registers it wrote. SSE to AVX2, x87, MMX, BMI, LOCKed read-modify-writes and every odd
//! corner of the integer ISA come out exactly as the silicon does them.
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
//! A cache belongs to one virtual processor's thread; nothing here locks. What the interpreter owes
//! a thunk before it runs it: the unit's own checks ([`FpuClass`]: #NM, #UD by CR0, CR4, XCR0), the
//! translation of the memory operand, its alignment ([`MemOperand::alignment`]) when it passes a
//! bounce buffer, #AC, and that the guest's CPUID has the feature.

pub(crate) mod area;
mod assemble;
mod cache;
mod classify;
mod emit;
mod enter;
pub(crate) mod guard;
mod host;
pub mod masked;
mod ranges;
mod types;
pub mod x87;

pub use cache::ThunkCache;
pub use classify::classify;
pub use enter::Thunk;
pub use host::{Feature, HostFeatures};
pub use types::{Classification, FpuClass, MemAccess, MemOperand, ThunkFault, Unthunkable};

/// Whether the host gives memory that can be executed.
///
/// # Errors
/// Why not.
pub(crate) fn executable_memory() -> std::io::Result<()> {
    area::CodeArea::new(4096).map(drop)
}
