//! The APIC bus: carries interrupt messages from the IOAPIC, MSIs and IPIs to local APICs (SDM vol. 3, 12.6,
//! 12.11). It has no state and no lock of its own; at most one local APIC is locked at a time.

use super::lapic::{ICR_ASSERT, ICR_LEVEL, ICR_LOGICAL, ICR_SHORTHAND};
use super::{IoApic, Lapic, PicPair};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

/// The destination that means every local APIC.
pub const BROADCAST: u32 = u32::MAX;

/// How a message is delivered (SDM vol. 3, 12.6.1; table 12-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The vector given.
    Fixed,
    /// The vector given, to the least busy of the destinations.
    LowestPriority,
    /// System management interrupt (not implemented by this machine: dropped).
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI: the vector names the page of the first instruction.
    StartUp,
    /// The 8259 supplies the vector.
    ExtInt,
}

impl Delivery {
    /// The delivery mode with the manual's three-bit `code`; 3 is reserved.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

/// How a destination field is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationMode {
    /// An APIC id.
    Physical,
    /// A set of logical ids.
    Logical,
}

/// Trigger mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Edge.
    Edge,
    /// Level: the local APIC's EOI is broadcast.
    Level,
}

/// An interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The vector.
    pub vector: u8,
    /// How it is delivered.
    pub delivery: Delivery,
    /// Trigger mode.
    pub trigger: Trigger,
    /// How `destination` is read.
    pub mode: DestinationMode,
    /// APIC id or logical id: 8 bits from the IOAPIC, MSIs and xAPIC IPIs, 32 bits from x2APIC IPIs; or
    /// [`BROADCAST`].
    pub destination: u32,
}

/// Widens an 8-bit destination: physical FFH is everybody.
pub(super) fn widen(destination: u8, mode: DestinationMode) -> u32 {
    match (destination, mode) {
        (0xFF, DestinationMode::Physical) => BROADCAST,
        _ => u32::from(destination),
    }
}

/// Joins the chips.
pub struct Interconnect {
    lapics: Vec<Arc<Lapic>>,
    ioapic: OnceLock<Weak<IoApic>>,
    pic: OnceLock<Weak<PicPair>>,
}

impl Interconnect {
    /// Joins `lapics`.
    pub fn new(lapics: Vec<Arc<Lapic>>) -> Arc<Self> {
        let joined = Arc::new(Self { lapics, ioapic: OnceLock::new(), pic: OnceLock::new() });
        for lapic in &joined.lapics {
            lapic.connect(Arc::downgrade(&joined));
        }
        joined
    }

    /// Names the chips that local APICs answer to: EOI broadcasts and INTA cycles. Only the first call counts.
    pub fn connect(&self, ioapic: &Arc<IoApic>, pic: &Arc<PicPair>) {
        let _ = self.ioapic.set(Arc::downgrade(ioapic));
        let _ = self.pic.set(Arc::downgrade(pic));
    }

    /// The local APICs.
    pub fn lapics(&self) -> &[Arc<Lapic>] {
        &self.lapics
    }

    /// Delivers `message`; true if a local APIC accepted it.
    pub fn send(&self, message: &Message) -> bool {
        self.send_among(message, |_| true)
    }

    /// Delivers the message-signalled interrupt that a store of `data` to guest-physical `address`
    /// (FEEx_xxxxH) means (SDM vol. 3, 12.11).
    pub fn send_msi(&self, address: u64, data: u32) -> bool {
        let Some(delivery) = Delivery::from_code((data >> 8) as u8) else { return false };
        // Without redirection hint (bit 3) the destination is physical whatever bit 2 says.
        let logical = address & 0b1100 == 0b1100;
        let mode = if logical { DestinationMode::Logical } else { DestinationMode::Physical };
        let trigger = if data & 1 << 15 != 0 { Trigger::Level } else { Trigger::Edge };
        let destination = widen((address >> 12) as u8, mode);
        self.send(&Message { vector: data as u8, delivery, trigger, mode, destination })
    }

    /// Sends what `icr`, the interrupt command register of `from`, says (SDM vol. 3, 12.6.1).
    pub(super) fn send_ipi(&self, from: &Lapic, icr: u64) {
        let low = icr as u32;
        let logical = low & ICR_LOGICAL != 0;
        let mode = if logical { DestinationMode::Logical } else { DestinationMode::Physical };
        let Some(delivery) = Delivery::from_code((low >> 8) as u8) else { return };
        match delivery {
            Delivery::ExtInt => return,
            // INIT level de-assert: no effect on processors since the Pentium 4.
            Delivery::Init if low & (ICR_LEVEL | ICR_ASSERT) == ICR_LEVEL => return,
            Delivery::Fixed | Delivery::LowestPriority if low as u8 & 0xF0 == 0 => {
                return from.note_send_error();
            }
            _ => {}
        }
        let destination = if low & ICR_SHORTHAND != 0 {
            BROADCAST
        } else if from.is_x2apic() {
            (icr >> 32) as u32
        } else {
            widen((icr >> 56) as u8, mode)
        };
        let vector = low as u8;
        let message = Message { vector, delivery, trigger: Trigger::Edge, mode, destination };
        tracing::trace!(target: "irq", from = from.id(), ?message, shorthand = low >> 18 & 3, "IPI");
        match (low & ICR_SHORTHAND) >> 18 {
            1 => self.send_among(&message, |lapic| lapic.id() == from.id()),
            3 => self.send_among(&message, |lapic| lapic.id() != from.id()),
            _ => self.send_among(&message, |_| true),
        };
    }

    /// A local APIC has completed the level-triggered interrupt `vector`.
    pub(super) fn broadcast_eoi(&self, vector: u8) {
        if let Some(ioapic) = self.ioapic.get().and_then(Weak::upgrade) {
            ioapic.eoi(vector);
        }
    }

    /// The 8259's INTA cycle.
    pub(super) fn acknowledge_8259(&self) -> Option<u8> {
        Some(self.pic.get()?.upgrade()?.acknowledge())
    }

    fn send_among(&self, message: &Message, among: impl Fn(&Lapic) -> bool) -> bool {
        let mut candidates = self.lapics.iter().filter(|lapic| among(lapic));
        if message.delivery == Delivery::LowestPriority {
            let bids = candidates.filter_map(|lapic| Some((lapic.bid(message)?, lapic)));
            return bids.min_by_key(|&(bid, _)| bid).is_some_and(|(_, best)| best.deliver(message));
        }
        if message.mode == DestinationMode::Physical && message.destination != BROADCAST {
            return candidates.any(|lapic| lapic.deliver(message));
        }
        // Every one of them, whoever else has accepted it.
        candidates.filter(|lapic| lapic.deliver(message)).count() > 0
    }
}

impl fmt::Debug for Interconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lapics.iter().map(|lapic| lapic.id())).finish()
    }
}
