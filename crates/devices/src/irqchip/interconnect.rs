//! The APIC bus: carries interrupt messages from the IOAPIC, MSIs and IPIs to local APICs (SDM vol.
//! 3, 12.6, 12.11). It has no state and no lock of its own; at most one local APIC is locked at a
//! time.

use super::message::{BROADCAST, DeliveryMode, DestinationMode, Message};
use crate::msi::{Msi, MsiSink};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use x86::addr::{VcpuId, Vector};

/// A local APIC as others see it.
pub trait Receiver: Send + Sync {
    /// The initial APIC id.
    fn id(&self) -> VcpuId;
    /// Delivers `message` if it is addressed to this one; true if it was accepted.
    fn deliver(&self, message: &Message) -> bool;
    /// The bid for a lowest-priority `message`: the processor priority, if it could be accepted.
    fn bid(&self, message: &Message) -> Option<u8>;
}

/// Who hears of completed level-triggered interrupts.
pub trait EoiListener: Send + Sync {
    /// A local APIC has completed the level-triggered interrupt `vector`.
    fn eoi(&self, vector: Vector);
}

/// Who has the vector of an external interrupt.
pub trait ExternalVector: Send + Sync {
    /// The INTA cycle.
    fn acknowledge(&self) -> Vector;
}

/// Which local APICs an IPI may go to (SDM vol. 3, 12.6.1, destination shorthand).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// All that the message addresses.
    All,
    /// The sender.
    Sender,
    /// All but the sender.
    Others,
}

/// Joins the chips.
pub struct Interconnect {
    receivers: Vec<Arc<dyn Receiver>>,
    eoi: OnceLock<Weak<dyn EoiListener>>,
    external: OnceLock<Weak<dyn ExternalVector>>,
}

impl Interconnect {
    /// Joins `receivers`.
    pub fn new(receivers: Vec<Arc<dyn Receiver>>) -> Arc<Self> {
        Arc::new(Self { receivers, eoi: OnceLock::new(), external: OnceLock::new() })
    }

    /// Names the chips that local APICs answer to: EOI broadcasts and INTA cycles. Only the first
    /// call counts.
    pub fn connect(&self, eoi: Weak<dyn EoiListener>, external: Weak<dyn ExternalVector>) {
        let _ = self.eoi.set(eoi);
        let _ = self.external.set(external);
    }

    /// Delivers `message`; true if a local APIC accepted it.
    pub fn deliver(&self, message: &Message) -> bool {
        self.send_among(message, |_| true)
    }

    /// Delivers the IPI of the local APIC `sender`.
    pub(super) fn send_ipi(&self, sender: VcpuId, message: &Message, among: Among) {
        tracing::trace!(target: "irq", from = sender.0, ?message, ?among, "IPI");
        self.send_among(message, |id| match among {
            Among::All => true,
            Among::Sender => id == sender,
            Among::Others => id != sender,
        });
    }

    /// A local APIC has completed the level-triggered interrupt `vector`.
    pub(super) fn broadcast_eoi(&self, vector: Vector) {
        if let Some(listener) = self.eoi.get().and_then(Weak::upgrade) {
            listener.eoi(vector);
        }
    }

    /// The external interrupt's vector.
    pub(super) fn acknowledge_external(&self) -> Option<Vector> {
        Some(self.external.get()?.upgrade()?.acknowledge())
    }

    fn send_among(&self, message: &Message, among: impl Fn(VcpuId) -> bool) -> bool {
        let mut candidates = self.receivers.iter().filter(|lapic| among(lapic.id()));
        if message.delivery == DeliveryMode::LowestPriority {
            let bids = candidates.filter_map(|lapic| Some((lapic.bid(message)?, lapic)));
            return bids.min_by_key(|&(bid, _)| bid).is_some_and(|(_, best)| best.deliver(message));
        }
        if message.mode == DestinationMode::Physical && message.destination != BROADCAST {
            return candidates.any(|lapic| lapic.deliver(message));
        }
        // All of them receive it, even if one has accepted it.
        candidates.filter(|lapic| lapic.deliver(message)).count() > 0
    }
}

impl MsiSink for Interconnect {
    fn send(&self, msi: Msi) -> bool {
        Message::of_msi(msi).is_some_and(|message| self.deliver(&message))
    }
}

impl fmt::Debug for Interconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.receivers.iter().map(|lapic| lapic.id())).finish()
    }
}
