//! Linear memory as operations access it: RAM through the MMU, devices through the machine.
//!
//! Accesses across page boundaries are here, and the processor's own ([`SystemBus`]), which
//! descriptor loads and exception delivery make. The machine is no part of the MMU: a hit does not
//! come here, and translating an address needs no device.
#![allow(unsafe_code)] // host pointers from the TLB; see docs/UNSAFE.md

use crate::fault::AccessFault;
use crate::machine::Machine;
use crate::mmu::{Mmu, Reached};
use crate::observer::{CodeCache, Recorder};
use crate::ram;
use std::sync::atomic::{AtomicU8, Ordering};
use x86::addr::{Gpa, La, Vector, Width};
use x86::bus::{self, AccessKind, Privilege, SystemBus, TlbEffect};
use x86::exception::Exception;
use x86::state::PagingState;

/// See the module.
pub(crate) struct Bus<'a, B: CodeCache, R: Recorder> {
    pub(crate) mmu: &'a mut Mmu<B, R>,
    pub(crate) machine: &'a mut Machine,
}

impl<B: CodeCache, R: Recorder + Default> Bus<'_, B, R> {
    /// Reads the `size` bytes at `la`.
    pub(crate) fn load(
        &mut self,
        la: La,
        size: Width,
        privilege: Privilege,
    ) -> Result<u64, AccessFault> {
        if Mmu::<B, R>::crosses(la.0, u64::from(size)) {
            return self.read_split(la.0, size, privilege);
        }
        let target = self.mmu.reach(la.0, AccessKind::Read, privilege)?;
        Ok(self.read_at(target, size))
    }

    /// Writes the low `size` bytes of `value` at `la`.
    pub(crate) fn store(
        &mut self,
        la: La,
        size: Width,
        value: u64,
        privilege: Privilege,
    ) -> Result<(), AccessFault> {
        if Mmu::<B, R>::crosses(la.0, u64::from(size)) {
            return self.write_split(la.0, size, value, privilege);
        }
        let target = self.mmu.reach(la.0, AccessKind::Write, privilege)?;
        self.write_at(target, size, value);
        Ok(())
    }

    /// One access to `target`, within a page.
    fn read_at(&mut self, target: Reached, size: Width) -> u64 {
        match target {
            // SAFETY: `target` came from `reach` for an access that stays within the page.
            Reached::Ram { host, .. } => unsafe {
                match size {
                    Width::B1 => u64::from(ram::load::<u8>(host)),
                    Width::B2 => u64::from(ram::load::<u16>(host)),
                    Width::B4 => u64::from(ram::load::<u32>(host)),
                    _ => ram::load::<u64>(host),
                }
            },
            Reached::Device { .. } if self.mmu.refuses() => 0,
            Reached::Device { gpa } => {
                self.mmu.commit();
                self.machine.read(Gpa(gpa), size)
            }
        }
    }

    /// One store to `target`, within a page. Decoded code there dies.
    fn write_at(&mut self, target: Reached, size: Width, value: u64) {
        match target {
            Reached::Ram { host, gpa } => {
                // SAFETY: `target` came from `reach` for a write that stays within the page.
                unsafe {
                    match size {
                        Width::B1 => ram::store(host, value as u8),
                        Width::B2 => ram::store(host, value as u16),
                        Width::B4 => ram::store(host, value as u32),
                        _ => ram::store(host, value),
                    }
                }
                self.mmu.wrote(gpa, u64::from(size));
            }
            Reached::Device { .. } if self.mmu.refuses() => {}
            Reached::Device { gpa } => {
                self.mmu.commit();
                self.machine.write(Gpa(gpa), size, value);
            }
        }
    }

    fn read_split(
        &mut self,
        la: u64,
        size: Width,
        privilege: Privilege,
    ) -> Result<u64, AccessFault> {
        // Segmentation judges the whole operand before paging sees its first byte.
        self.mmu.canonical_span(la, u64::from(size))?;
        let mut value = 0;
        for i in 0..u64::from(size) {
            let target = self.byte(la, i, AccessKind::Read, privilege)?;
            value |= self.read_at(target, Width::B1) << (8 * i);
        }
        Ok(value)
    }

    fn write_split(
        &mut self,
        la: u64,
        size: Width,
        value: u64,
        privilege: Privilege,
    ) -> Result<(), AccessFault> {
        self.mmu.probe_write(La(la), u64::from(size), privilege)?;
        for i in 0..u64::from(size) {
            let target = self.byte(la, i, AccessKind::Write, privilege)?;
            self.write_at(target, Width::B1, value >> (8 * i) & 0xff);
        }
        Ok(())
    }

    /// Where byte `i` of an access at `la` is made.
    fn byte(
        &mut self,
        la: u64,
        i: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Reached, AccessFault> {
        self.mmu.reach(self.mmu.wrap(la, la.wrapping_add(i), privilege), kind, privilege)
    }

    /// Reads `into.len()` bytes at `la`, byte by byte where pages end.
    pub(crate) fn read_bytes(
        &mut self,
        la: u64,
        into: &mut [u8],
        privilege: Privilege,
    ) -> Result<(), AccessFault> {
        for (i, byte) in (0..).zip(into) {
            let at = self.mmu.wrap(la, la.wrapping_add(i), privilege);
            *byte = self.load(La(at), Width::B1, privilege)? as u8;
        }
        Ok(())
    }

    /// Writes bytes at `la`; all or nothing.
    pub(crate) fn write_bytes(
        &mut self,
        la: u64,
        from: &[u8],
        privilege: Privilege,
    ) -> Result<(), AccessFault> {
        self.mmu.probe_write(La(la), from.len() as u64, privilege)?;
        for (i, &byte) in (0..).zip(from) {
            let at = self.mmu.wrap(la, la.wrapping_add(i), privilege);
            self.store(La(at), Width::B1, u64::from(byte), privilege)?;
        }
        Ok(())
    }
}

