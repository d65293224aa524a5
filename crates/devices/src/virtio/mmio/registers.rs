//! The registers of the transport (virtio 1.2, 4.2.2) and the rules of initialization (3.1), without device or ring.
//!
//! Registers take aligned 32-bit accesses (4.2.2.2). What the specification leaves open: any other access to them reads
//! all-ones and writes nothing, as does a register that is not there; a queue cannot be changed while it is ready; one that
//! was switched off in a running device stays off until the reset.

use super::super::RingPosition;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::*;

/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// The modern interface.
const VERSION: u32 = 2;
/// "GMLO": virtio gives out no vendor numbers.
const VENDOR: u32 = 0x4F4C_4D47;
/// All bits that Status can have; the rest is reserved.
const STATUS_BITS: u32 = 0xFF;

const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
pub(super) const NEEDS_RESET: u32 = VIRTIO_CONFIG_S_NEEDS_RESET;

/// What a write asks the device for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// DRIVER_OK.
    Start,
    /// Status 0: the registers are reset when the device is.
    Reset,
    /// A ready queue was switched off in a running device.
    Stop,
    Notify(u32),
    Acknowledge(u32),
}

/// One queue's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// QueueSizeMax.
    pub(super) max: u16,
    /// QueueSize; what does not fit is kept as 0, which no queue can have.
    pub(super) size: u16,
    pub(super) ready: bool,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    /// Where the device was when it stopped.
    pub(super) position: RingPosition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) device_id: u32,
    /// DeviceFeatures, both words.
    pub(super) device_features: u64,
    pub(super) driver_features: u64,
    pub(super) device_features_sel: u32,
    pub(super) driver_features_sel: u32,
    pub(super) queue_sel: u32,
    /// Status, without DEVICE_NEEDS_RESET.
    pub(super) status: u32,
    pub(super) queues: Vec<Queue>,
}

impl Queue {
    fn new(max: u16) -> Self {
        let position = RingPosition::default();
        Self { max, size: max, ready: false, descriptors: 0, driver: 0, device: 0, position }
    }
}

impl Registers {
    pub(super) fn new(device_id: u32, device_features: u64, queue_sizes: &[u16]) -> Self {
        Self {
            device_id,
            device_features,
            driver_features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            status: 0,
            queues: queue_sizes.iter().copied().map(Queue::new).collect(),
        }
    }

    /// As after power-on.
    pub(super) fn reset(&mut self) {
        let sizes: Vec<_> = self.queues.iter().map(|queue| queue.max).collect();
        *self = Self::new(self.device_id, self.device_features, &sizes);
    }

    /// Whether the driver has the device running.
    pub(super) fn running(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    /// All but InterruptStatus, Status's DEVICE_NEEDS_RESET and the configuration space.
    pub(super) fn read(&self, register: u32) -> u32 {
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device_id,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => word(self.device_features, self.device_features_sel),
            VIRTIO_MMIO_QUEUE_NUM_MAX => self.queue().map_or(0, |queue| queue.max.into()),
            VIRTIO_MMIO_QUEUE_READY => self.queue().map_or(0, |queue| queue.ready.into()),
            VIRTIO_MMIO_STATUS => self.status,
            // ConfigGeneration; there is no shared memory, which the rule for absent registers says already (4.2.2).
            VIRTIO_MMIO_CONFIG_GENERATION => 0,
            _ => u32::MAX,
        }
    }

    pub(super) fn write(&mut self, register: u32, value: u32) -> Effect {
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.accept_features(value),
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            VIRTIO_MMIO_QUEUE_SEL => self.queue_sel = value,
            VIRTIO_MMIO_QUEUE_NOTIFY => return Effect::Notify(value),
            VIRTIO_MMIO_INTERRUPT_ACK => return Effect::Acknowledge(value),
            VIRTIO_MMIO_STATUS => return self.write_status(value & STATUS_BITS & !NEEDS_RESET),
            VIRTIO_MMIO_QUEUE_READY => return self.write_ready(value & 1 != 0),
            _ => self.configure_queue(register, value),
        }
        Effect::Nothing
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(self.queue_sel as usize)
    }

    fn queue_mut(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(self.queue_sel as usize)
    }

    /// DriverFeatures; they are settled with FEATURES_OK.
    fn accept_features(&mut self, value: u32) {
        let shift = self.driver_features_sel.saturating_mul(32);
        let mask = u64::from(u32::MAX).checked_shl(shift).unwrap_or(0);
        if self.status & FEATURES_OK == 0 {
            let value = u64::from(value).checked_shl(shift).unwrap_or(0);
            self.driver_features = self.driver_features & !mask | value;
        }
    }

    /// Status. FEATURES_OK stays off if the device cannot work with what was chosen (3.1.1), DRIVER_OK without FEATURES_OK.
    fn write_status(&mut self, value: u32) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        let before = self.status;
        let mut status = value | before;
        let unknown = self.driver_features & !self.device_features != 0;
        let modern = self.driver_features >> VIRTIO_F_VERSION_1 & 1 != 0;
        if before & FEATURES_OK == 0 && (unknown || !modern) {
            status &= !FEATURES_OK;
        }
        if status & FEATURES_OK == 0 {
            status &= !DRIVER_OK;
        }
        self.status = status;
        if status & !before & DRIVER_OK != 0 { Effect::Start } else { Effect::Nothing }
    }

    fn write_ready(&mut self, ready: bool) -> Effect {
        let running = self.running();
        let Some(queue) = self.queue_mut() else { return Effect::Nothing };
        let before = queue.ready;
        queue.ready = ready && (before || !running);
        if running && before && !ready { Effect::Stop } else { Effect::Nothing }
    }

    fn configure_queue(&mut self, register: u32, value: u32) {
        let Some(queue) = self.queue_mut().filter(|queue| !queue.ready) else { return };
        match register {
            VIRTIO_MMIO_QUEUE_NUM => queue.size = value.try_into().unwrap_or(0),
            VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut queue.driver, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut queue.driver, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut queue.device, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => set_high(&mut queue.device, value),
            _ => {}
        }
    }
}

