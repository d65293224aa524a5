//! The MMIO transport (virtio 1.2, 4.2): one device on 4 KiB of guest-physical memory and one level-triggered interrupt.
//!
//! A reset waits for the request in progress, so that nothing is written to guest memory after Status reads 0 (2.4.1).

mod registers;

use self::registers::{Effect, NEEDS_RESET, Registers};
use super::interrupt::State;
use super::{Interrupt, Ring, RingPosition, VirtioDevice};
use crate::bus::MmioDevice;
use crate::irq::IrqLine;
use memory::GuestRam;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// What every device can do because its transport and rings can.
const COMMON_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// A virtio device on the bus.
pub struct VirtioMmio {
    registers: Registers,
    device: Box<dyn VirtioDevice>,
    interrupt: Arc<Interrupt>,
    ram: GuestRam,
    /// The machine stands still, and so does the device.
    paused: bool,
}

/// The state of a transport and its rings, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmioState {
    /// 1.
    pub version: u32,
    /// DriverFeatures.
    pub driver_features: u64,
    /// DeviceFeaturesSel.
    pub device_features_sel: u32,
    /// DriverFeaturesSel.
    pub driver_features_sel: u32,
    /// QueueSel.
    pub queue_sel: u32,
    /// Status, without DEVICE_NEEDS_RESET.
    pub status: u32,
    /// Status's DEVICE_NEEDS_RESET.
    pub needs_reset: bool,
    /// InterruptStatus.
    pub interrupt_status: u32,
    /// All queues in order.
    pub queues: Vec<QueueState>,
}

/// The state of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// QueueSize.
    pub size: u16,
    /// QueueReady.
    pub ready: bool,
    /// QueueDesc.
    pub descriptors: u64,
    /// QueueDriver.
    pub driver: u64,
    /// QueueDevice.
    pub device: u64,
    /// The next entry of the available ring.
    pub next_avail: u16,
    /// The next entry of the used ring.
    pub next_used: u16,
}

impl VirtioMmio {
    /// Bytes of guest-physical memory that the registers take.
    pub const SIZE: u64 = 0x1000;

    /// `device` after a reset, with its rings in `ram` and its interrupt on `irq`.
    pub fn new(device: Box<dyn VirtioDevice>, ram: GuestRam, irq: IrqLine) -> Arc<Mutex<Self>> {
        let features = device.features() | COMMON_FEATURES;
        let registers = Registers::new(device.device_id(), features, device.queue_sizes());
        let interrupt = Arc::new(Interrupt::new(irq));
        Arc::new(Mutex::new(Self { registers, device, interrupt, ram, paused: false }))
    }

    /// Finishes the request in progress and takes up no more until [`VirtioMmio::resume`]: guest memory stands still.
    pub fn pause(&mut self) {
        self.stop();
        self.paused = true;
    }

