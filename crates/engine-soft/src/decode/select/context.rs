//! The instruction under selection, and the macros that pick an instantiation for it.

use crate::core::Handler;
use crate::core::Op;
use crate::decode::operand;
use iced_x86::{Instruction, OpKind};
use x86::state::Mode;

/// Picks the instantiation for an operand size.
macro_rules! sized {
    ($size:expr, $w:ident => $e:expr) => {
        match $size {
            1 => {
                type $w = u8;
                $e as $crate::core::Handler
            }
            2 => {
                type $w = u16;
                $e as $crate::core::Handler
            }
            4 => {
                type $w = u32;
                $e as $crate::core::Handler
            }
            _ => {
                type $w = u64;
                $e as $crate::core::Handler
            }
        }
    };
}

/// Picks the instantiation for a form of address.
macro_rules! addressed {
    ($form:expr, $a:ident => $e:expr) => {
        match $form {
            $crate::core::FLAT => {
                const $a: u8 = $crate::core::FLAT;
                $e
            }
            $crate::core::BASED => {
                const $a: u8 = $crate::core::BASED;
                $e
            }
            _ => {
                const $a: u8 = $crate::core::LEGACY;
                $e
            }
        }
    };
}

/// Picks the instantiation for a condition.
macro_rules! conditional {
    ($cc:expr, $c:ident => $e:expr) => {
        conditional!(@ $cc, $c, $e, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $cc:expr, $c:ident, $e:expr, $($n:literal)*) => {
        match $cc {
            $($n => { const $c: u8 = $n; $e as $crate::core::Handler })*
            _ => { const $c: u8 = 15; $e as $crate::core::Handler }
        }
    };
}

pub(super) use {addressed, conditional, sized};

/// What an operand is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Register,
    Memory,
    Immediate,
    Other,
}

/// The instruction under selection.
pub(super) struct Context<'a> {
    pub(super) i: &'a Instruction,
    pub(super) op: Op,
    pub(super) form: u8,
    pub(super) mode: Mode,
    pub(super) too_far: bool,
}

impl Context<'_> {
    pub(super) fn kind(&self, n: u32) -> Kind {
        if n >= self.i.op_count() {
            return Kind::Other;
        }
        match self.i.op_kind(n) {
            OpKind::Register => Kind::Register,
            OpKind::Memory => Kind::Memory,
            OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => Kind::Immediate,
            _ => Kind::Other,
        }
    }

    /// Bytes of operand `n`.
    pub(super) fn size(&self, n: u32) -> u8 {
        match self.kind(n) {
            Kind::Register => self.i.op_register(n).size() as u8,
            _ => self.i.memory_size().size() as u8,
        }
    }

    pub(super) fn reg(&self, n: u32) -> u8 {
        operand::general(self.i.op_register(n))
    }
}

/// Where the instruction is.
pub(crate) struct Place<'a> {
    pub(crate) block_ip: u64,
    pub(crate) bytes: &'a [u8],
}

pub(super) type Choice = Option<Handler>;

/// The segment of an operand without ModRM. 64-bit mode ignores all prefixes but FS and GS, and
/// such an operand is never a stack reference.
pub(super) fn implicit_segment(c: &Context<'_>) -> u8 {
    match operand::segment(c.i.memory_segment()) {
        0..=3 if c.mode == Mode::Long64 => x86::state::Seg::Ds as u8,
        seg => seg,
    }
}
