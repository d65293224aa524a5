//! Saved state that transports share: what the driver chose, and where the queues are.

use super::super::queue::QueuePosition;
use super::super::saved::DeviceState;
use super::common::Transport;
use super::negotiation::{
    DRIVER_OK, FEATURES_OK, NEEDS_RESET, Negotiation, QueueChoice, STATUS_BITS,
};
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of a device and of what its driver chose, on any transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportState {
    /// The device's kind (virtio 1.2, section 5).
    pub kind: u32,
    /// What the device keeps itself.
    pub device: DeviceState,
    /// The features that the driver accepted.
    pub driver_features: u64,
    /// Status, without DEVICE_NEEDS_RESET.
    pub status: u8,
    /// Status's DEVICE_NEEDS_RESET.
    pub needs_reset: bool,
    /// All queues in order.
    pub queues: Vec<QueueState>,
}

/// The state of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueState {
    /// Entries that the driver wants; 0 where it chose a size that no queue can have.
    pub size: u16,
    /// Whether it is ready.
    pub ready: bool,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub driver: u64,
    /// Guest-physical address of the used ring.
    pub device: u64,
    /// Where the device is.
    pub position: QueuePosition,
}

impl Transport {
    /// The state, of a device that is stopped.
    pub(super) fn save(&self) -> TransportState {
        let Negotiation { device_features: _, driver_features, status, queues } =
            self.negotiation.clone();
        TransportState {
            kind: self.device.kind(),
            device: self.device.save(),
            driver_features,
            status,
            needs_reset: self.needs_reset(),
            queues: queues.into_iter().map(QueueState::from).collect(),
        }
    }

    /// Takes over `state`, while stopped.
    pub(super) fn restore(
        &mut self,
        check: Check,
        state: &TransportState,
    ) -> Result<(), RestoreError> {
        let TransportState { kind, device, driver_features, status, needs_reset, queues } = state;
        check.that(*kind == self.device.kind(), "kind", kind, self.device.kind())?;
        let there = self.negotiation.queues.len();
        check.that(queues.len() == there, "queues", queues.len(), there)?;
        check.bits("status", *status, STATUS_BITS & !NEEDS_RESET)?;
        let mut taken = Vec::new();
        for (queue, own) in queues.iter().zip(&self.negotiation.queues) {
            taken.push(queue.taken_over(check, own.max)?);
        }
        let negotiation = Negotiation {
            device_features: self.negotiation.device_features,
            driver_features: *driver_features,
            status: *status,
            queues: taken,
        };
        let agreed = status & FEATURES_OK == 0 || negotiation.acceptable();
        check.that(
            agreed,
            "driver_features",
            format_args!("{driver_features:#x}"),
            "acceptable",
        )?;
        let ordered = status & DRIVER_OK == 0 || status & FEATURES_OK != 0;
        check.that(ordered, "status", status, "DRIVER_OK after FEATURES_OK only")?;
        self.device.restore(device)?;
        self.negotiation = negotiation;
        self.set_needs_reset(*needs_reset);
        Ok(())
    }
}

impl From<QueueChoice> for QueueState {
    fn from(choice: QueueChoice) -> Self {
        let QueueChoice { max: _, size, ready, descriptors, driver, device, position } = choice;
        Self { size, ready, descriptors, driver, device, position }
    }
}

impl QueueState {
    /// The queue, of `max` entries at the most. Where it lies in memory is the driver's choice, and
    /// checked when the device starts.
    fn taken_over(&self, check: Check, max: u16) -> Result<QueueChoice, RestoreError> {
        let Self { size, ready, descriptors, driver, device, position } = self.clone();
        let held = position.in_flight.len();
        check.that(held <= usize::from(size.min(max)), "in_flight", held, "within the queue")?;
        for head in &position.in_flight {
            check.that(*head < size, "in_flight", head, "a descriptor of the queue")?;
        }
        Ok(QueueChoice { max, size, ready, descriptors, driver, device, position })
    }
}
