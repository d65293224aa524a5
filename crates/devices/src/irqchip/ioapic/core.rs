//! The IOAPIC's registers and rules (82093AA, section 3), without lock or neighbours.
//!
//! Inputs carry assertion: the polarity bit is kept for the guest to read and changes nothing.

use super::registers::*;
use crate::msi::Msi;
use x86::addr::{Gpa, Vector};

/// What a step wants delivered. The core is told whether it was with [`Core::sent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) pin: u8,
    pub(super) msi: Msi,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Core {
    pub(super) id: u8,
    /// IOREGSEL.
    pub(super) select: u8,
    pub(super) entries: [u64; PINS],
    /// Levels of the inputs.
    pub(super) inputs: u32,
}

impl Core {
    pub(super) fn new(id: u8) -> Self {
        Self { id: id & ID_MAX, select: 0, entries: [MASKED; PINS], inputs: 0 }
    }

    pub(super) fn read_selected(&self) -> u32 {
        match self.select {
            IOAPICID | IOAPICARB => u32::from(self.id) << 24,
            IOAPICVER => IOAPICVER_VALUE,
            IOREDTBL..=IOREDTBL_LAST => {
                let index = self.select - IOREDTBL;
                let entry = self.entries.get(usize::from(index / 2)).copied().unwrap_or(0);
                if index & 1 == 0 { entry as u32 } else { (entry >> 32) as u32 }
            }
            _ => 0,
        }
    }

    pub(super) fn write_selected(&mut self, value: u32) -> Option<Request> {
        match self.select {
            IOAPICID => self.id = (value >> 24) as u8 & ID_MAX,
            IOREDTBL..=IOREDTBL_LAST => return self.write_entry(self.select - IOREDTBL, value),
            _ => {}
        }
        None
    }

    fn write_entry(&mut self, index: u8, value: u32) -> Option<Request> {
        let pin = index / 2;
        let entry = self.entries.get_mut(usize::from(pin))?;
        let value = u64::from(value);
        let merged = if index & 1 == 0 {
            *entry & !0xFFFF_FFFF | value
        } else {
            *entry & 0xFFFF_FFFF | value << 32
        };
        *entry = *entry & REMOTE_IRR | merged & WRITABLE;
        // An edge-triggered entry has no remote IRR; guests clear it so.
        if *entry & LEVEL == 0 {
            *entry &= !REMOTE_IRR;
        }
        self.sample(pin)
    }

    /// The level of input `pin` changed. An edge on a masked pin is lost (82093AA, 3.2.4, bit 16).
    pub(super) fn set_input(&mut self, pin: u8, level: bool) -> Option<Request> {
        let entry = *self.entries.get(usize::from(pin))?;
        let bit = 1 << pin;
        let rises = level && self.inputs & bit == 0;
        self.inputs = if level { self.inputs | bit } else { self.inputs & !bit };
        (rises && entry & (MASKED | REMOTE_IRR) == 0).then(|| request(pin, entry))
    }

    /// A level-triggered pin that is up, unmasked and not in flight wants delivery. Only fixed and
    /// lowest-priority delivery are level-triggered, whatever the entry says (82093AA, 3.2.4, bits
    /// 10:8).
    fn sample(&self, pin: u8) -> Option<Request> {
        let entry = *self.entries.get(usize::from(pin))?;
        let free = entry & (LEVEL | MASKED | REMOTE_IRR) == LEVEL;
        let wanted = free && self.inputs & 1 << pin != 0;
        wanted.then(|| request(pin, entry)).filter(|request| request.msi.is_vectored())
    }

    /// The request of `pin` was accepted by a local APIC.
    pub(super) fn sent(&mut self, request: &Request) {
        let Some(entry) = self.entries.get_mut(usize::from(request.pin)) else { return };
        if *entry & LEVEL != 0 && request.msi.is_vectored() {
            *entry |= REMOTE_IRR;
        }
    }

    /// The interrupt `vector` was completed: the pins that want delivery again.
    pub(super) fn eoi(&mut self, vector: Vector) -> Vec<Request> {
        let mut again = Vec::new();
        for pin in 0..PINS as u8 {
            let Some(entry) = self.entries.get_mut(usize::from(pin)) else { continue };
            if *entry & REMOTE_IRR != 0 && *entry as u8 == vector.0 {
                *entry &= !REMOTE_IRR;
                again.extend(self.sample(pin));
            }
        }
        again
    }
}

/// The message that `entry` stands for: its fields are a message's (bits 10:8 and 15 where the data
/// has them). An edge goes out as what the entry says.
fn request(pin: u8, entry: u64) -> Request {
    let logical = if entry & LOGICAL != 0 { Msi::LOGICAL } else { 0 };
    let address = Msi::ADDRESS | (entry >> 56) << 12 | logical;
    Request { pin, msi: Msi { address: Gpa(address), data: (entry & MESSAGE) as u32 } }
}
