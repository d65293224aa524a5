//! The registers of the MMIO transport (virtio 1.2, 4.2.2), and the bus.

use super::interrupt::Interrupt;
use crate::bus::MmioDevice;
use crate::irq::IrqLine;
use crate::virtio::device::VirtioDevice;
use crate::virtio::transport::common::Transport;
use crate::virtio::transport::negotiation::{set_high, set_low};
use memory::GuestRam;
use std::fmt;
use std::sync::{Arc, Mutex};
use virtio_bindings::virtio_mmio::*;
use x86::addr::Width;

/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// The modern interface.
const VERSION: u32 = 2;
/// "GMLO": virtio gives out no vendor numbers.
const VENDOR: u32 = 0x4F4C_4D47;

/// A virtio device on the bus.
pub struct VirtioMmio {
    pub(super) transport: Transport,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) select: Select,
}

/// The registers that say what others are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Select {
    /// DeviceFeaturesSel.
    pub(super) device_features: u32,
    /// DriverFeaturesSel.
    pub(super) driver_features: u32,
    /// QueueSel.
    pub(super) queue: u32,
}

impl VirtioMmio {
    /// Bytes of guest-physical memory that the registers take.
    pub const SIZE: u64 = 0x1000;

    /// `device` after a reset, with its rings in `ram` and its interrupt on `irq`.
    pub fn new(device: Box<dyn VirtioDevice>, ram: GuestRam, irq: IrqLine) -> Arc<Mutex<Self>> {
        let interrupt = Arc::new(Interrupt::new(irq));
        let transport = Transport::new(device, ram, Arc::clone(&interrupt) as _);
        Arc::new(Mutex::new(Self { transport, interrupt, select: Select::default() }))
    }

    /// Finishes the requests in progress and takes up no more until [`VirtioMmio::resume`]: guest
    /// memory stands still.
    pub fn pause(&mut self) {
        self.transport.pause();
    }

    /// Goes on with what the rings hold.
    pub fn resume(&mut self) {
        self.transport.resume();
    }

    fn read_register(&self, register: u32) -> u32 {
        let Self { transport, interrupt, select } = self;
        let queue = transport.negotiation.queue(select.queue);
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => transport.device.kind(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => {
                transport.negotiation.device_features(select.device_features)
            }
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max.into()),
            VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| queue.ready.into()),
            VIRTIO_MMIO_INTERRUPT_STATUS => interrupt.status(),
            VIRTIO_MMIO_STATUS => transport.status().into(),
            VIRTIO_MMIO_CONFIG_GENERATION => transport.device.config_generation(),
            // There is no shared memory, which the rule for absent registers says already (4.2.2).
            _ => u32::MAX,
        }
    }

    fn write_register(&mut self, register: u32, value: u32) {
        let Self { transport, interrupt, select } = self;
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => select.device_features = value,
            VIRTIO_MMIO_DRIVER_FEATURES => {
                transport.negotiation.accept_features(select.driver_features, value);
            }
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => select.driver_features = value,
            VIRTIO_MMIO_QUEUE_SEL => select.queue = value,
            VIRTIO_MMIO_QUEUE_NOTIFY => transport.notify(value),
            VIRTIO_MMIO_INTERRUPT_ACK => interrupt.acknowledge(value),
            VIRTIO_MMIO_STATUS => self.write_status(value as u8),
            VIRTIO_MMIO_QUEUE_READY => transport.write_ready(select.queue, value & 1 != 0),
            _ => self.configure_queue(register, value),
        }
    }

    fn write_status(&mut self, value: u8) {
        if self.transport.write_status(value) {
            self.select = Select::default();
        }
    }

    fn configure_queue(&mut self, register: u32, value: u32) {
        let index = self.select.queue;
        let Some(queue) = self.transport.negotiation.configurable(index) else { return };
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

    /// The configuration space, of any width.
    fn read_config(&self, offset: usize, width: Width) -> u64 {
        let mut bytes = [0; 8];
        self.transport.device.read_config(offset, &mut bytes[..width.bytes()]);
        u64::from_le_bytes(bytes)
    }

    fn write_config(&mut self, offset: usize, width: Width, value: u64) {
        let bytes = value.to_le_bytes();
        self.transport.device.write_config(offset, &bytes[..width.bytes()]);
    }
}

impl MmioDevice for VirtioMmio {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let offset = offset as u32;
        match offset.checked_sub(VIRTIO_MMIO_CONFIG) {
            Some(offset) => self.read_config(offset as usize, width),
            None if width == Width::B4 && offset.is_multiple_of(4) => {
                self.read_register(offset).into()
            }
            None => u64::MAX,
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let offset = offset as u32;
        match offset.checked_sub(VIRTIO_MMIO_CONFIG) {
            Some(offset) => self.write_config(offset as usize, width, value),
            None if width == Width::B4 && offset.is_multiple_of(4) => {
                self.write_register(offset, value as u32);
            }
            None => {}
        }
    }

    fn max_width(&self) -> Width {
        Width::B4
    }
}

impl fmt::Debug for VirtioMmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioMmio")
            .field("transport", &self.transport)
            .field("interrupt", &self.interrupt)
            .finish_non_exhaustive()
    }
}