impl<B: CodeCache, R: Recorder + Default> Bus<'_, B, R> {
    /// Makes `access`, once the pages are there that it needs: the operations of `x86` cannot be
    /// left half way.
    fn waiting<T>(
        &mut self,
        access: impl FnOnce(&mut Self) -> Result<T, AccessFault>,
    ) -> Result<T, Exception> {
        self.mmu.commit();
        // From here on an absent page is waited for, and no access is left for one.
        let exception =
            |fault: AccessFault| fault.exception().unwrap_or(Exception::plain(Vector::MC));
        access(self).map_err(exception)
    }
}

impl<B: CodeCache, R: Recorder + Default> SystemBus for Bus<'_, B, R> {
    fn read(&mut self, la: La, size: Width, privilege: Privilege) -> Result<u64, Exception> {
        self.waiting(|bus| bus.load(la, size, privilege))
    }

    fn write(
        &mut self,
        la: La,
        size: Width,
        value: u64,
        privilege: Privilege,
    ) -> Result<(), Exception> {
        self.waiting(|bus| bus.store(la, size, value, privilege))
    }

    fn read_quadwords(
        &mut self,
        la: La,
        into: &mut [[u8; 8]],
        privilege: Privilege,
    ) -> Result<(), Exception> {
        let count = into.len();
        let run = |bus: &mut Self| bus.mmu.run_of(la.0, count, AccessKind::Read, privilege);
        if let Some(host) = self.waiting(run)? {
            for (n, word) in into.iter_mut().enumerate() {
                // SAFETY: `run_of` found all quadwords in one page of RAM.
                *word = unsafe { ram::load::<u64>(host.add(8 * n)) }.to_le_bytes();
            }
            return Ok(());
        }
        bus::read_each(self, la, into, privilege)
    }

    fn write_quadwords(
        &mut self,
        la: La,
        from: &[[u8; 8]],
        privilege: Privilege,
    ) -> Result<(), Exception> {
        let run = |bus: &mut Self| bus.mmu.run_of(la.0, from.len(), AccessKind::Write, privilege);
        if let Some(host) = self.waiting(run)? {
            for (n, word) in from.iter().enumerate() {
                // SAFETY: `run_of` found all quadwords in one page of RAM.
                unsafe { ram::store(host.add(8 * n), u64::from_le_bytes(*word)) };
            }
            return Ok(());
        }
        bus::write_each(self, la, from, privilege)
    }

    fn probe_write(&mut self, la: La, len: u64, privilege: Privilege) -> Result<(), Exception> {
        self.waiting(|bus| bus.mmu.probe_write(la, len, privilege))
    }

    fn fetch_or_u8(&mut self, la: La, bits: u8) -> Result<u8, Exception> {
        let reach = |bus: &mut Self| bus.mmu.reach(la.0, AccessKind::Write, Privilege::Implicit);
        match self.waiting(reach)? {
            Reached::Ram { host, gpa } => {
                // SAFETY: one byte of RAM; guest memory is only accessed by volatile or atomic
                // operations.
                let old = unsafe { AtomicU8::from_ptr(host) }.fetch_or(bits, Ordering::SeqCst);
                self.mmu.wrote(gpa, 1);
                Ok(old)
            }
            target @ Reached::Device { .. } => {
                let old = self.read_at(target, Width::B1) as u8;
                self.write_at(target, Width::B1, u64::from(old | bits));
                Ok(old)
            }
        }
    }

    fn paging_changed(&mut self, state: &PagingState, effect: TlbEffect) {
        self.mmu.paging_changed(state, effect);
    }

    fn read_pdptes(&mut self, gpa: Gpa) -> [u64; 4] {
        self.mmu.read_pdptes(gpa)
    }
}