    /// Goes on with what the rings hold.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.start();
        }
    }

    /// The saved state. The processors must stand still; the request in progress is finished first, and its effects are
    /// in guest memory. If the device is not paused it goes on afterwards.
    pub fn save(&mut self) -> MmioState {
        self.stop();
        let State { status: interrupt_status, needs_reset } = self.interrupt.state();
        let Registers {
            device_id: _,
            device_features: _,
            driver_features,
            device_features_sel,
            driver_features_sel,
            queue_sel,
            status,
            queues,
        } = self.registers.clone();
        let queues = queues.into_iter().map(QueueState::from).collect();
        self.start();
        MmioState {
            version: 1,
            driver_features,
            device_features_sel,
            driver_features_sel,
            queue_sel,
            status,
            needs_reset,
            interrupt_status,
            queues,
        }
    }

    /// Takes over `state`, of a device of the same kind. Unless the device is paused, guest memory must be restored already:
    /// requests that wait in it are served at once.
    pub fn restore(&mut self, state: &MmioState) {
        self.stop();
        self.registers.reset();
        let MmioState {
            version: _,
            driver_features,
            device_features_sel,
            driver_features_sel,
            queue_sel,
            status,
            needs_reset,
            interrupt_status,
            queues,
        } = state;
        let registers = &mut self.registers;
        registers.driver_features = *driver_features;
        registers.device_features_sel = *device_features_sel;
        registers.driver_features_sel = *driver_features_sel;
        registers.queue_sel = *queue_sel;
        registers.status = *status;
        for (queue, state) in registers.queues.iter_mut().zip(queues) {
            *queue = state.with_max(queue.max);
        }
        self.interrupt.set(State { status: *interrupt_status, needs_reset: *needs_reset });
        self.start();
    }

    /// Lets the device serve the ready queues, if the driver has it running and has not broken it.
    fn start(&mut self) {
        if self.paused || !self.registers.running() || self.interrupt.state().needs_reset {
            return;
        }
        let features = self.registers.driver_features;
        let mut rings = Vec::new();
        for queue in &self.registers.queues {
            if !queue.ready {
                rings.push(None);
                continue;
            }
            let state = ring_state(queue, features);
            match Ring::new(state, self.ram.clone(), Arc::clone(&self.interrupt)) {
                Ok(ring) => rings.push(Some(ring)),
                Err(why) => {
                    tracing::warn!(target: "virtio", "{why}; the device waits for a reset");
                    return self.interrupt.needs_reset();
                }
            }
        }
        self.device.start(features, rings);
    }

    /// Stops the device, and notes where its rings are.
    fn stop(&mut self) {
        let positions = self.device.stop();
        for (queue, position) in self.registers.queues.iter_mut().zip(positions) {
            if let Some(position) = position {
                queue.position = position;
            }
        }
    }

    fn read_register(&self, register: u32) -> u32 {
        let State { status, needs_reset } = self.interrupt.state();
        match register {
            VIRTIO_MMIO_INTERRUPT_STATUS => status,
            VIRTIO_MMIO_STATUS if needs_reset => self.registers.read(register) | NEEDS_RESET,
            _ => self.registers.read(register),
        }
    }

    fn write_register(&mut self, register: u32, value: u32) {
        match self.registers.write(register, value) {
            Effect::Nothing => {}
            Effect::Start => self.start(),
            Effect::Stop => self.stop(),
            Effect::Reset => {
                self.device.stop();
                self.registers.reset();
                self.interrupt.set(State::default());
            }
            Effect::Notify(queue) => self.device.notify(queue as usize),
            Effect::Acknowledge(bits) => self.interrupt.acknowledge(bits),
        }
    }

    /// The configuration space; what lies beyond it reads 0.
    fn read_config(&self, offset: usize, size: usize) -> u64 {
        let bytes = self.device.config().iter().skip(offset).take(size);
        bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

/// What the ring code of rust-vmm starts from.
fn ring_state(queue: &registers::Queue, features: u64) -> virtio_queue::QueueState {
    virtio_queue::QueueState {
        max_size: queue.max,
        next_avail: queue.position.next_avail,
        next_used: queue.position.next_used,
        event_idx_enabled: features >> VIRTIO_RING_F_EVENT_IDX & 1 != 0,
        size: queue.size,
        ready: queue.ready,
        desc_table: queue.descriptors,
        avail_ring: queue.driver,
        used_ring: queue.device,
    }
}

impl From<registers::Queue> for QueueState {
    fn from(queue: registers::Queue) -> Self {
        let registers::Queue { max: _, size, ready, descriptors, driver, device, position } = queue;
        let RingPosition { next_avail, next_used } = position;
        Self { size, ready, descriptors, driver, device, next_avail, next_used }
    }
}

impl QueueState {
    fn with_max(self, max: u16) -> registers::Queue {
        let Self { size, ready, descriptors, driver, device, next_avail, next_used } = self;
        let position = RingPosition { next_avail, next_used };
        registers::Queue { max, size, ready, descriptors, driver, device, position }
    }
}

impl MmioDevice for VirtioMmio {
    fn read(&mut self, offset: u64, size: u8) -> u64 {
        let offset = offset as u32;
        match offset.checked_sub(VIRTIO_MMIO_CONFIG) {
            Some(offset) => self.read_config(offset as usize, size.into()),
            None if size == 4 && offset.is_multiple_of(4) => self.read_register(offset).into(),
            None => u64::MAX,
        }
    }

    fn write(&mut self, offset: u64, size: u8, value: u64) {
        // Nothing in a configuration space of ours can be written.
        let offset = offset as u32;
        if offset < VIRTIO_MMIO_CONFIG && size == 4 && offset.is_multiple_of(4) {
            self.write_register(offset, value as u32);
        }
    }

    fn max_width(&self) -> u8 {
        4
    }
}

impl fmt::Debug for VirtioMmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioMmio")
            .field("registers", &self.registers)
            .field("interrupt", &self.interrupt)
            .finish_non_exhaustive()
    }
}
