//! One virtqueue in the split format (virtio 1.2, 2.7), seen from the device.

use super::Interrupt;
use super::chain::{Broken, Chain};
use memory::GuestRam;
use std::fmt;
use std::sync::Arc;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

/// How far a device has come in a ring: both are free-running indices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingPosition {
    /// The next entry of the available ring.
    pub next_avail: u16,
    /// The next entry of the used ring.
    pub next_used: u16,
}

/// A virtqueue that is in use.
pub struct Ring {
    queue: Queue,
    ram: GuestRam,
    interrupt: Arc<Interrupt>,
}

impl Ring {
    /// The ring of `state`, which the driver chose.
    pub(super) fn new(
        state: virtio_queue::QueueState,
        ram: GuestRam,
        interrupt: Arc<Interrupt>,
    ) -> Result<Self, Broken> {
        let queue = Queue::try_from(state)?;
        if !queue.is_valid(ram.mmap()) {
            return Err(Broken::Ring(virtio_queue::Error::FindMemoryRegion));
        }
        Ok(Self { queue, ram, interrupt })
    }

    /// The memory that the ring and its buffers lie in.
    pub(super) fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Where the device is.
    pub(super) fn position(&self) -> RingPosition {
        RingPosition { next_avail: self.queue.next_avail(), next_used: self.queue.next_used() }
    }

    /// The next request, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Chain>, Broken> {
        let Some(chain) = self.queue.iter(self.ram.mmap())?.next() else { return Ok(None) };
        Chain::collect(chain.head_index(), chain).map(Some)
    }

    /// Gives the request `head` back with `written` bytes in it, and interrupts if the driver wants that.
    pub(super) fn complete(&mut self, head: u16, written: u32) -> Result<(), Broken> {
        let memory = self.ram.mmap();
        self.queue.add_used(memory, head, written)?;
        let used = 6 + 8 * u64::from(self.queue.size());
        self.ram.note_dma_write(self.queue.used_ring(), used);
        if self.queue.needs_notification(memory)? && !self.interrupts_unwanted() {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    /// The driver need not notify: the ring is being looked at.
    pub(super) fn busy(&mut self) -> Result<(), Broken> {
        Ok(self.queue.disable_notification(self.ram.mmap())?)
    }

    /// The driver has to notify from now on. True if it put something in meanwhile.
    pub(super) fn rest(&mut self) -> Result<bool, Broken> {
        Ok(self.queue.enable_notification(self.ram.mmap())?)
    }

    /// The device cannot go on with this ring.
    pub(super) fn fail(&self, why: &Broken) {
        tracing::warn!(target: "virtio", "{why}; the device waits for a reset");
        self.interrupt.needs_reset();
    }

    /// The coarse wish of drivers without VIRTIO_F_EVENT_IDX (2.7.7).
    fn interrupts_unwanted(&self) -> bool {
        let flags = GuestAddress(self.queue.avail_ring());
        !self.queue.event_idx_enabled()
            && self
                .ram
                .mmap()
                .read_obj::<u16>(flags)
                .is_ok_and(|flags| u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT != 0)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({:?})", self.queue)
    }
}
