//! Exceptions as values (SDM vol. 3, 6.3 and 6.15).

use crate::addr::{La, Vector};

/// An exception the processor raises synchronously.
///
/// `error_code` is what delivery pushes; `cr2` is loaded by a page fault, `dr6` collects the causes
/// of a debug exception. The interrupted RIP is the state's: a fault leaves RIP at the instruction,
/// a trap after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Which one.
    pub vector: Vector,
    /// The error code, for the vectors that push one.
    pub error_code: Option<u32>,
    /// #PF: the linear address. #DB: the bits to set in DR6. Otherwise 0.
    pub payload: u64,
}

impl Exception {
    /// One without error code: #DE, #UD, #NM, #MF, #XM, …
    pub const fn plain(vector: Vector) -> Self {
        Self { vector, error_code: None, payload: 0 }
    }

    /// One with a selector-style or zero error code: #TS, #NP, #SS, #GP, #AC, #DF.
    pub const fn with_code(vector: Vector, code: u32) -> Self {
        Self { vector, error_code: Some(code), payload: 0 }
    }

    /// #GP with error code `code`.
    pub const fn gp(code: u32) -> Self {
        Self::with_code(Vector::GP, code)
    }

    /// #UD.
    pub const fn ud() -> Self {
        Self::plain(Vector::UD)
    }

    /// #PF at linear address `la`; see [`crate::paging`] for the code's bits.
    pub const fn pf(la: La, code: u32) -> Self {
        Self { vector: Vector::PF, error_code: Some(code), payload: la.0 }
    }

    /// #DB; `dr6` holds the bits that delivery sets in DR6.
    pub const fn db(dr6: u64) -> Self {
        Self { vector: Vector::DB, error_code: None, payload: dr6 }
    }
}
