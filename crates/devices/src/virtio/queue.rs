//! One virtqueue in the split format (virtio 1.2, 2.7), seen from the device.
//!
//! A [`Queue`] is a handle: the transport, the device and its threads share one queue. Chains may
//! be answered in any order, at any time and from any thread. A chain that was taken and not
//! answered when the device stops is given again when it goes on: [`QueuePosition::in_flight`].

use super::chain::{Broken, Chain, Head};
use super::irq::VirtioIrq;
use memory::{GuestRam, Pin};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};
use sync::lock;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue as SplitQueue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};
use x86::addr::Gpa;

/// How far a device has come in a queue. The indices are free-running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePosition {
    /// The next entry of the available ring.
    pub next_avail: u16,
    /// The next entry of the used ring.
    pub next_used: u16,
    /// Chains taken and not yet answered, by their first descriptor, the oldest first.
    pub in_flight: Vec<u16>,
}

/// What the driver chose for a queue (4.1.4.3, 4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueLayout {
    /// The most entries that the device takes.
    pub(crate) max: u16,
    /// Entries.
    pub(crate) size: u16,
    /// Guest-physical address of the descriptor table.
    pub(crate) descriptors: u64,
    /// Guest-physical address of the available ring.
    pub(crate) driver: u64,
    /// Guest-physical address of the used ring.
    pub(crate) device: u64,
    /// VIRTIO_F_EVENT_IDX is negotiated.
    pub(crate) event_idx: bool,
}

/// A virtqueue in use.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    number: u16,
    ram: GuestRam,
    irq: Arc<dyn VirtioIrq>,
    ring: Mutex<Ring>,
    /// The ring's three parts stay in memory: the ring code writes to them by the host's mapping.
    _parts: [Pin; 3],
}

struct Ring {
    split: SplitQueue,
    /// Taken and not answered, the oldest first.
    in_flight: VecDeque<u16>,
    /// How many of the first of them are to be given again.
    again: usize,
    /// The device was stopped, or the driver broke the rules: nothing happens any more.
    closed: bool,
}

impl Queue {
    /// Queue `number`, laid out in `ram` as the driver chose, from `position` on.
    pub(super) fn new(
        number: u16,
        layout: &QueueLayout,
        position: &QueuePosition,
        ram: GuestRam,
        irq: Arc<dyn VirtioIrq>,
    ) -> Result<Self, Broken> {
        let split = SplitQueue::try_from(split_state(layout, position))?;
        if !split.is_valid(ram.mmap()) {
            return Err(Broken::Ring(virtio_queue::Error::FindMemoryRegion));
        }
        let parts = hold(&split, &ram)?;
        let in_flight = VecDeque::from(position.in_flight.clone());
        let ring = Ring { split, again: in_flight.len(), in_flight, closed: false };
        Ok(Self {
            shared: Arc::new(Shared { number, ram, irq, ring: Mutex::new(ring), _parts: parts }),
        })
    }

    /// The memory that the ring and its buffers lie in.
    pub(crate) fn ram(&self) -> &GuestRam {
        &self.shared.ram
    }

    /// The next chain, if there is one. None after [`Queue::fail`] or when the device was stopped.
    pub(crate) fn next(&self) -> Result<Option<Chain>, Broken> {
        let ram = &self.shared.ram;
        let mut ring = lock(&self.shared.ring);
        let Some(head) = ring.take(ram)? else { return Ok(None) };
        let chain = Chain::collect(ram, ring.split.desc_table(), ring.split.size(), head)?;
        ring.in_flight.push_back(head);
        Ok(Some(chain))
    }

