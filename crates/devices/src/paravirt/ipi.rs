//! What processors do to each other by hypercall: interrupts to many, the end of a HLT.

use super::Common;
use crate::irqchip::{BROADCAST, DeliveryMode, DestinationMode, Message, Trigger};
use vcpu::{HypercallError, Residence, Signal};
use x86::addr::Vector;
use x86::apic::{icr, lvt};

/// First vector that is no exception's.
const FIRST_VECTOR: u8 = 16;

/// The interrupt that an ICR's low half describes; its destination is given apart.
fn message(command: u64) -> Result<Message, HypercallError> {
    let vector = Vector(command as u8);
    let delivery = match DeliveryMode::from_bits(command as u32 >> lvt::DELIVERY_SHIFT) {
        Some(DeliveryMode::Fixed) if vector.0 >= FIRST_VECTOR => DeliveryMode::Fixed,
        Some(DeliveryMode::Nmi) => DeliveryMode::Nmi,
        _ => return Err(HypercallError::Invalid),
    };
    if command & icr::LOGICAL != 0 {
        return Err(HypercallError::Invalid);
    }
    let (trigger, mode) = (Trigger::Edge, DestinationMode::Physical);
    Ok(Message { vector, delivery, trigger, mode, destination: 0 })
}

impl Common {
    /// KVM_HC_SEND_IPI: the interrupt `command` to the APIC ids that `map` has, counted from
    /// `lowest`. How many have taken it.
    pub(super) fn send_ipis(
        &self,
        map: u128,
        lowest: u64,
        command: u64,
    ) -> Result<u64, HypercallError> {
        let message = message(command)?;
        let destinations = (0..128).filter(|bit| map >> bit & 1 != 0).map_while(|bit| {
            let id = u32::try_from(lowest.checked_add(bit)?).ok()?;
            (id != BROADCAST).then_some(id)
        });
        let taken =
            |&destination: &u32| self.interconnect.deliver(&Message { destination, ..message });
        Ok(destinations.filter(taken).count() as u64)
    }

    /// KVM_HC_KICK_CPU: ends the next HLT of the processor with APIC id `id`, or that which it is
    /// in.
    pub(super) fn kick(&self, id: u64) {
        if let Some(signals) = self.signals(id) {
            signals.raise(Signal::Unhalt);
        }
    }

    /// Whether the processor with APIC id `id` waits until something runs it.
    pub(super) fn is_queued(&self, id: u64) -> bool {
        self.signals(id).is_some_and(|signals| signals.residence() == Residence::Queued)
    }

    fn signals(&self, id: u64) -> Option<&vcpu::Signals> {
        self.signals.get(usize::try_from(id).ok()?).map(|signals| &**signals)
    }
}
