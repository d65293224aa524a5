//! A flat bus for unit tests: memory at linear address 0, and a log of what reached the TLB.

use crate::addr::{Gpa, La, Width};
use crate::bus::{Privilege, SystemBus, TlbEffect};
use crate::exception::Exception;
use crate::state::PagingState;
use std::vec;
use std::vec::Vec;

pub(crate) struct FlatBus {
    pub(crate) memory: Vec<u8>,
    pub(crate) effects: Vec<(PagingState, TlbEffect)>,
    pub(crate) pdptes: [u64; 4],
    /// The privilege of the last access.
    pub(crate) privilege: Option<Privilege>,
}

impl FlatBus {
    pub(crate) fn new(size: usize) -> Self {
        Self { memory: vec![0; size], effects: Vec::new(), pdptes: [0; 4], privilege: None }
    }

    /// Beyond the end: a page fault whose code says whether it was a write.
    fn check(&mut self, la: La, len: u64, write: bool, by: Privilege) -> Result<(), Exception> {
        self.privilege = Some(by);
        let end = self.memory.len() as u64;
        let fault = if la < La(end) { end } else { la.0 };
        if la.checked_add(len).is_some_and(|last| last <= La(end)) {
            Ok(())
        } else {
            Err(Exception::pf(La(fault), u32::from(write) << 1))
        }
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.memory[at], self.memory[at + 1]])
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The only effect since the last call.
    pub(crate) fn effect(&mut self) -> TlbEffect {
        assert_eq!(self.effects.len(), 1, "{:?}", self.effects);
        self.effects.remove(0).1
    }
}

impl SystemBus for FlatBus {
    fn read(&mut self, la: La, size: Width, access: Privilege) -> Result<u64, Exception> {
        self.check(la, size.into(), false, access)?;
        let bytes = &self.memory[la.0 as usize..la.0 as usize + usize::from(size)];
        Ok(bytes.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
    }

    fn write(&mut self, la: La, size: Width, value: u64, by: Privilege) -> Result<(), Exception> {
        self.check(la, size.into(), true, by)?;
        self.put(la.0 as usize, &value.to_le_bytes()[..usize::from(size)]);
        Ok(())
    }

    fn probe_write(&mut self, la: La, len: u64, access: Privilege) -> Result<(), Exception> {
        self.check(la, len, true, access)
    }

    fn fetch_or_u8(&mut self, la: La, bits: u8) -> Result<u8, Exception> {
        let old = self.read(la, Width::B1, Privilege::Implicit)? as u8;
        self.memory[la.0 as usize] |= bits;
        Ok(old)
    }

    fn paging_changed(&mut self, state: &PagingState, effect: TlbEffect) {
        self.effects.push((*state, effect));
    }

    fn read_pdptes(&mut self, gpa: Gpa) -> [u64; 4] {
        assert_eq!(gpa.0 & 31, 0);
        self.pdptes
    }
}
