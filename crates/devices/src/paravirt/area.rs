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

    /// The byte at `offset`.
    pub(super) fn byte(&self, ram: &GuestRam, offset: u64) -> u8 {
        let mut byte = [0];
        // Pinned memory is there.
        let _ = ram.read(self.gpa.wrapping_add(offset), &mut byte);
        byte[0]
    }

    /// Replaces a record that begins with a 32-bit version by that and `body`. The version is odd
    /// meanwhile and another one afterwards, so that a processor that reads the record notices.
    pub(super) fn publish(&self, ram: &GuestRam, body: &[u8]) {
        let _ = self.try_publish(ram, body);
    }

    fn try_publish(&self, ram: &GuestRam, body: &[u8]) -> Result<(), memory::Error> {
        let mut version = [0; 4];
        ram.read(self.gpa, &mut version)?;
        let odd = u32::from_le_bytes(version).wrapping_add(1) | 1;
        ram.write(self.gpa, &odd.to_le_bytes())?;
        fence(Ordering::SeqCst);
        ram.write(self.gpa.wrapping_add(4), body)?;
        fence(Ordering::SeqCst);
        ram.write(self.gpa, &odd.wrapping_add(1).to_le_bytes())?;
        ram.wrote(self.gpa, 4 + body.len() as u64);
        Ok(())
    }
}
