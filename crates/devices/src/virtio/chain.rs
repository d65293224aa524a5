//! Descriptor chains as lists of guest-physical segments, checked (virtio 1.2, 2.7.4 to 2.7.5.3).
//!
//! A driver may cut a request into descriptors as it likes (2.7.4.2), so devices see two streams of
//! bytes: what they may read, then what they may write.

use memory::GuestRam;
use std::collections::VecDeque;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};
use x86::addr::Gpa;

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;

/// What makes a device stop with DEVICE_NEEDS_RESET.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The ring itself.
    #[error("the driver's ring is unusable: {0}")]
    Ring(#[from] virtio_queue::Error),
    /// More chains than the ring has descriptors.
    #[error("the driver offers more than {size} chains at once, as many as the ring has entries")]
    TooMany {
        /// Entries of the ring.
        size: u16,
    },
    /// A chain that does not end properly.
    #[error(
        "the driver's descriptor chain {head} does not end: a loop, or a descriptor out of bounds"
    )]
    Endless {
        /// Its first descriptor.
        head: u16,
    },
    /// 2.7.5.3.
    #[error("the driver's descriptor chain {head} has an indirect table that cannot be used")]
    Indirect {
        /// Its first descriptor.
        head: u16,
    },
    /// 2.7.5.2.
    #[error("the driver's descriptor chain {head} has more than 4 GiB")]
    Long {
        /// Its first descriptor.
        head: u16,
    },
    /// 2.7.4.2.
    #[error("the driver's descriptor chain {head} has a readable descriptor after a writable one")]
    Order {
        /// Its first descriptor.
        head: u16,
    },
    /// No place for the answer.
    #[error("the driver's descriptor chain {head} has no room in RAM for the request's status")]
    NoStatus {
        /// Its first descriptor.
        head: u16,
    },
}

/// A chain's name in the used ring: its first descriptor. Whoever has it owes the driver an answer,
/// [`super::Queue::complete`], and can give it once only.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head(u16);

impl Head {
    /// The descriptor's index.
    pub(crate) fn index(&self) -> u16 {
        self.0
    }

    /// The same, of a chain that is being answered.
    pub(super) fn spend(self) -> u16 {
        self.0
    }
}

/// One request's buffers.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The request's name in the used ring.
    pub(crate) head: Head,
    /// What the device may read.
    pub(crate) readable: Segments,
    /// What the device may write.
    pub(crate) writable: Segments,
}

impl Chain {
    /// Collects the chain that begins at descriptor `head` of the table of `size` descriptors at
    /// guest-physical `table`.
    pub(super) fn collect(
        ram: &GuestRam,
        table: u64,
        size: u16,
        head: u16,
    ) -> Result<Self, Broken> {
        let mut chain =
            Self { head: Head(head), readable: Segments::default(), writable: Segments::default() };
        let mut walk = Walk { table, size, next: head, left: size, indirect: false };
        let mut bytes = 0_u32;
        loop {
            let descriptor = walk.descriptor(ram).ok_or(Broken::Endless { head })?;
            if descriptor.refers_to_indirect_table() {
                walk = walk.enter(&descriptor).ok_or(Broken::Indirect { head })?;
                continue;
            }
            bytes = bytes.checked_add(descriptor.len()).ok_or(Broken::Long { head })?;
            chain.push(&descriptor)?;
            if !descriptor.has_next() {
                return Ok(chain);
            }
            walk.next = descriptor.next();
        }
    }

    fn push(&mut self, descriptor: &Descriptor) -> Result<(), Broken> {
        let segments = if descriptor.is_write_only() {
            &mut self.writable
        } else if self.writable.is_empty() {
            &mut self.readable
        } else {
            return Err(Broken::Order { head: self.head.0 });
        };
        segments.push(Gpa(descriptor.addr().0), descriptor.len());
        Ok(())
    }
}

/// A place in a descriptor table.
struct Walk {
    table: u64,
    /// Descriptors of the table.
    size: u16,
    next: u16,
    /// Descriptors that may still follow: a chain is no longer than its table.
    left: u16,
    indirect: bool,
}

