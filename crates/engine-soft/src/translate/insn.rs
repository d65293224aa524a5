//! A guest instruction with what the translator knows of it.

use super::address::{Expression, Moves};
use super::flow::{Class, Usage};
use super::recipe::Recipe;
use iced_x86::{Instruction, OpKind};

/// Bytes of a page.
pub(super) const PAGE_BYTES: i32 = 4096;

/// One guest instruction with what is known of it.
pub(super) struct GuestInsn {
    pub(super) i: Instruction,
    pub(super) class: Class,
    pub(super) usage: Usage,
    pub(super) bytes: [u8; 15],
    /// Offset from the page's start.
    pub(super) delta: i32,
    /// Status flags are needed after it.
    pub(super) live_after: bool,
    pub(super) moves: Moves,
    /// How status flags before it can be had, should a check have overwritten them.
    pub(super) recipe: Option<Recipe>,
}

impl GuestInsn {
    pub(super) fn next(&self) -> i32 {
        self.delta + self.i.len() as i32
    }

    /// Target of a direct branch, from the page's start.
    pub(super) fn target(&self) -> i32 {
        match self.i.op0_kind() {
            OpKind::NearBranch64 => self.i.near_branch_target() as i32,
            _ => -1,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.i.len()]
    }

    /// The registers that it changes.
    pub(super) fn written(&self) -> u16 {
        self.moves.written
    }

    /// Whether it changes what `at` is made of.
    pub(super) fn changes(&self, at: &Expression) -> bool {
        self.moves.written & at.registers() != 0
            || matches!(self.class, Class::Swapgs) && at.segment != 0
    }
}
