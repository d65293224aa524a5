//! What the interrupt command register says (SDM vol. 3, 12.6.1; x2APIC: 12.12.9).

use super::core::{Action, ApicMode, Core};
use super::registers::*;
use crate::irqchip::interconnect::Among;
use crate::irqchip::message::{BROADCAST, Delivery, DestinationMode, Message, Trigger, widen};

impl Core {
    /// Sends what the ICR says. A vector below 16 is an error of the sender's.
    pub(super) fn send_ipi(&mut self) -> Action {
        let low = self.icr as u32;
        let Some(delivery) = Delivery::from_code((low >> 8) as u8) else { return Action::None };
        match delivery {
            Delivery::ExtInt => return Action::None,
            // INIT level de-assert: no effect on processors since the Pentium 4.
            Delivery::Init if low & (ICR_LEVEL | ICR_ASSERT) == ICR_LEVEL => return Action::None,
            Delivery::Fixed | Delivery::LowestPriority if low as u8 & 0xF0 == 0 => {
                self.error(ESR_SEND_ILLEGAL);
                return Action::None;
            }
            _ => {}
        }
        let logical = low & ICR_LOGICAL != 0;
        let mode = if logical { DestinationMode::Logical } else { DestinationMode::Physical };
        let (among, destination) = match (low & ICR_SHORTHAND) >> 18 {
            0 => (Among::All, self.icr_destination(mode)),
            1 => (Among::Sender, BROADCAST),
            2 => (Among::All, BROADCAST),
            _ => (Among::Others, BROADCAST),
        };
        let vector = low as u8;
        let message = Message { vector, delivery, trigger: Trigger::Edge, mode, destination };
        Action::Ipi(message, among)
    }

    /// The destination field: 8 bits, in x2APIC mode 32.
    fn icr_destination(&self, mode: DestinationMode) -> u32 {
        if self.mode() == ApicMode::X2apic {
            (self.icr >> 32) as u32
        } else {
            widen((self.icr >> 56) as u8, mode)
        }
    }
}
