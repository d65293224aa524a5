//! A record that the guest has set aside in its memory.

use memory::{GuestRam, Pin};
use std::sync::atomic::{Ordering, fence};
use x86::addr::Gpa;

/// The place of a record. Its pages stay where they are as long as this lives.
#[derive(Debug)]
pub(super) struct Area {
    gpa: Gpa,
    _pin: Pin,
}

impl Area {
    /// `len` bytes at `gpa`; `None` where that is no memory.
    pub(super) fn new(ram: &GuestRam, gpa: Gpa, len: u64) -> Option<Self> {
        Some(Self { gpa, _pin: ram.hold(gpa, len).ok()? })
    }

    /// The address of the byte at `offset`.
    pub(super) fn at(&self, offset: u64) -> Gpa {
        self.gpa.wrapping_add(offset)
    }

    /// The byte at `offset`.
    pub(super) fn byte(&self, ram: &GuestRam, offset: u64) -> u8 {
        let [byte] = self.bytes(ram, offset);
        byte
    }

    /// The 32-bit number at `offset`.
    pub(super) fn word(&self, ram: &GuestRam, offset: u64) -> u32 {
        u32::from_le_bytes(self.bytes(ram, offset))
    }

    /// Puts `value` at `offset`.
    pub(super) fn set_word(&self, ram: &GuestRam, offset: u64, value: u32) {
        // Pinned memory is there.
        let _ = ram.write(self.at(offset), &value.to_le_bytes());
        ram.wrote(self.at(offset), 4);
    }

    /// The 64-bit number at `offset`.
    pub(super) fn long(&self, ram: &GuestRam, offset: u64) -> u64 {
        u64::from_le_bytes(self.bytes(ram, offset))
    }

    fn bytes<const N: usize>(&self, ram: &GuestRam, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        // Pinned memory is there.
        let _ = ram.read(self.at(offset), &mut bytes);
        bytes
    }

    /// Puts `body` at `offset` of a record that has a 32-bit version at `version`. The version is
    /// odd meanwhile and another one afterwards, so that a processor that reads the record notices.
    pub(super) fn publish(&self, ram: &GuestRam, version: u64, offset: u64, body: &[u8]) {
        let _ = self.try_publish(ram, version, offset, body);
    }

    fn try_publish(
        &self,
        ram: &GuestRam,
        version: u64,
        offset: u64,
        body: &[u8],
    ) -> Result<(), memory::Error> {
        let before = u32::from_le_bytes(self.bytes(ram, version));
        let odd = before.wrapping_add(1) | 1;
        let numbered = |number: u32| {
            ram.write(self.at(version), &number.to_le_bytes())?;
            ram.wrote(self.at(version), 4);
            Ok::<_, memory::Error>(())
        };
        numbered(odd)?;
        fence(Ordering::SeqCst);
        ram.write(self.at(offset), body)?;
        ram.wrote(self.at(offset), body.len() as u64);
        fence(Ordering::SeqCst);
        numbered(odd.wrapping_add(1))
    }
}
