//! The entropy device (virtio 1.2, 5.4): it fills buffers of the driver's with random bytes.
//!
//! A request gets [`MOST`] bytes at the most, so that a thread is never busy for long with one of
//! them; a driver that wants more asks again. What it got is told as the length that was written.

use super::chain::{Broken, Chain};
use super::saved::DeviceState;
use super::worker::{Serve, Service, Worker};
use super::{Activation, Queue, VirtioDevice};
use crate::saved::RestoreError;
use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

/// Entries of the queue at the most.
const QUEUE_SIZE: u16 = 64;
/// Bytes for a request at the most.
const MOST: usize = 4096;

/// A source of random bytes.
#[derive(Debug)]
pub struct Entropy {
    worker: Worker,
}

impl Entropy {
    /// The host's.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn new(service: Service) -> io::Result<Self> {
        let worker = Worker::new("entropy".into(), Source, service)?;
        Ok(Self { worker })
    }
}

impl VirtioDevice for Entropy {
    fn kind(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: usize, into: &mut [u8]) {
        into.fill(0);
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { features, queues, irq: _, ram: _ } = activation;
        if let Some(queue) = queues.into_iter().next().flatten() {
            self.worker.start(queue, features);
        }
    }

    fn notify(&mut self, _queue: usize) {
        self.worker.notify();
    }

    fn quiesce(&mut self) {
        self.worker.stop();
    }

    fn save(&self) -> DeviceState {
        DeviceState::Stateless
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        match state {
            DeviceState::Stateless => Ok(()),
            _ => Err(RestoreError::Kind { device: "entropy device" }),
        }
    }
}

/// The host's kernel.
struct Source;

impl Serve for Source {
    fn serve(&mut self, queue: &Queue, chain: Chain, _features: u64) -> Result<(), Broken> {
        let Chain { head, readable: _, writable } = chain;
        let mut bytes = [0; MOST];
        let wanted = writable.len().min(MOST as u64) as usize;
        let bytes = &mut bytes[..wanted];
        // Of buffers that are not (all) RAM the driver is told that they hold nothing.
        let filled = fill(bytes) && writable.write(queue.ram(), bytes).is_ok();
        queue.complete(head, if filled { wanted as u32 } else { 0 })
    }
}

/// Fills `bytes` with random ones; false where the host has none.
fn fill(bytes: &mut [u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match retry_on_intr(|| getrandom(&mut *rest, GetRandomFlags::empty())) {
            Ok(count) if count > 0 => rest = rest.split_at_mut(count).1,
            _ => {
                tracing::warn!(target: "virtio", "the host gives no random bytes (getrandom)");
                return false;
            }
        }
    }
    true
}
