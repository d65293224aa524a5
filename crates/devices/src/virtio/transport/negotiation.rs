//! What a driver and a device agree on: status, features, queues (virtio 1.2, 2.1, 2.2, 3.1),
//! without device, ring or registers. The same on every transport.
//!
//! What the specification leaves open: a queue cannot be changed while it is ready; one that was
//! switched off in a running device stays off until the reset.

use super::super::queue::{QueueLayout, QueuePosition};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

/// All bits that Status can have; the rest is reserved.
pub(super) const STATUS_BITS: u8 = 0xFF;

pub(super) const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
pub(super) const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
pub(super) const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;

/// What a write asks the device for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// DRIVER_OK.
    Start,
    /// Status 0.
    Reset,
    /// A ready queue was switched off in a running device: it goes on without.
    Restart,
}

/// What the driver chose for one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueChoice {
    /// The most entries that the device takes.
    pub(super) max: u16,
    /// Entries; what does not fit is kept as 0, which no queue can have.
    pub(super) size: u16,
    pub(super) ready: bool,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    /// Where the device was when it stopped.
    pub(super) position: QueuePosition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Negotiation {
    pub(super) device_features: u64,
    pub(super) driver_features: u64,
    /// Status, without DEVICE_NEEDS_RESET.
    pub(super) status: u8,
    pub(super) queues: Vec<QueueChoice>,
}

/// Sets the lower half of an address.
pub(super) fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

/// Sets the upper half.
pub(super) fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}

impl QueueChoice {
    fn new(max: u16) -> Self {
        let position = QueuePosition::default();
        Self { max, size: max, ready: false, descriptors: 0, driver: 0, device: 0, position }
    }

    /// As a ring is laid out, with the negotiated `features`.
    pub(super) fn layout(&self, features: u64) -> QueueLayout {
        let &Self { max, size, ready: _, descriptors, driver, device, position: _ } = self;
        let event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1 != 0;
        QueueLayout { max, size, descriptors, driver, device, event_idx }
    }
}

impl Negotiation {
    /// Before anything is chosen.
    pub(super) fn new(device_features: u64, queues: &[u16]) -> Self {
        let queues = queues.iter().copied().map(QueueChoice::new).collect();
        Self { device_features, driver_features: 0, status: 0, queues }
    }

    /// As after power-on.
    pub(super) fn reset(&mut self) {
        let sizes: Vec<_> = self.queues.iter().map(|queue| queue.max).collect();
        *self = Self::new(self.device_features, &sizes);
    }

