//! The decoded form of an instruction: what the interpreter runs.
//!
//! One [`Op`] is 40 bytes: the function that performs it and its operands, already resolved to
//! register-file slots. Ops of a block lie behind each other; the function returns what comes next
//! ([`Step`]).

use std::cell::Cell;
use x86::addr::{PortWidth, Width};

/// Performs one op on a processor, `C`.
pub(crate) type Handler<C> = fn(&mut C, &Op<C>) -> Step;

/// What follows an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// The next op of the block.
    Next,
    /// Out of the block; RIP is set; the direct branch was taken (link 0).
    Taken,
    /// Out of the block; RIP is set; execution falls through (link 1).
    Through,
    /// Out of the block; RIP is set to anywhere.
    Jump,
    /// Out of the block as [`Step::Jump`], and mode, privilege or pending events may have changed.
    Sync,
    /// The instruction faulted: `Core::fault` says how; nothing of it has happened.
    Fault,
    /// The operation raised `Core::fault` with the state as it stands, RIP included (a task switch
    /// may be past its commit point).
    FaultHere,
    /// The instruction is to be executed again from its start (an interrupted string instruction).
    Again,
}

/// The access could not be made; `Core::fault` holds the exception.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault;

/// The result of whatever may fault.
pub(crate) type Fallible<T = ()> = Result<T, Fault>;

/// See the module.
#[repr(C)]
pub(crate) struct Op<C> {
    /// What performs it. A cell, because the ops of a block whose code was overwritten are
    /// redirected while it runs.
    pub(crate) run: Cell<Handler<C>>,
    /// Immediate operand (sign-extended), branch displacement, or whatever the handler takes it
    /// for.
    pub(crate) imm: u64,
    /// Address displacement, sign-extended; for RIP-relative addresses counted from the block's
    /// start.
    pub(crate) disp: i32,
    /// Register-file slot of the address's base ([`x86::state::gpr::ZERO`] if none).
    pub(crate) base: u8,
    /// Register-file slot of the address's index.
    pub(crate) index: u8,
    /// Shift of the index.
    pub(crate) scale: u8,
    /// Segment register number of the address.
    pub(crate) seg: u8,
    /// First register operand, usually the destination (see [`crate::word::HIGH_BYTE`]).
    pub(crate) dst: u8,
    /// Second register operand.
    pub(crate) src: u8,
    /// Length of the instruction in bytes.
    pub(crate) len: u8,
    /// Operand size in bytes.
    pub(crate) size: u8,
    /// Offset of the instruction from the block's start.
    pub(crate) offset: u16,
    /// Effective address size in bytes.
    pub(crate) address_size: u8,
    /// REP prefix, or what else marks the op: see [`REP`], [`REPNE`], [`DIRECT`], [`OWN_STEP`].
    pub(crate) rep: u8,
}

/// REP or REPE.
pub(crate) const REP: u8 = 1;
/// REPNE.
pub(crate) const REPNE: u8 = 2;
/// In place of a prefix: a direct branch.
pub(crate) const DIRECT: u8 = 0x80;
/// In place of a prefix: TF before the instruction does not make it trap. INT n and its kin clear
/// TF on their way, and their trap with it; SYSCALL and SYSRET go by the TF that they leave.
pub(crate) const OWN_STEP: u8 = 0x40;

impl<C> Clone for Op<C> {
    fn clone(&self) -> Self {
        Self { run: self.run.clone(), ..*self }
    }
}

impl<C> Op<C> {
    /// Offset of the following instruction from the block's start.
    #[inline(always)]
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }

    /// The operand size as the architecture's functions take it.
    #[inline(always)]
    pub(crate) fn width(&self) -> Width {
        width(self.size)
    }
}

/// The width of `bytes`, which are 1, 2, 4 or 8.
#[inline(always)]
pub(crate) const fn width(bytes: u8) -> Width {
    match bytes {
        1 => Width::B1,
        2 => Width::B2,
        4 => Width::B4,
        _ => Width::B8,
    }
}

/// The width of a port access of `bytes`, which are 1, 2 or 4.
#[inline(always)]
pub(crate) const fn port_width(bytes: u8) -> PortWidth {
    match bytes {
        1 => PortWidth::B1,
        2 => PortWidth::B2,
        _ => PortWidth::B4,
    }
}

/// Turns a fallible body into a step.
#[inline(always)]
pub(crate) fn step(result: Fallible) -> Step {
    match result {
        Ok(()) => Step::Next,
        Err(Fault) => Step::Fault,
    }
}

/// As [`step`], for handlers that say themselves what follows.
#[inline(always)]
pub(crate) fn step_to(result: Fallible<Step>) -> Step {
    result.unwrap_or(Step::Fault)
}