/// The 32 bits of `features` that `select` names.
fn word(features: u64, select: u32) -> u32 {
    features.checked_shr(select.saturating_mul(32)).unwrap_or(0) as u32
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << 9;

    fn registers() -> Registers {
        Registers::new(2, FEATURES, &[256])
    }

    fn choose(registers: &mut Registers, features: u64) {
        for select in 0..2 {
            registers.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            registers.write(VIRTIO_MMIO_DRIVER_FEATURES, (features >> (32 * select)) as u32);
        }
    }

    #[test]
    fn features_come_in_words_and_nothing_beyond() {
        let mut registers = registers();
        let mut read = |select| {
            registers.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
            registers.read(VIRTIO_MMIO_DEVICE_FEATURES)
        };
        assert_eq!([read(0), read(1), read(2), read(u32::MAX)], [1 << 9, 1, 0, 0]);
        registers.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, u32::MAX);
        registers.write(VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
        assert_eq!(registers.driver_features, 0);
    }

    #[test]
    fn features_ok_needs_version_1_and_no_unknown_feature() {
        for (features, accepted) in [(FEATURES, true), (1 << 9, false), (FEATURES | 1 << 40, false)]
        {
            let mut registers = registers();
            choose(&mut registers, features);
            registers.write(VIRTIO_MMIO_STATUS, 3);
            registers.write(VIRTIO_MMIO_STATUS, 0xb);
            assert_eq!(registers.read(VIRTIO_MMIO_STATUS), if accepted { 0xb } else { 3 });
            let start = registers.write(VIRTIO_MMIO_STATUS, 0xf);
            assert_eq!(start == Effect::Start, accepted);
            assert_eq!(registers.running(), accepted);
            choose(&mut registers, 0);
            assert_eq!(registers.driver_features, if accepted { features } else { 0 });
        }
    }

    #[test]
    fn a_queue_is_configured_before_it_is_ready() {
        let mut registers = registers();
        assert_eq!(registers.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 256);
        registers.write(VIRTIO_MMIO_QUEUE_NUM, 0x1_0008);
        assert_eq!(registers.queues[0].size, 0, "too large is no size");
        registers.write(VIRTIO_MMIO_QUEUE_NUM, 8);
        registers.write(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
        registers.write(VIRTIO_MMIO_QUEUE_DESC_HIGH, 1);
        registers.write(VIRTIO_MMIO_QUEUE_READY, 1);
        registers.write(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x9000);
        assert_eq!((registers.queues[0].size, registers.queues[0].descriptors), (8, 0x1_0000_1000));
        registers.write(VIRTIO_MMIO_QUEUE_SEL, 1);
        assert_eq!(registers.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 0, "no such queue");
        assert_eq!(registers.write(VIRTIO_MMIO_QUEUE_READY, 1), Effect::Nothing);
        assert_eq!(registers.read(VIRTIO_MMIO_QUEUE_READY), 0);
    }

    #[test]
    fn a_running_queue_can_be_switched_off_once() {
        let mut registers = registers();
        choose(&mut registers, FEATURES);
        registers.write(VIRTIO_MMIO_QUEUE_READY, 1);
        for status in [1, 3, 0xb, 0xf] {
            registers.write(VIRTIO_MMIO_STATUS, status);
        }
        assert_eq!(registers.write(VIRTIO_MMIO_STATUS, 0xf), Effect::Nothing, "runs already");
        assert_eq!(registers.write(VIRTIO_MMIO_QUEUE_READY, 0), Effect::Stop);
        assert_eq!(registers.write(VIRTIO_MMIO_QUEUE_READY, 1), Effect::Nothing);
        assert_eq!(registers.read(VIRTIO_MMIO_QUEUE_READY), 0);
        assert_eq!(registers.write(VIRTIO_MMIO_STATUS, 0), Effect::Reset);
    }
}