impl Walk {
    /// The descriptor here, if it is one.
    fn descriptor(&mut self, ram: &GuestRam) -> Option<Descriptor> {
        self.left = self.left.checked_sub(1)?;
        let inside = self.next < self.size;
        let at = self.table.checked_add(DESCRIPTOR * u64::from(self.next)).filter(|_| inside)?;
        ram.mmap().read_obj(GuestAddress(at)).ok()
    }

    /// The beginning of the table that `descriptor` refers to. It has whole descriptors, and none
    /// of them refers to another (2.7.5.3.1).
    fn enter(&self, descriptor: &Descriptor) -> Option<Self> {
        let whole = descriptor.len().is_multiple_of(DESCRIPTOR as u32);
        let size = u16::try_from(descriptor.len() / DESCRIPTOR as u32).ok()?;
        let table = descriptor.addr().0;
        let usable = whole && !self.indirect;
        usable.then_some(Self { table, size, next: 0, left: size, indirect: true })
    }
}

/// A stream of bytes in guest memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments {
    /// Guest-physical address and length, not 0.
    list: VecDeque<(Gpa, u32)>,
}

/// Bytes of a stream that are not RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotRam;

impl Segments {
    fn push(&mut self, gpa: Gpa, len: u32) {
        if len != 0 {
            self.list.push_back((gpa, len));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes. At most 2^32: more is no valid chain (2.7.5.2).
    pub(crate) fn len(&self) -> u64 {
        self.list.iter().map(|&(_, len)| u64::from(len)).sum()
    }

    /// Its pieces: guest-physical address and bytes.
    pub(crate) fn ranges(&self) -> Vec<(Gpa, u64)> {
        self.list.iter().map(|&(gpa, len)| (gpa, len.into())).collect()
    }

    /// Whether every byte lies in RAM.
    pub(crate) fn in_ram(&self, ram: &GuestRam) -> bool {
        let inside = |&(gpa, len): &(Gpa, u32)| {
            gpa.checked_add(len.into()).is_some()
                && ram.mmap().check_range(GuestAddress(gpa.0), len as usize)
        };
        self.list.iter().all(inside)
    }

    /// Cuts off what follows the first `at` bytes, and returns it.
    pub(crate) fn split_off(&mut self, at: u64) -> Self {
        let (mut before, mut index) = (0, 0);
        for &(_, len) in &self.list {
            if before + u64::from(len) > at {
                break;
            }
            before += u64::from(len);
            index += 1;
        }
        let mut rest = self.list.split_off(index);
        // Less than a segment's length, or the stream is shorter than `at`
        let kept = (at - before) as u32;
        if let Some((gpa, len)) = rest.front_mut()
            && kept > 0
        {
            self.list.push_back((*gpa, kept));
            *gpa = gpa.wrapping_add(kept.into());
            *len -= kept;
        }
        Self { list: rest }
    }

    /// Tells the engines that the host has written to it.
    pub(crate) fn wrote(&self, ram: &GuestRam) {
        self.list.iter().for_each(|&(gpa, len)| ram.wrote(gpa, len.into()));
    }

    /// Copies as many bytes as both have, from the stream's beginning.
    pub(crate) fn read(&self, ram: &GuestRam, into: &mut [u8]) -> Result<(), NotRam> {
        let mut rest = into;
        for &(gpa, len) in &self.list {
            let count = rest.len().min(len as usize);
            let (now, later) = rest.split_at_mut(count);
            ram.read(gpa, now).map_err(|_| NotRam)?;
            rest = later;
        }
        Ok(())
    }

    /// Copies as many bytes as both have, to the stream's beginning, and tells the engines.
    pub(crate) fn write(&self, ram: &GuestRam, from: &[u8]) -> Result<(), NotRam> {
        let mut rest = from;
        for &(gpa, len) in &self.list {
            let (now, later) = rest.split_at(rest.len().min(len as usize));
            let written = ram.write(gpa, now);
            ram.wrote(gpa, now.len() as u64);
            written.map_err(|_| NotRam)?;
            rest = later;
        }
        Ok(())
    }
}