    /// Whether the driver has the device running.
    pub(super) fn running(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    /// The 32 bits of the device's features that `select` names.
    pub(super) fn device_features(&self, select: u32) -> u32 {
        self.device_features.checked_shr(select.saturating_mul(32)).unwrap_or(0) as u32
    }

    /// The 32 bits of the features that the driver has accepted.
    pub(super) fn accepted_features(&self, select: u32) -> u32 {
        self.driver_features.checked_shr(select.saturating_mul(32)).unwrap_or(0) as u32
    }

    /// The driver accepts `value` of the 32 features that `select` names. FEATURES_OK settles them.
    pub(super) fn accept_features(&mut self, select: u32, value: u32) {
        let shift = select.saturating_mul(32);
        let mask = u64::from(u32::MAX).checked_shl(shift).unwrap_or(0);
        if self.status & FEATURES_OK == 0 {
            let value = u64::from(value).checked_shl(shift).unwrap_or(0);
            self.driver_features = self.driver_features & !mask | value;
        }
    }

    /// A write to Status. FEATURES_OK stays off if the device cannot work with what was chosen
    /// (3.1.1), DRIVER_OK without FEATURES_OK.
    pub(super) fn write_status(&mut self, value: u8) -> Effect {
        let value = value & STATUS_BITS & !NEEDS_RESET;
        if value == 0 {
            return Effect::Reset;
        }
        let before = self.status;
        let mut status = value | before;
        if before & FEATURES_OK == 0 && !self.acceptable() {
            status &= !FEATURES_OK;
        }
        if status & FEATURES_OK == 0 {
            status &= !DRIVER_OK;
        }
        self.status = status;
        if status & !before & DRIVER_OK != 0 { Effect::Start } else { Effect::Nothing }
    }

    /// Whether the device can work with the features that the driver chose.
    pub(super) fn acceptable(&self) -> bool {
        let unknown = self.driver_features & !self.device_features != 0;
        let modern = self.driver_features >> VIRTIO_F_VERSION_1 & 1 != 0;
        modern && !unknown
    }

    /// A write to QueueReady of queue `index`.
    pub(super) fn write_ready(&mut self, index: u32, ready: bool) -> Effect {
        let running = self.running();
        let Some(queue) = self.queues.get_mut(index as usize) else { return Effect::Nothing };
        let before = queue.ready;
        queue.ready = ready && (before || !running);
        if running && before && !ready { Effect::Restart } else { Effect::Nothing }
    }

    /// Queue `index`, if it is there.
    pub(super) fn queue(&self, index: u32) -> Option<&QueueChoice> {
        self.queues.get(index as usize)
    }

    /// Queue `index`, if it can be changed now.
    pub(super) fn configurable(&mut self, index: u32) -> Option<&mut QueueChoice> {
        self.queues.get_mut(index as usize).filter(|queue| !queue.ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << 9;

    fn negotiation() -> Negotiation {
        Negotiation::new(FEATURES, &[256])
    }

    fn choose(negotiation: &mut Negotiation, features: u64) {
        for select in 0..2 {
            negotiation.accept_features(select, (features >> (32 * select)) as u32);
        }
    }

    #[test]
    fn features_come_in_words_and_nothing_beyond() {
        let mut negotiation = negotiation();
        let words = [0, 1, 2, u32::MAX].map(|select| negotiation.device_features(select));
        assert_eq!(words, [1 << 9, 1, 0, 0]);
        negotiation.accept_features(u32::MAX, u32::MAX);
        assert_eq!(negotiation.driver_features, 0);
    }

    #[test]
    fn features_ok_needs_version_1_and_no_unknown_feature() {
        for (features, accepted) in [(FEATURES, true), (1 << 9, false), (FEATURES | 1 << 40, false)]
        {
            let mut negotiation = negotiation();
            choose(&mut negotiation, features);
            negotiation.write_status(3);
            negotiation.write_status(0xb);
            assert_eq!(negotiation.status, if accepted { 0xb } else { 3 });
            let start = negotiation.write_status(0xf);
            assert_eq!(start == Effect::Start, accepted);
            assert_eq!(negotiation.running(), accepted);
            choose(&mut negotiation, 0);
            assert_eq!(negotiation.driver_features, if accepted { features } else { 0 });
        }
    }

    #[test]
    fn a_queue_is_configured_before_it_is_ready() {
        let mut negotiation = negotiation();
        negotiation.configurable(0).expect("not ready").descriptors = 0x1000;
        negotiation.write_ready(0, true);
        assert_eq!(negotiation.configurable(0), None);
        assert_eq!(negotiation.queue(0).expect("there").descriptors, 0x1000);
        assert_eq!(negotiation.queue(1), None);
        assert_eq!(negotiation.configurable(1), None);
        assert_eq!(negotiation.write_ready(1, true), Effect::Nothing);
    }

    #[test]
    fn a_running_queue_can_be_switched_off_once() {
        let mut negotiation = negotiation();
        choose(&mut negotiation, FEATURES);
        negotiation.write_ready(0, true);
        for status in [1, 3, 0xb, 0xf] {
            negotiation.write_status(status);
        }
        assert_eq!(negotiation.write_status(0xf), Effect::Nothing, "runs already");
        assert_eq!(negotiation.write_ready(0, false), Effect::Restart);
        assert_eq!(negotiation.write_ready(0, true), Effect::Nothing);
        assert!(!negotiation.queue(0).expect("there").ready);
        assert_eq!(negotiation.write_status(0), Effect::Reset);
    }
}
