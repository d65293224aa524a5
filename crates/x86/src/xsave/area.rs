//! A memory operand of many bytes, reached through the bus eight at a time.

use crate::bus::{Privilege, SystemBus};
use crate::exception::Exception;
use crate::state::{CpuState, Mode};

/// The operand at one linear address, accessed with the program's privilege.
pub(super) struct Area<'a, B: SystemBus + ?Sized> {
    bus: &'a mut B,
    la: u64,
    /// Linear addresses wrap at 4 GiB outside 64-bit mode.
    mask: u64,
    privilege: Privilege,
}

/// Whether [`Area::put`] writes or only makes sure that it could.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Probe,
    Write,
}

impl<'a, B: SystemBus + ?Sized> Area<'a, B> {
    pub(super) fn new(state: &CpuState, bus: &'a mut B, la: u64) -> Self {
        let mask = if state.mode() == Mode::Long64 { u64::MAX } else { 0xffff_ffff };
        Self { bus, la, mask, privilege: Privilege::at(state.cpl) }
    }

    /// The bus itself, once the operand is done with.
    pub(super) fn into_bus(self) -> &'a mut B {
        self.bus
    }

    fn at(&self, offset: usize) -> u64 {
        self.la.wrapping_add(offset as u64) & self.mask
    }

    /// The `N` bytes at `offset`.
    pub(super) fn get<const N: usize>(&mut self, offset: usize) -> Result<[u8; N], Exception> {
        let mut bytes = [0; N];
        self.get_into(offset, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn get_into(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), Exception> {
        let mut done = 0;
        while done < bytes.len() {
            let size = chunk(bytes.len() - done);
            let value = self.bus.read(self.at(offset + done), size as u8, self.privilege)?;
            bytes[done..done + size].copy_from_slice(&value.to_le_bytes()[..size]);
            done += size;
        }
        Ok(())
    }

    pub(super) fn get_u64(&mut self, offset: usize) -> Result<u64, Exception> {
        self.bus.read(self.at(offset), 8, self.privilege)
    }

    /// Probes or writes `bytes` at `offset`.
    pub(super) fn put(&mut self, pass: Pass, offset: usize, bytes: &[u8]) -> Result<(), Exception> {
        if pass == Pass::Probe {
            return self.bus.probe_write(self.at(offset), bytes.len() as u64, self.privilege);
        }
        let mut done = 0;
        while done < bytes.len() {
            let size = chunk(bytes.len() - done);
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[done..done + size]);
            let value = u64::from_le_bytes(value);
            self.bus.write(self.at(offset + done), size as u8, value, self.privilege)?;
            done += size;
        }
        Ok(())
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
