//! Saved state of the MMIO transport.

use super::super::saved::TransportState;
use super::interrupt::STATUS_BITS;
use super::registers::{Select, VirtioMmio};
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of a device on the MMIO transport, version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MmioState {
    /// [`MmioState::VERSION`] of the writer.
    pub version: u32,
    /// The device, and what its driver chose.
    pub transport: TransportState,
    /// DeviceFeaturesSel.
    pub device_features_sel: u32,
    /// DriverFeaturesSel.
    pub driver_features_sel: u32,
    /// QueueSel.
    pub queue_sel: u32,
    /// InterruptStatus.
    pub interrupt_status: u32,
}

impl MmioState {
    /// The version that this build writes.
    pub const VERSION: u32 = 2;
}

impl VirtioMmio {
    /// The saved state. The processors must stand still; the requests in progress are finished
    /// first, and their effects are in guest memory. If the device is not paused it goes on
    /// afterwards.
    pub fn save(&mut self) -> MmioState {
        self.transport.stop();
        let transport = self.transport.save();
        let interrupt_status = self.interrupt.status();
        self.transport.start();
        let Select { device_features, driver_features, queue } = self.select;
        MmioState {
            version: MmioState::VERSION,
            transport,
            device_features_sel: device_features,
            driver_features_sel: driver_features,
            queue_sel: queue,
            interrupt_status,
        }
    }

    /// Takes over `state`, of a device of the same kind. Unless the device is paused, guest memory
    /// must be restored already: requests that wait in it are served at once.
    ///
    /// # Errors
    /// The state is not this device's; nothing was changed.
    pub fn restore(&mut self, state: &MmioState) -> Result<(), RestoreError> {
        let MmioState {
            version,
            transport,
            device_features_sel,
            driver_features_sel,
            queue_sel,
            interrupt_status,
        } = state;
        let check = Check::version("virtio device", *version, MmioState::VERSION)?;
        check.bits("interrupt_status", *interrupt_status, STATUS_BITS)?;
        self.transport.stop();
        let taken = self.transport.restore(check, transport);
        if taken.is_ok() {
            self.select = Select {
                device_features: *device_features_sel,
                driver_features: *driver_features_sel,
                queue: *queue_sel,
            };
            self.interrupt.set(*interrupt_status);
        }
        self.transport.start();
        taken
    }
}
