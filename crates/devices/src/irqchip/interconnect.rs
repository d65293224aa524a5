//! The APIC bus: carries interrupt messages from the IOAPIC, MSIs and IPIs to local APICs.

use super::{IoApic, Lapic, PicPair};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

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
    /// APIC id or logical id: 8 bits from the IOAPIC, MSIs and xAPIC IPIs, 32 bits from x2APIC IPIs.
    pub destination: u32,
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
        Arc::new(Self { lapics, ioapic: OnceLock::new(), pic: OnceLock::new() })
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
        let _ = message;
        false
    }

    /// Delivers the message-signalled interrupt that a store of `data` to guest-physical `address`
    /// (FEEx_xxxxH) means (SDM vol. 3, 12.11).
    pub fn send_msi(&self, address: u64, data: u32) -> bool {
        let _ = (address, data);
        false
    }
}

impl fmt::Debug for Interconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.lapics).finish()
    }
}