    /// Does `work` with each chain, `most` at the most: a driver on another processor may always
    /// have one more. True: there may be more; else the driver has to notify.
    pub(crate) fn each(
        &self,
        most: usize,
        mut work: impl FnMut(Chain) -> Result<(), Broken>,
    ) -> Result<bool, Broken> {
        for _ in 0..most {
            match self.next()? {
                Some(chain) => work(chain)?,
                None if self.rest()? => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Gives a chain back with `written` bytes in it, and interrupts if the driver wants that.
    pub(crate) fn complete(&self, head: Head, written: u32) -> Result<(), Broken> {
        let wanted = lock(&self.shared.ring).put(&self.shared.ram, head.spend(), written)?;
        if wanted {
            self.shared.irq.queue(self.shared.number);
        }
        Ok(())
    }

    /// Gives chains back together: the driver sees all of them or none. Each with the bytes
    /// written.
    pub(crate) fn complete_all(&self, chains: Vec<(Head, u32)>) -> Result<(), Broken> {
        let wanted = lock(&self.shared.ring).put_all(&self.shared.ram, chains)?;
        if wanted {
            self.shared.irq.queue(self.shared.number);
        }
        Ok(())
    }

    /// Takes chains back that were not used: they are the next ones again, in this order.
    pub(crate) fn put_back(&self, chains: Vec<(Head, u32)>) {
        let mut ring = lock(&self.shared.ring);
        for (head, _) in chains.into_iter().rev() {
            let head = head.spend();
            let again = ring.again;
            let at = ring.in_flight.iter().skip(again).position(|&taken| taken == head);
            if let Some(at) = at {
                ring.in_flight.remove(again + at);
                ring.in_flight.push_front(head);
                ring.again += 1;
            }
        }
    }

    /// The driver need not notify: the queue is being looked at.
    pub(crate) fn busy(&self) -> Result<(), Broken> {
        let Ring { split, .. } = &mut *lock(&self.shared.ring);
        split.disable_notification(self.ram().mmap())?;
        self.note_flags(split);
        Ok(())
    }

    /// The driver has to notify from now on. True if it put something in meanwhile.
    pub(crate) fn rest(&self) -> Result<bool, Broken> {
        let Ring { split, closed, .. } = &mut *lock(&self.shared.ring);
        let more = split.enable_notification(self.ram().mmap())?;
        self.note_flags(split);
        Ok(more && !*closed)
    }

    /// Whether [`Queue::next`] has a chain to give.
    pub(crate) fn has_more(&self) -> Result<bool, Broken> {
        let Ring { split, again, closed, .. } = &*lock(&self.shared.ring);
        let next = split.avail_idx(self.ram().mmap(), Ordering::Acquire)?;
        Ok(!*closed && (*again > 0 || next.0 != split.next_avail()))
    }

    /// The device cannot go on with this queue.
    pub(crate) fn fail(&self, why: &Broken) {
        lock(&self.shared.ring).closed = true;
        tracing::warn!(target: "virtio", "{why}; the device waits for a reset");
        self.shared.irq.needs_reset();
    }

    /// Ends the queue's use: a late answer has no effect. Where the device is.
    pub(super) fn close(&self) -> QueuePosition {
        let mut ring = lock(&self.shared.ring);
        ring.closed = true;
        QueuePosition {
            next_avail: ring.split.next_avail(),
            next_used: ring.split.next_used(),
            in_flight: ring.in_flight.iter().copied().collect(),
        }
    }

    /// Tells the engines of the notification flags, wherever the ring has them (2.7.7).
    fn note_flags(&self, split: &SplitQueue) {
        let at = if split.event_idx_enabled() { 4 + 8 * u64::from(split.size()) } else { 0 };
        self.ram().wrote(Gpa(split.used_ring() + at), 2);
    }
}

impl Ring {
    /// The next chain's first descriptor: one to be given again, or a new one of the driver's.
    fn take(&mut self, ram: &GuestRam) -> Result<Option<u16>, Broken> {
        if self.closed {
            return Ok(None);
        }
        if self.again > 0 {
            self.again -= 1;
            return Ok(self.in_flight.pop_front());
        }
        let size = self.split.size();
        let Some(chain) = self.split.iter(ram.mmap())?.next() else { return Ok(None) };
        // Every chain has a descriptor of its own, or the driver offers one twice.
        if self.in_flight.len() >= usize::from(size) {
            return Err(Broken::TooMany { size });
        }
        Ok(Some(chain.head_index()))
    }

    /// Puts a chain into the used ring. True if the driver wants an interrupt.
    fn put(&mut self, ram: &GuestRam, head: u16, written: u32) -> Result<bool, Broken> {
        // Not one of those to be given again: they have no `Head` yet.
        let taken = self.in_flight.iter().skip(self.again).position(|&taken| taken == head);
        let Some(at) = taken.filter(|_| !self.closed) else { return Ok(false) };
        self.in_flight.remove(self.again + at);
        self.split.add_used(ram.mmap(), head, written)?;
        ram.wrote(Gpa(self.split.used_ring()), 6 + 8 * u64::from(self.split.size()));
        Ok(self.split.needs_notification(ram.mmap())? && !self.interrupts_unwanted(ram))
    }

    /// As [`Ring::put`], of chains that the driver sees together.
    fn put_all(&mut self, ram: &GuestRam, chains: Vec<(Head, u32)>) -> Result<bool, Broken> {
        let (size, old) = (self.split.size(), self.split.next_used());
        let mut new = old;
        for (head, written) in chains {
            let head = head.spend();
            let taken = self.in_flight.iter().skip(self.again).position(|&taken| taken == head);
            let Some(at) = taken.filter(|_| !self.closed) else { return Ok(false) };
            self.in_flight.remove(self.again + at);
            let element = [u32::from(head).to_le_bytes(), written.to_le_bytes()].concat();
            let place = self.split.used_ring() + 4 + 8 * u64::from(new % size);
            ram.mmap()
                .write_slice(&element, GuestAddress(place))
                .map_err(virtio_queue::Error::GuestMemory)?;
            new = new.wrapping_add(1);
        }
        self.split.set_next_used(new);
        let index = GuestAddress(self.split.used_ring() + 2);
        ram.mmap()
            .store(new.to_le(), index, Ordering::Release)
            .map_err(virtio_queue::Error::GuestMemory)?;
        ram.wrote(Gpa(self.split.used_ring()), 6 + 8 * u64::from(size));
        fence(Ordering::SeqCst);
        if !self.split.event_idx_enabled() {
            return Ok(new != old && !self.interrupts_unwanted(ram));
        }
        let event = GuestAddress(self.split.avail_ring() + 4 + 2 * u64::from(size));
        let event = ram.mmap().load::<u16>(event, Ordering::Relaxed);
        let event = u16::from_le(event.map_err(virtio_queue::Error::GuestMemory)?);
        Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)) // 2.7.7.2
    }

    /// The coarse wish of drivers without VIRTIO_F_EVENT_IDX (2.7.7).
    fn interrupts_unwanted(&self, ram: &GuestRam) -> bool {
        let flags = GuestAddress(self.split.avail_ring());
        !self.split.event_idx_enabled()
            && ram
                .mmap()
                .read_obj::<u16>(flags)
                .is_ok_and(|flags| u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT != 0)
    }
}

/// Holds descriptor table, available ring and used ring (2.7), the event words included.
fn hold(split: &SplitQueue, ram: &GuestRam) -> Result<[Pin; 3], Broken> {
    let size = u64::from(split.size());
    let hold = |at, len| {
        ram.hold(Gpa(at), len).map_err(|_| Broken::Ring(virtio_queue::Error::FindMemoryRegion))
    };
    Ok([
        hold(split.desc_table(), 16 * size)?,
        hold(split.avail_ring(), 6 + 2 * size)?,
        hold(split.used_ring(), 6 + 8 * size)?,
    ])
}

/// What the ring code of rust-vmm starts from.
fn split_state(layout: &QueueLayout, position: &QueuePosition) -> virtio_queue::QueueState {
    let &QueueLayout { max, size, descriptors, driver, device, event_idx } = layout;
    virtio_queue::QueueState {
        max_size: max,
        next_avail: position.next_avail,
        next_used: position.next_used,
        event_idx_enabled: event_idx,
        size,
        ready: true,
        desc_table: descriptors,
        avail_ring: driver,
        used_ring: device,
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({}: {:?})", self.shared.number, lock(&self.shared.ring).split)
    }
}
