//! A stack that a system operation pushes to or pops from, apart from RSP until the operation is
//! sure to complete.

use super::access::{canonical_range, within_limit};
use crate::addr::{La, Vector, Width};
use crate::bus::{Privilege, SystemBus};
use crate::exception::Exception;
use crate::state::{CpuState, Mode, Seg, Segment, gpr};

/// The stack and its pointer. `code` is the error code of the #SS raised beyond its bounds.
pub(crate) struct Stack {
    segment: Segment,
    /// 64-bit mode: no segment.
    flat: bool,
    mask: u64,
    pointer: u64,
    privilege: Privilege,
    code: u32,
}

impl Stack {
    /// The one in use: #SS(0).
    pub(crate) fn current(state: &CpuState) -> Self {
        let mut segment = state.seg[Seg::Ss as usize];
        let pointer = state.gpr[gpr::RSP];
        match state.mode() {
            Mode::Long64 => return Self::flat(pointer, state.cpl),
            Mode::Real => segment.access |= Segment::P, // not looked at there
            _ => {}
        }
        Self::segmented(segment, pointer, state.cpl, 0)
    }

    /// A stack of 64-bit mode: #SS(0).
    pub(crate) const fn flat(pointer: u64, cpl: u8) -> Self {
        let segment = super::null_stack(cpl);
        let privilege = Privilege::at(cpl);
        Self { segment, flat: true, mask: u64::MAX, pointer, privilege, code: 0 }
    }

    /// A stack in `segment`, used at `cpl`.
    pub(crate) const fn segmented(segment: Segment, pointer: u64, cpl: u8, code: u32) -> Self {
        let mask = if segment.is_big() { 0xffff_ffff } else { 0xffff };
        let privilege = Privilege::at(cpl);
        Self { segment, flat: false, mask, pointer: pointer & mask, privilege, code }
    }

    /// Pushes the low `size` bytes of `value`.
    pub(crate) fn push<B: SystemBus + ?Sized>(
        &mut self,
        bus: &mut B,
        size: Width,
        value: u64,
    ) -> Result<(), Exception> {
        let pointer = self.pointer.wrapping_sub(u64::from(size)) & self.mask;
        let la = self.linear(pointer, size)?;
        bus.write(la, size, value, self.privilege)?;
        self.pointer = pointer;
        Ok(())
    }

    /// Pops `size` bytes, zero-extended.
    pub(crate) fn pop<B: SystemBus + ?Sized>(
        &mut self,
        bus: &mut B,
        size: Width,
    ) -> Result<u64, Exception> {
        let la = self.linear(self.pointer, size)?;
        let value = bus.read(la, size, self.privilege)?;
        self.release(u64::from(size));
        Ok(value)
    }

    /// Drops `bytes` without reading them.
    pub(crate) const fn release(&mut self, bytes: u64) {
        self.pointer = self.pointer.wrapping_add(bytes) & self.mask;
    }

    /// Makes its pointer RSP; a 16-bit stack leaves the upper bits alone. SS is the caller's to
    /// load.
    pub(crate) fn store_pointer(&self, state: &mut CpuState) {
        let old = state.gpr[gpr::RSP];
        state.gpr[gpr::RSP] =
            if self.mask == 0xffff { (old & !0xffff) | self.pointer } else { self.pointer };
    }

    fn linear(&self, offset: u64, size: Width) -> Result<La, Exception> {
        let la = if self.flat {
            canonical_range(La(offset), size.into())
        } else {
            (self.segment.present() && within_limit(&self.segment, offset, size.into()))
                .then_some(La(self.segment.base.wrapping_add(offset) & 0xffff_ffff))
        };
        la.ok_or(Exception::with_code(Vector::SS, self.code))
    }
}
