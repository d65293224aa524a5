//! A memory operand of many bytes, reached through the bus eight at a time at the most.

use crate::bus::{AccessKind, Privilege, SystemBus};
use crate::exception::Exception;
use crate::segment::Operand;
use crate::state::{CpuState, Mode};

/// The operand, accessed with the program's privilege.
pub(super) struct Area<'a, B: SystemBus + ?Sized> {
    state: &'a CpuState,
    bus: &'a mut B,
    operand: Operand,
    /// Linear addresses wrap at 4 GiB outside 64-bit mode.
    mask: u64,
    privilege: Privilege,
    parts: Parts,
}

/// What of an operand is accessed, and addressed, by itself.
#[derive(Clone, Copy)]
pub(super) enum Parts {
    Quadwords,
    /// Fields of `size` bytes up to `end`, extended reals behind, each eight bytes and two.
    Fields {
        size: usize,
        end: usize,
    },
}

impl Parts {
    /// The length of the part that begins at `offset`.
    const fn at(self, offset: usize) -> usize {
        match self {
            Self::Quadwords => 8,
            Self::Fields { size, end } if offset < end => size,
            Self::Fields { end, .. } if (offset - end).is_multiple_of(10) => 8,
            Self::Fields { .. } => 2,
        }
    }
}

/// Whether [`Area::put`] writes or only makes sure that it could.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Probe,
    Write,
}

impl<'a, B: SystemBus + ?Sized> Area<'a, B> {
    pub(super) fn new(state: &'a CpuState, bus: &'a mut B, operand: Operand) -> Self {
        Self::in_parts(state, bus, operand, Parts::Quadwords)
    }

    pub(super) fn in_parts(
        state: &'a CpuState,
        bus: &'a mut B,
        operand: Operand,
        parts: Parts,
    ) -> Self {
        let mask = if state.mode() == Mode::Long64 { u64::MAX } else { 0xffff_ffff };
        Self { state, bus, operand, mask, privilege: Privilege::at(state.cpl), parts }
    }

    /// Where the `len` bytes at `offset` lie, if they may be judged together: in a row, and all within bounds.
    fn whole(&self, offset: usize, len: usize, kind: AccessKind) -> Option<u64> {
        let (start, end) = (offset as u64, (offset + len) as u64 - 1);
        let in_a_row = self.operand.offset_of(start) <= self.operand.offset_of(end);
        in_a_row.then(|| self.operand.part(self.state, start, len as u32, kind).ok()).flatten()
    }

    /// Calls `body` with the place of each part of the `len` bytes at `offset`: its linear address, and where it lies among them.
    fn each(
        &mut self,
        offset: usize,
        len: usize,
        kind: AccessKind,
        mut body: impl FnMut(&mut B, u64, core::ops::Range<usize>) -> Result<(), Exception>,
    ) -> Result<(), Exception> {
        if len == 0 {
            return Ok(());
        }
        let whole = self.whole(offset, len, kind);
        let mut done = 0;
        while done < len {
            let (at, left) = (offset + done, len - done);
            let (la, size) = if let Some(la) = whole {
                (la.wrapping_add(done as u64) & self.mask, chunk(left))
            } else {
                let size = chunk(left.min(self.parts.at(at)));
                (self.operand.part(self.state, at as u64, size as u32, kind)?, size)
            };
            body(self.bus, la, done..done + size)?;
            done += size;
        }
        Ok(())
    }

    /// The `N` bytes at `offset`.
    pub(super) fn get<const N: usize>(&mut self, offset: usize) -> Result<[u8; N], Exception> {
        let mut bytes = [0; N];
        self.get_into(offset, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn get_into(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), Exception> {
        let by = self.privilege;
        self.each(offset, bytes.len(), AccessKind::Read, |bus, la, range| {
            let value = bus.read(la, range.len() as u8, by)?;
            let size = range.len();
            bytes[range].copy_from_slice(&value.to_le_bytes()[..size]);
            Ok(())
        })
    }

    pub(super) fn get_u64(&mut self, offset: usize) -> Result<u64, Exception> {
        self.get(offset).map(u64::from_le_bytes)
    }

    /// Probes or writes `bytes` at `offset`.
    pub(super) fn put(&mut self, pass: Pass, offset: usize, bytes: &[u8]) -> Result<(), Exception> {
        let (by, len) = (self.privilege, bytes.len());
        if pass == Pass::Probe
            && let Some(la) = self.whole(offset, len, AccessKind::Write)
        {
            return self.bus.probe_write(la, len as u64, by);
        }
        self.each(offset, len, AccessKind::Write, |bus, la, range| {
            if pass == Pass::Probe {
                return bus.probe_write(la, range.len() as u64, by);
            }
            let size = range.len();
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[range]);
            bus.write(la, size as u8, u64::from_le_bytes(value), by)
        })
    }
}

/// The largest access that fits `left` bytes.
const fn chunk(left: usize) -> usize {
    match left {
        8.. => 8,
        4..=7 => 4,
        2..=3 => 2,
        _ => 1,
    }
}
