//! Interrupt messages: what the IOAPIC, devices and processors send to local APICs (SDM vol. 3,
//! 12.6, 12.11).

use x86::addr::Vector;
pub use x86::apic::DeliveryMode;

use crate::msi::Msi;
use x86::apic::lvt;

/// The destination that means every local APIC.
pub const BROADCAST: u32 = u32::MAX;

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
    pub vector: Vector,
    /// How it is delivered.
    pub delivery: DeliveryMode,
    /// Trigger mode.
    pub trigger: Trigger,
    /// How `destination` is read.
    pub mode: DestinationMode,
    /// APIC id or logical id: 8 bits from the IOAPIC, MSIs and xAPIC IPIs, 32 bits from x2APIC
    /// IPIs; or [`BROADCAST`].
    pub destination: u32,
}

/// Widens an 8-bit destination: physical FFH is everybody.
pub(super) fn widen(destination: u8, mode: DestinationMode) -> u32 {
    match (destination, mode) {
        (0xFF, DestinationMode::Physical) => BROADCAST,
        _ => u32::from(destination),
    }
}

impl Message {
    /// What a message-signalled interrupt means; `None` where it means nothing (12.11.1, 12.11.2).
    ///
    /// The manual says that without the redirection hint the destination mode is ignored.
    /// Processors do not ignore it, and drivers rely on that: it is how the destination is read in
    /// either case. The hint sends a logical message to one of its destinations.
    pub fn of_msi(msi: Msi) -> Option<Self> {
        let Msi { address, data } = msi;
        if address.0 >> 20 != Msi::ADDRESS >> 20 {
            return None;
        }
        let logical = address.0 & Msi::LOGICAL != 0;
        let mode = if logical { DestinationMode::Logical } else { DestinationMode::Physical };
        let delivery = match DeliveryMode::from_bits(data >> lvt::DELIVERY_SHIFT)? {
            // Not among the delivery modes of table 12-21.
            DeliveryMode::StartUp => return None,
            DeliveryMode::Fixed if logical && address.0 & Msi::REDIRECT != 0 => {
                DeliveryMode::LowestPriority
            }
            delivery => delivery,
        };
        let trigger = if data & Msi::LEVEL != 0 { Trigger::Level } else { Trigger::Edge };
        let destination = widen((address.0 >> 12) as u8, mode);
        Some(Self { vector: Vector(data as u8), delivery, trigger, mode, destination })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x86::addr::Gpa;

    fn message(address: u64, data: u32) -> Option<Message> {
        Message::of_msi(Msi { address: Gpa(address), data })
    }

    #[test]
    fn the_destination_is_logical_with_and_without_redirection_hint() {
        let expected = Message {
            vector: Vector(0x41),
            delivery: DeliveryMode::Fixed,
            trigger: Trigger::Edge,
            mode: DestinationMode::Logical,
            destination: 3,
        };
        assert_eq!(message(0xFEE0_3004, 0x4041), Some(expected));
        let one = Message { delivery: DeliveryMode::LowestPriority, ..expected };
        assert_eq!(message(0xFEE0_300C, 0x4041), Some(one));
        let physical = Message { mode: DestinationMode::Physical, ..expected };
        assert_eq!(message(0xFEE0_3000, 0x41), Some(physical));
        assert_eq!(message(0xFEE0_3008, 0x41), Some(physical), "no redirection to a processor");
        assert_eq!(message(0xFEEF_F000, 0x41).map(|m| m.destination), Some(BROADCAST));
    }

    #[test]
    fn what_is_no_message_means_nothing() {
        for (address, data) in [(0xFEE0_0000, 0x0341), (0xFEE0_0000, 0x0641)] {
            assert_eq!(message(address, data), None, "a reserved delivery mode");
        }
        for address in [0, 0xFED0_0000, 0xFEF0_0000, 0x1_FEE0_0000] {
            assert_eq!(message(address, 0x41), None, "not the local APICs' range");
        }
    }
}
