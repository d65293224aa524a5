//! What every transport does with its device: starts it, stops it, tells it, saves it.
//!
//! A reset waits for the requests in progress, so that nothing is written to guest memory after
//! Status reads 0 (2.4.1).

use super::super::device::{Activation, VirtioDevice};
use super::super::irq::VirtioIrq;
use super::super::queue::Queue;
use super::negotiation::{Effect, NEEDS_RESET, Negotiation};
use memory::GuestRam;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// What every device can do because its transport and rings can.
const COMMON_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// A transport's way to tell the driver.
pub(super) trait Interrupts: Send + Sync {
    /// Queue `queue` has used buffers.
    fn queue(&self, queue: u16);
    /// The configuration, or the status, has changed.
    fn config(&self);
    /// As after a reset: nothing is pending.
    fn reset(&self);
}

/// What the device holds: the transport's interrupts, and Status's DEVICE_NEEDS_RESET.
struct DeviceIrq {
    needs_reset: AtomicBool,
    interrupts: Arc<dyn Interrupts>,
}

impl VirtioIrq for DeviceIrq {
    fn queue(&self, queue: u16) {
        self.interrupts.queue(queue);
    }

    fn config(&self) {
        self.interrupts.config();
    }

    fn needs_reset(&self) {
        self.needs_reset.store(true, Ordering::SeqCst);
        self.interrupts.config();
    }
}

/// A device, and what its driver chose.
pub(super) struct Transport {
    pub(super) negotiation: Negotiation,
    pub(super) device: Box<dyn VirtioDevice>,
    /// The queues in use; empty while the device is not active.
    queues: Vec<Option<Queue>>,
    irq: Arc<DeviceIrq>,
    ram: GuestRam,
    /// The machine stands still, and so does the device.
    paused: bool,
    /// The transport lets the device touch memory; [`Transport::allow_memory`] changes it.
    pub(super) allowed: bool,
}

impl Transport {
    /// `device` after a reset, with its rings in `ram`.
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        ram: GuestRam,
        interrupts: Arc<dyn Interrupts>,
    ) -> Self {
        let features = device.features() | COMMON_FEATURES;
        let negotiation = Negotiation::new(features, device.queues());
        let irq = Arc::new(DeviceIrq { needs_reset: AtomicBool::new(false), interrupts });
        Self { negotiation, device, queues: Vec::new(), irq, ram, paused: false, allowed: true }
    }

    /// Whether the driver broke the rules since the last reset.
    pub(super) fn needs_reset(&self) -> bool {
        self.irq.needs_reset.load(Ordering::SeqCst)
    }

    /// The device status register.
    pub(super) fn status(&self) -> u8 {
        self.negotiation.status | if self.needs_reset() { NEEDS_RESET } else { 0 }
    }

    /// A write to it. True if it has reset the device.
    pub(super) fn write_status(&mut self, value: u8) -> bool {
        let effect = self.negotiation.write_status(value);
        self.act(effect);
        effect == Effect::Reset
    }

    /// A write to QueueReady of queue `index`.
    pub(super) fn write_ready(&mut self, index: u32, ready: bool) {
        let effect = self.negotiation.write_ready(index, ready);
        self.act(effect);
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Start => self.start(),
            Effect::Restart => {
                self.stop();
                self.start();
            }
            Effect::Reset => self.reset(),
        }
    }

    fn reset(&mut self) {
        self.stop();
        self.device.reset();
        self.negotiation.reset();
        self.set_needs_reset(false);
        self.irq.interrupts.reset();
    }

    pub(super) fn set_needs_reset(&self, needs_reset: bool) {
        self.irq.needs_reset.store(needs_reset, Ordering::SeqCst);
    }

    /// The driver has put something into queue `index`.
    pub(super) fn notify(&mut self, index: u32) {
        if let Some(Some(_)) = self.queues.get(index as usize) {
            self.device.notify(index as usize);
        }
    }

    /// Finishes what is in progress and takes up no more until [`Transport::resume`]: guest memory
    /// stands still.
    pub(super) fn pause(&mut self) {
        self.stop();
        self.paused = true;
    }

    /// Goes on with what the rings hold.
    pub(super) fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.start();
        }
    }

    /// Whether the device may touch memory from now on. If not it rests, as in a pause.
    pub(super) fn allow_memory(&mut self, allowed: bool) {
        if std::mem::replace(&mut self.allowed, allowed) == allowed {
            return;
        }
        if allowed { self.start() } else { self.stop() }
    }

    /// Lets the device serve the ready queues, if the driver has it running and has not broken it.
    pub(super) fn start(&mut self) {
        let rests = self.paused || !self.allowed || self.needs_reset();
        if rests || !self.negotiation.running() {
            return;
        }
        let features = self.negotiation.driver_features;
        let irq = Arc::clone(&self.irq) as Arc<dyn VirtioIrq>;
        let mut queues = Vec::new();
        for (number, choice) in (0..).zip(&self.negotiation.queues) {
            if !choice.ready {
                queues.push(None);
                continue;
            }
            let (layout, ram) = (choice.layout(features), self.ram.clone());
            match Queue::new(number, &layout, &choice.position, ram, Arc::clone(&irq)) {
                Ok(queue) => queues.push(Some(queue)),
                Err(why) => {
                    tracing::warn!(target: "virtio", "{why}; the device waits for a reset");
                    return self.irq.needs_reset();
                }
            }
        }
        self.queues.clone_from(&queues);
        self.device.activate(Activation { features, queues, irq, ram: self.ram.clone() });
    }

    /// Stops the device, and notes where its queues are.
    pub(super) fn stop(&mut self) {
        self.device.quiesce();
        for (choice, queue) in self.negotiation.queues.iter_mut().zip(self.queues.drain(..)) {
            if let Some(queue) = queue {
                choice.position = queue.close();
            }
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("negotiation", &self.negotiation)
            .field("needs_reset", &self.needs_reset())
            .finish_non_exhaustive()
    }
}
