//! The classification of an instruction: its unit and memory operand, or why no thunk can run it.

use super::host::Feature;

/// The unit whose availability the interpreter has to check first (SDM vol. 3, 2.5, 9.2, 12.2,
/// 13.1; vol. 2, 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FpuClass {
    /// General registers only (BMI's VEX encodings included): no check beyond CPUID.
    None,
    /// x87: #NM if CR0.EM or CR0.TS.
    X87,
    /// WAIT: #NM if CR0.MP and CR0.TS.
    Wait,
    /// MMX: #UD if CR0.EM, #NM if CR0.TS.
    Mmx,
    /// Legacy-encoded SSE: #UD if CR0.EM or not CR4.OSFXSR, #NM if CR0.TS. Includes those that also
    /// use MMX registers.
    Sse,
    /// VEX-encoded: #UD unless CR4.OSXSAVE and XCR0 has SSE and AVX (and in real and virtual-8086
    /// mode), #NM if CR0.TS.
    Avx,
}

/// What a thunk does at its memory pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemAccess {
    /// Loads only.
    Read,
    /// Stores only, all `size` bytes.
    Write,
    /// Loads, then stores (or may store): translate for writing.
    ReadWrite,
}

impl MemAccess {
    /// Whether the operand must be translated for writing.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// The one memory operand of a thunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemOperand {
    /// Bytes accessed, 1 to 32.
    pub size: u16,
    /// How.
    pub access: MemAccess,
    /// Alignment in bytes that the instruction itself demands (#GP(0) otherwise): 1, 16 or 32. With
    /// a direct pointer the host enforces it; before passing a bounce buffer the interpreter must.
    pub alignment: u16,
    /// An atomic read-modify-write (LOCK, or XCHG): a bounce buffer loses atomicity, so the
    /// interpreter serializes.
    pub locked: bool,
}

/// An instruction that [`super::classify`] has found thunkable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    /// The unit it needs.
    pub fpu: FpuClass,
    /// Its memory operand, if it has one.
    pub mem: Option<MemOperand>,
    /// It reads or raises MXCSR: unmasked exceptions become [`ThunkFault::SimdFp`].
    pub mxcsr: bool,
    /// It uses an MMX register, whatever `fpu` says, or may enter MMX state without (CVTPI2PS from
    /// memory).
    pub mmx: bool,
    /// It reports a pending x87 error ([`super::x87::error_pending`]) as #MF, which goes before #PF
    /// and #GP of its memory operand: check before translating (the thunk itself reports it too).
    pub waits: bool,
}

/// Why no thunk can run an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unthunkable {
    /// The decoder found no instruction: #UD.
    Invalid,
    /// Branches, calls, returns, interrupts, BOUND, UD0–2.
    ControlFlow,
    /// Touches privileged or system state: segment and control registers, descriptor tables, I/O,
    /// system flags, MSRs, TSC, CPUID.
    System,
    /// PUSH, POP, ENTER, LEAVE, PUSHF, …
    Stack,
    /// MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS, XLAT: memory at an implicit address.
    ImplicitMemory,
    /// BT, BTS, BTR, BTC with a memory operand and a register bit offset: the offset moves the
    /// address.
    BitString,
    /// MASKMOVQ, MASKMOVDQU, VMASKMOVPS/PD, VPMASKMOVD/Q: see [`super::masked::masked_move`].
    MaskedMove,
    /// VGATHER*, VPGATHER*: see [`super::masked::gather`].
    Gather,
    /// FXSAVE, XSAVE and kin, FNSTENV, FLDENV, FNSAVE, FRSTOR, LDMXCSR, STMXCSR: images of state.
    StateImage,
    /// VZEROUPPER, VZEROALL: see [`super::masked::zero_upper`] and [`super::masked::zero_all`].
    VectorZero,
    /// LEA, NOP, PREFETCHx, CLFLUSH and kin: an address without an access.
    NoAccess,
    /// No 64-bit encoding (AAA, DAA, 40H–4FH INC and DEC, …).
    NotIn64,
    /// The host does not execute it.
    HostLacks(Feature),
    /// Of an extension that this engine does not carry (EVEX, XOP, 3DNow!, AMX, …): #UD for the
    /// guest.
    Unsupported,
    /// The cache is full: call [`super::ThunkCache::reset`] and drop every thunk made before.
    Full,
}

/// What the host raised while a thunk ran. General registers, flags, vectors and memory are as
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThunkFault {
    /// #DE.
    DivideError,
    /// #XM; the exception's flags are set in the guest's MXCSR.
    SimdFp,
    /// #MF: an earlier x87 instruction left an unmasked exception pending.
    X87,
    /// #UD.
    InvalidOpcode,
    /// #GP: an aligned operand is misaligned (or MXCSR's image has reserved bits).
    GeneralProtection,
    /// #AC, which the host never enables for us.
    Alignment,
    /// The host could not access the memory pointer, at this host address: a defect of the caller,
    /// or lost backing.
    HostMemory(u64),
    /// Another host vector.
    Other(u8),
}
