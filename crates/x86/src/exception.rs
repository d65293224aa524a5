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

/// Vectors 0 to 21 that the architecture assigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Vector {
    /// #DE, divide error.
    De = 0,
    /// #DB, debug.
    Db = 1,
    /// NMI (not an exception, but delivered through the same table).
    Nmi = 2,
    /// #BP, INT3.
    Bp = 3,
    /// #OF, INTO.
    Of = 4,
    /// #BR, BOUND.
    Br = 5,
    /// #UD, invalid opcode.
    Ud = 6,
    /// #NM, device not available.
    Nm = 7,
    /// #DF, double fault.
    Df = 8,
    /// #TS, invalid TSS.
    Ts = 10,
    /// #NP, segment not present.
    Np = 11,
    /// #SS, stack fault.
    Ss = 12,
    /// #GP, general protection.
    Gp = 13,
    /// #PF, page fault.
    Pf = 14,
    /// #MF, x87 floating-point error.
    Mf = 16,
    /// #AC, alignment check.
    Ac = 17,
    /// #MC, machine check.
    Mc = 18,
    /// #XM, SIMD floating-point exception.
    Xm = 19,
}

impl Vector {
    const ALL: [Self; 18] = [
        Self::De,
        Self::Db,
        Self::Nmi,
        Self::Bp,
        Self::Of,
        Self::Br,
        Self::Ud,
        Self::Nm,
        Self::Df,
        Self::Ts,
        Self::Np,
        Self::Ss,
        Self::Gp,
        Self::Pf,
        Self::Mf,
        Self::Ac,
        Self::Mc,
        Self::Xm,
    ];

    /// The exception with this number, if the architecture assigns one.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|vector| *vector as u8 == number)
    }

    /// The manual's two-letter name with its hash sign, as in `#GP`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::De => "#DE",
            Self::Db => "#DB",
            Self::Nmi => "NMI",
            Self::Bp => "#BP",
            Self::Of => "#OF",
            Self::Br => "#BR",
            Self::Ud => "#UD",
            Self::Nm => "#NM",
            Self::Df => "#DF",
            Self::Ts => "#TS",
            Self::Np => "#NP",
            Self::Ss => "#SS",
            Self::Gp => "#GP",
            Self::Pf => "#PF",
            Self::Mf => "#MF",
            Self::Ac => "#AC",
            Self::Mc => "#MC",
            Self::Xm => "#XM",
        }
    }
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
