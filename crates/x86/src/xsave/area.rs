//! A memory operand of many bytes, reached through the bus eight at a time at the most.

use crate::addr::{La, Width};
use crate::bus::{AccessKind, Privilege, SystemBus};
use crate::exception::Exception;
use crate::segment::Operand;
use crate::state::{CpuState, Mode};
use core::ops::Range;

/// The operand, accessed with the program's privilege.
pub(super) struct Area<'a, B: SystemBus + ?Sized> {
    state: &'a CpuState,
    bus: &'a mut B,
    operand: Operand,
    /// The last linear address: 4 GiB end the address space outside 64-bit mode.
    end: u64,
    /// 64-bit mode: what segmentation adds to an effective address.
    base: Option<La>,
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
        let long = state.mode() == Mode::Long64;
        Self {
            state,
            bus,
            end: if long { u64::MAX } else { 0xffff_ffff },
            base: long.then(|| operand.start(state).wrapping_sub(operand.offset_of(0))),
            operand,
            privilege: Privilege::at(state.cpl),
            parts,
        }
    }

    /// Where the `len` bytes at `offset` lie, if they may be judged together: in a row, and all
    /// within bounds.
    #[inline]
    fn whole(&self, offset: usize, len: usize, kind: AccessKind) -> Option<La> {
        let first = self.operand.offset_of(offset as u64);
        let last = self.operand.offset_of((offset + len.max(1) - 1) as u64);
        if first > last {
            return None;
        }
        if let Some(base) = self.base {
            let (la, last) = (base.wrapping_add(first), base.wrapping_add(last));
            return (la.is_canonical() && last.is_canonical()).then_some(la);
        }
        self.operand.part(self.state, offset as u64, len as u32, kind).ok()
    }

    /// The same, if no byte lies beyond the end of the address space either.
    #[inline]
    fn in_a_row(&self, offset: usize, len: usize, kind: AccessKind) -> Option<La> {
        self.whole(offset, len, kind).filter(|&la| len as u64 <= self.end - la.0)
    }

    /// Calls `body` with the place of each part of the `len` bytes at `offset`: its linear address,
    /// and where it lies among them.
    fn each(
        &mut self,
        offset: usize,
        len: usize,
        kind: AccessKind,
        mut body: impl FnMut(&mut B, La, Width, Range<usize>) -> Result<(), Exception>,
    ) -> Result<(), Exception> {
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let width = chunk((len - done).min(self.parts.at(at)));
            let la = self.operand.part(self.state, at as u64, width.into(), kind)?;
            body(self.bus, la, width, done..done + width.bytes())?;
            done += width.bytes();
        }
        Ok(())
    }

    /// The same for `len` bytes in a row from `la` on, of which whole quadwords have been dealt
    /// with.
    fn rest(
        &mut self,
        la: La,
        len: usize,
        mut body: impl FnMut(&mut B, La, Width, Range<usize>) -> Result<(), Exception>,
    ) -> Result<(), Exception> {
        let mut done = len & !7;
        while done < len {
            let width = chunk(len - done);
            body(self.bus, la.wrapping_add(done as u64), width, done..done + width.bytes())?;
            done += width.bytes();
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
        let (by, len) = (self.privilege, bytes.len());
        let Some(la) = self.in_a_row(offset, len, AccessKind::Read) else {
            return self.each(offset, len, AccessKind::Read, |bus, la, width, range| {
                load(bus, la, width, &mut bytes[range], by)
            });
        };
        self.bus.read_quadwords(La(la.0), bytes.as_chunks_mut().0, by)?;
        self.rest(La(la.0), len, |bus, la, width, range| {
            load(bus, la, width, &mut bytes[range], by)
        })
    }

    pub(super) fn get_u64(&mut self, offset: usize) -> Result<u64, Exception> {
        self.get(offset).map(u64::from_le_bytes)
    }

    /// Probes or writes `bytes` at `offset`.
    pub(super) fn put(&mut self, pass: Pass, offset: usize, bytes: &[u8]) -> Result<(), Exception> {
        let (by, len) = (self.privilege, bytes.len());
        let Some(la) = self.in_a_row(offset, len, AccessKind::Write) else {
            return self.each(offset, len, AccessKind::Write, |bus, la, width, range| match pass {
                Pass::Probe => bus.probe_write(la, width.into(), by),
                Pass::Write => store(bus, la, width, &bytes[range], by),
            });
        };
        if pass == Pass::Probe {
            return self.bus.probe_write(La(la.0), len as u64, by);
        }
        self.bus.write_quadwords(La(la.0), bytes.as_chunks().0, by)?;
        self.rest(La(la.0), len, |bus, la, width, range| store(bus, la, width, &bytes[range], by))
    }
}

fn load<B: SystemBus + ?Sized>(
    bus: &mut B,
    la: La,
    width: Width,
    into: &mut [u8],
    by: Privilege,
) -> Result<(), Exception> {
    let value = bus.read(la, width, by)?.to_le_bytes();
    into.copy_from_slice(&value[..width.bytes()]);
    Ok(())
}

fn store<B: SystemBus + ?Sized>(
    bus: &mut B,
    la: La,
    width: Width,
    from: &[u8],
    by: Privilege,
) -> Result<(), Exception> {
    let mut value = [0; 8];
    value[..from.len()].copy_from_slice(from);
    bus.write(la, width, u64::from_le_bytes(value), by)
}

/// The largest access that fits `left` bytes.
const fn chunk(left: usize) -> Width {
    match left {
        8.. => Width::B8,
        4..=7 => Width::B4,
        2..=3 => Width::B2,
        _ => Width::B1,
    }
}
