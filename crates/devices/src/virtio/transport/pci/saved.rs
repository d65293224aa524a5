//! Saved state of the PCI transport.

use super::super::saved::TransportState;
use super::function::{Select, VirtioPci};
use super::interrupt::{ISR_BITS, NO_VECTOR, Registers, Vectors};
use crate::pci::registers::BUS_MASTER;
use crate::pci::{ConfigState, MsixState};
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of a device on the PCI transport, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciState {
    /// [`PciState::VERSION`] of the writer.
    pub version: u32,
    /// The device, and what its driver chose.
    pub transport: TransportState,
    /// The function's configuration space.
    pub config: ConfigState,
    /// device_feature_select.
    pub device_feature_select: u32,
    /// driver_feature_select.
    pub driver_feature_select: u32,
    /// queue_select.
    pub queue_select: u16,
    /// ISR status.
    pub isr: u8,
    /// config_msix_vector.
    pub config_vector: u16,
    /// queue_msix_vector of each queue.
    pub queue_vectors: Vec<u16>,
    /// The MSI-X table and its pending bits.
    pub msix: MsixState,
}

impl PciState {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}

impl VirtioPci {
    /// The saved state. The processors must stand still; the requests in progress are finished
    /// first, and their effects are in guest memory. If the device is not paused it goes on
    /// afterwards.
    pub fn save(&mut self) -> PciState {
        self.transport.stop();
        let (transport, config) = (self.transport.save(), self.config.save());
        let Select { device_features, driver_features, queue } = self.select;
        let (isr, vectors, msix) = self.interrupt.change(|registers| {
            let Registers { isr, vectors, msix, mode: _ } = registers;
            (*isr, vectors.clone(), msix.save())
        });
        self.transport.start();
        let Vectors { config: config_vector, queues: queue_vectors } = vectors;
        PciState {
            version: PciState::VERSION,
            transport,
            config,
            device_feature_select: device_features,
            driver_feature_select: driver_features,
            queue_select: queue,
            isr,
            config_vector,
            queue_vectors,
            msix,
        }
    }

    /// Takes over `state`, of a device of the same kind. Unless the device is paused, guest memory
    /// must be restored already: requests that wait in it are served at once.
    ///
    /// # Errors
    /// The state is not this device's; nothing was changed.
    pub fn restore(&mut self, state: &PciState) -> Result<(), RestoreError> {
        self.transport.stop();
        let taken = self.take_over(state);
        self.transport.allowed = self.config.commands(BUS_MASTER);
        self.transport.start();
        taken
    }

    fn take_over(&mut self, state: &PciState) -> Result<(), RestoreError> {
        let PciState {
            version,
            transport,
            config,
            device_feature_select,
            driver_feature_select,
            queue_select,
            isr,
            config_vector,
            queue_vectors,
            msix,
        } = state;
        let check = Check::version("virtio PCI device", *version, PciState::VERSION)?;
        check.bits("isr", *isr, ISR_BITS)?;
        self.config.check(check, config)?;
        let own = self.interrupt.change(|registers| registers.vectors.queues.len());
        check.that(queue_vectors.len() == own, "queue_vectors", queue_vectors.len(), own)?;
        let count = self.interrupt.change(|registers| registers.msix.count());
        for vector in queue_vectors.iter().chain([config_vector]) {
            let there = *vector < count || *vector == NO_VECTOR;
            check.that(there, "vector", vector, format_args!("below {count}, or none"))?;
        }
        let msix = self.interrupt.change(|registers| registers.msix.checked(check, msix))?;
        self.transport.restore(check, transport)?;
        self.config.restore(config);
        self.select = Select {
            device_features: *device_feature_select,
            driver_features: *driver_feature_select,
            queue: *queue_select,
        };
        let vectors = Vectors { config: *config_vector, queues: queue_vectors.clone() };
        let registers = Registers { isr: *isr, vectors, msix, mode: self.mode() };
        self.interrupt.change(|own| *own = registers);
        Ok(())
    }
}
