//! The common configuration structure (virtio 1.2, 4.1.4.3).

use super::function::{Select, VirtioPci};
use super::layout::ROOM;
use crate::virtio::transport::negotiation::{set_high, set_low};
use x86::addr::PortWidth;

// Offsets in struct virtio_pci_common_cfg.
const DEVICE_FEATURE_SELECT: u32 = 0x00;
const DEVICE_FEATURE: u32 = 0x04;
const DRIVER_FEATURE_SELECT: u32 = 0x08;
const DRIVER_FEATURE: u32 = 0x0C;
const CONFIG_MSIX_VECTOR: u32 = 0x10;
const NUM_QUEUES: u32 = 0x12;
const DEVICE_STATUS: u32 = 0x14;
const CONFIG_GENERATION: u32 = 0x15;
const QUEUE_SELECT: u32 = 0x16;
const QUEUE_SIZE: u32 = 0x18;
const QUEUE_MSIX_VECTOR: u32 = 0x1A;
const QUEUE_ENABLE: u32 = 0x1C;
const QUEUE_NOTIFY_OFF: u32 = 0x1E;
const QUEUE_DESC: u32 = 0x20;
const QUEUE_DESC_HIGH: u32 = 0x24;
const QUEUE_DRIVER: u32 = 0x28;
const QUEUE_DRIVER_HIGH: u32 = 0x2C;
const QUEUE_DEVICE: u32 = 0x30;
const QUEUE_DEVICE_HIGH: u32 = 0x34;

/// The width of the field at `offset`; `None` where there is none.
fn width_of(offset: u32) -> Option<PortWidth> {
    match offset {
        DEVICE_STATUS | CONFIG_GENERATION => Some(PortWidth::B1),
        CONFIG_MSIX_VECTOR | NUM_QUEUES | QUEUE_SELECT | QUEUE_SIZE | QUEUE_MSIX_VECTOR
        | QUEUE_ENABLE | QUEUE_NOTIFY_OFF => Some(PortWidth::B2),
        DEVICE_FEATURE_SELECT
        | DEVICE_FEATURE
        | DRIVER_FEATURE_SELECT
        | DRIVER_FEATURE
        | QUEUE_DESC..ROOM => Some(PortWidth::B4),
        _ => None,
    }
}

impl VirtioPci {
    /// A load from the structure.
    pub(super) fn read_common(&self, offset: u32, width: PortWidth) -> u32 {
        if width_of(offset) != Some(width) {
            return u32::MAX;
        }
        let Self { transport, interrupt, select, .. } = self;
        let negotiation = &transport.negotiation;
        let queue = negotiation.queue(select.queue.into());
        let address = |of: fn(&(u64, u64, u64)) -> u64| {
            queue.map_or(0, |queue| of(&(queue.descriptors, queue.driver, queue.device)))
        };
        match offset {
            DEVICE_FEATURE_SELECT => select.device_features,
            DEVICE_FEATURE => negotiation.device_features(select.device_features),
            DRIVER_FEATURE_SELECT => select.driver_features,
            DRIVER_FEATURE => negotiation.accepted_features(select.driver_features),
            CONFIG_MSIX_VECTOR => interrupt.vector(None).into(),
            NUM_QUEUES => negotiation.queues.len() as u32,
            DEVICE_STATUS => transport.status().into(),
            CONFIG_GENERATION => transport.device.config_generation() & 0xFF,
            QUEUE_SELECT => select.queue.into(),
            QUEUE_SIZE => queue.map_or(0, |queue| queue.size.into()),
            QUEUE_MSIX_VECTOR => interrupt.vector(Some(select.queue)).into(),
            QUEUE_ENABLE => queue.map_or(0, |queue| queue.ready.into()),
            QUEUE_NOTIFY_OFF => queue.map_or(0, |_| select.queue.into()),
            QUEUE_DESC => address(|it| it.0) as u32,
            QUEUE_DESC_HIGH => (address(|it| it.0) >> 32) as u32,
            QUEUE_DRIVER => address(|it| it.1) as u32,
            QUEUE_DRIVER_HIGH => (address(|it| it.1) >> 32) as u32,
            QUEUE_DEVICE => address(|it| it.2) as u32,
            QUEUE_DEVICE_HIGH => (address(|it| it.2) >> 32) as u32,
            _ => u32::MAX,
        }
    }

    /// A store to it.
    pub(super) fn write_common(&mut self, offset: u32, width: PortWidth, value: u32) {
        if width_of(offset) != Some(width) {
            return;
        }
        let Self { transport, interrupt, select, .. } = self;
        match offset {
            DEVICE_FEATURE_SELECT => select.device_features = value,
            DRIVER_FEATURE_SELECT => select.driver_features = value,
            DRIVER_FEATURE => {
                transport.negotiation.accept_features(select.driver_features, value);
            }
            CONFIG_MSIX_VECTOR => interrupt.set_vector(None, value as u16),
            DEVICE_STATUS => {
                if transport.write_status(value as u8) {
                    *select = Select::default();
                }
            }
            QUEUE_SELECT => select.queue = value as u16,
            QUEUE_MSIX_VECTOR => interrupt.set_vector(Some(select.queue), value as u16),
            // A driver must not write 0 (4.1.4.3.2): a reset alone disables a queue.
            QUEUE_ENABLE if value == 1 => transport.write_ready(select.queue.into(), true),
            _ => self.configure_queue(offset, value),
        }
    }

    fn configure_queue(&mut self, offset: u32, value: u32) {
        let index = self.select.queue.into();
        let Some(queue) = self.transport.negotiation.configurable(index) else { return };
        match offset {
            QUEUE_SIZE => queue.size = value as u16,
            QUEUE_DESC => set_low(&mut queue.descriptors, value),
            QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            QUEUE_DRIVER => set_low(&mut queue.driver, value),
            QUEUE_DRIVER_HIGH => set_high(&mut queue.driver, value),
            QUEUE_DEVICE => set_low(&mut queue.device, value),
            QUEUE_DEVICE_HIGH => set_high(&mut queue.device, value),
            _ => {}
        }
    }
}
