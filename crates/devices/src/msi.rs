//! Message-signalled interrupts: an address and the data that a device stores there (SDM vol. 3,
//! 12.11).
//!
//! A device on PCI holds a [`MsiSink`] and sends what its driver has programmed. The IOAPIC sends
//! its redirection entries the same way: an entry has the message's fields.

use x86::addr::Gpa;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Guest-physical address: FEEx_xxxxH with the destination.
    pub address: Gpa,
    /// Vector, delivery mode, trigger mode.
    pub data: u32,
}

impl Msi {
    /// The address without destination.
    pub const ADDRESS: u64 = x86::apic::DEFAULT_BASE;
    /// Address: the destination is a logical one.
    pub const LOGICAL: u64 = 1 << 2;
    /// Address: redirection hint.
    pub const REDIRECT: u64 = 1 << 3;
    /// Data: level-triggered.
    pub const LEVEL: u32 = 1 << 15;

    /// Whether it asks for an interrupt with its vector: delivery mode fixed or lowest priority.
    pub fn is_vectored(&self) -> bool {
        self.data & 0x600 == 0
    }
}

/// Where messages go. Takes the lock of one local APIC after the other.
pub trait MsiSink: Send + Sync {
    /// Delivers `msi`; true if a processor accepted it.
    fn send(&self, msi: Msi) -> bool;
}
