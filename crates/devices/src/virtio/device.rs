//! The contract between a virtio device and the transport that it is behind.
//!
//! A device knows its kind, its features, its configuration space and what its queues mean. How a
//! driver finds registers and interrupts is the transport's affair, so one device serves them all.

use super::irq::VirtioIrq;
use super::queue::Queue;
use super::saved::DeviceState;
use crate::saved::RestoreError;
use memory::GuestRam;
use std::sync::{Arc, Mutex};
use sync::lock;

/// A virtio device. Called with the transport locked; it must not wait for a processor.
pub trait VirtioDevice: Send {
    /// The device's type (virtio 1.2, section 5).
    fn kind(&self) -> u32;

    /// Feature bits of this kind of device (0 to 23, 50 to 127 of the first 64). The transport and
    /// the rings add theirs.
    fn features(&self) -> u64;

    /// The most entries that each queue may have, powers of two; as many queues as elements.
    fn queues(&self) -> &[u16];

    /// Fills `into` from byte `offset` of the configuration space (2.5). What is not there reads 0.
    fn read_config(&self, offset: usize, into: &mut [u8]);

    /// The driver writes `bytes` at `offset` of the configuration space. What cannot be written
    /// stays as it is.
    fn write_config(&mut self, _offset: usize, _bytes: &[u8]) {}

    /// Changes whenever the device has changed its configuration space by itself, and together with
    /// it (2.5.1).
    fn config_generation(&self) -> u32 {
        0
    }

    /// The driver is ready: the device serves its queues from now on, with what they hold already.
    /// Never called twice without [`VirtioDevice::quiesce`] between.
    fn activate(&mut self, activation: Activation);

    /// The driver has put something into this queue, which is in use.
    fn notify(&mut self, queue: usize);

    /// Stops serving. When this returns, the device and its threads touch guest memory and queues
    /// no more until they are activated again, and hold no chain: those not answered are given
    /// again. Called at a reset, a pause and before saving; also where the device is not active.
    fn quiesce(&mut self);

    /// The driver resets the device, which is quiet: what the driver chose is forgotten.
    fn reset(&mut self) {}

    /// The saved state, of a quiet device.
    fn save(&self) -> DeviceState;

    /// Takes over `state`, while quiet.
    ///
    /// # Errors
    /// The state is not this device's; nothing was changed.
    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError>;
}

/// What a device works with from DRIVER_OK on.
#[derive(Debug)]
pub struct Activation {
    /// The negotiated feature bits.
    pub features: u64,
    /// Each queue; `None` for one that the driver does not use.
    pub queues: Vec<Option<Queue>>,
    /// How to tell the driver.
    pub irq: Arc<dyn VirtioIrq>,
    /// Guest memory.
    pub ram: GuestRam,
}

/// A configuration space that may change while the driver reads it. Clones share it, so that a
/// device's threads can change it.
#[derive(Clone, Debug, Default)]
pub struct ConfigSpace(Arc<Mutex<ConfigContent>>);

#[derive(Debug, Default)]
struct ConfigContent {
    bytes: Vec<u8>,
    generation: u32,
}

impl ConfigSpace {
    /// With these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Mutex::new(ConfigContent { bytes: bytes.into(), generation: 0 })))
    }

    /// [`VirtioDevice::read_config`].
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        into.fill(0);
        let content = lock(&self.0);
        let there = content.bytes.iter().skip(offset);
        into.iter_mut().zip(there).for_each(|(into, byte)| *into = *byte);
    }

    /// [`VirtioDevice::config_generation`].
    pub fn generation(&self) -> u32 {
        lock(&self.0).generation
    }

    /// Changes the bytes in one step, as the driver sees it. Tell it with [`VirtioIrq::config`].
    pub fn update(&self, change: impl FnOnce(&mut [u8])) {
        let mut content = lock(&self.0);
        change(&mut content.bytes);
        content.generation = content.generation.wrapping_add(1);
    }
}
