//! A memory operand that is accessed in parts: far pointers, images of the floating-point state.
//!
//! Every part has an effective address of its own, cut to the address size, and is checked for
//! itself (SDM vol. 1, 3.3.7 and 3.7.5): behind the last address the operand goes on at 0 of its
//! segment.

use super::check_access;
use crate::addr::{La, Width};
use crate::bus::AccessKind;
use crate::exception::Exception;
use crate::state::{CpuState, Mode, Seg};

/// Where an operand begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Its segment.
    pub seg: Seg,
    /// The effective address of its first byte.
    pub offset: u64,
    /// Bytes of an effective address: 2, 4 or 8.
    pub address_size: Width,
}

impl Operand {
    /// An operand of 64-bit code at linear address `la`.
    pub const fn flat(la: La) -> Self {
        Self { seg: Seg::Ds, offset: la.0, address_size: Width::B8 }
    }

    /// The effective address of the part that begins `at` bytes into the operand.
    pub const fn offset_of(&self, at: u64) -> u64 {
        let offset = self.offset.wrapping_add(at);
        match self.address_size {
            Width::B2 => offset & 0xffff,
            Width::B4 => offset & 0xffff_ffff,
            _ => offset,
        }
    }

    /// The linear address of its first byte, unchecked: what alignment is judged by.
    pub fn start(&self, state: &CpuState) -> La {
        let base = state.seg[self.seg as usize].base;
        match state.mode() {
            Mode::Long64 if !matches!(self.seg, Seg::Fs | Seg::Gs) => La(self.offset_of(0)),
            Mode::Long64 => La(base.wrapping_add(self.offset_of(0))),
            _ => La(base.wrapping_add(self.offset_of(0)) & 0xffff_ffff),
        }
    }

    /// The linear address of the `len` bytes that begin `at` bytes into the operand.
    ///
    /// # Errors
    /// As [`check_access`].
    pub fn part(
        &self,
        state: &CpuState,
        at: u64,
        len: u32,
        kind: AccessKind,
    ) -> Result<La, Exception> {
        check_access(state, self.seg, self.offset_of(at), len, kind)
    }
}
