//! What the interrupt command register says (SDM vol. 3, 12.6.1; x2APIC: 12.12.9).

use super::core::{Action, ApicMode, Core};
use super::registers::*;
use crate::irqchip::interconnect::Among;
use crate::irqchip::message::{BROADCAST, DeliveryMode, DestinationMode, Message, Trigger, widen};
use x86::addr::Vector;

impl Core {
    /// Sends what the ICR says. A vector below 16 is an error of the sender's.
    pub(super) fn send_ipi(&mut self) -> Action {
        let command = self.icr;
        let delivery = DeliveryMode::from_bits(command as u32 >> lvt::DELIVERY_SHIFT);
        let Some(delivery) = delivery else { return Action::None };
        let vector = command as u8;
        match delivery {
            DeliveryMode::ExtInt => return Action::None,
            // INIT level de-assert: no effect on processors since the Pentium 4.
            DeliveryMode::Init if command & (icr::LEVEL | icr::ASSERT) == icr::LEVEL => {
                return Action::None;
            }
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if vector < 16 => {
                self.error(esr::SEND_ILLEGAL_VECTOR);
                return Action::None;
            }
            _ => {}
        }
        let logical = command & icr::LOGICAL != 0;
        let mode = if logical { DestinationMode::Logical } else { DestinationMode::Physical };
        let (among, destination) = match (command & icr::SHORTHAND) >> icr::SHORTHAND_SHIFT {
            icr::NO_SHORTHAND => (Among::All, self.icr_destination(mode)),
            icr::SELF => (Among::Sender, BROADCAST),
            icr::ALL => (Among::All, BROADCAST),
            _ => (Among::Others, BROADCAST),
        };
        let message =
            Message { vector: Vector(vector), delivery, trigger: Trigger::Edge, mode, destination };
        Action::Ipi(message, among)
    }

    /// The destination field: 8 bits, in x2APIC mode 32.
    fn icr_destination(&self, mode: DestinationMode) -> u32 {
        if self.mode() == ApicMode::X2apic {
            (self.icr >> icr::X2APIC_DESTINATION_SHIFT) as u32
        } else {
            widen((self.icr >> icr::XAPIC_DESTINATION_SHIFT) as u8, mode)
        }
    }
}
