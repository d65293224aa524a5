//! Descriptor chains as lists of guest-physical segments, checked (virtio 1.2, 2.7.4 to 2.7.5.3).
//!
//! A driver may cut a request into descriptors as it likes (2.7.4.2), so devices see two streams of bytes: what they may
//! read, then what they may write.

use memory::GuestRam;
use std::collections::VecDeque;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{GuestAddress, GuestMemoryBackend as _};

/// What makes a device stop with DEVICE_NEEDS_RESET.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The ring itself.
    #[error("the driver's ring is unusable: {0}")]
    Ring(#[from] virtio_queue::Error),
    /// A chain that does not end properly.
    #[error(
        "the driver's descriptor chain {head} does not end: a loop, or a descriptor out of bounds"
    )]
    Endless {
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

/// One request's buffers.
#[derive(Debug)]
pub(super) struct Chain {
    /// Its first descriptor: the request's name in the used ring.
    pub(super) head: u16,
    /// What the device may read.
    pub(super) readable: Segments,
    /// What the device may write.
    pub(super) writable: Segments,
}

impl Chain {
    /// Collects a chain's descriptors. `descriptors` ends after the last one, or early where it cannot go on.
    pub(super) fn collect(
        head: u16,
        descriptors: impl Iterator<Item = Descriptor>,
    ) -> Result<Self, Broken> {
        let (mut readable, mut writable) = (Segments::default(), Segments::default());
        let mut ended = false;
        for descriptor in descriptors {
            ended = !descriptor.has_next();
            if descriptor.is_write_only() {
                writable.push(descriptor.addr().0, descriptor.len());
            } else if writable.is_empty() {
                readable.push(descriptor.addr().0, descriptor.len());
            } else {
                return Err(Broken::Order { head });
            }
        }
        if ended { Ok(Self { head, readable, writable }) } else { Err(Broken::Endless { head }) }
    }
}

/// A stream of bytes in guest memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Segments {
    /// Guest-physical address and length, not 0.
    list: VecDeque<(u64, u32)>,
}

/// Bytes of a stream that are not RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotRam;

impl Segments {
    fn push(&mut self, gpa: u64, len: u32) {
        if len != 0 {
            self.list.push_back((gpa, len));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes. At most 2^32: more is no valid chain (2.7.5.2).
    pub(super) fn len(&self) -> u64 {
        self.list.iter().map(|&(_, len)| u64::from(len)).sum()
    }

    /// Whether every byte lies in RAM.
    pub(super) fn in_ram(&self, ram: &GuestRam) -> bool {
        let inside = |&(gpa, len): &(u64, u32)| {
            gpa.checked_add(len.into()).is_some()
                && ram.mmap().check_range(GuestAddress(gpa), len as usize)
        };
        self.list.iter().all(inside)
    }

    /// Cuts off what follows the first `at` bytes, and returns it.
    pub(super) fn split_off(&mut self, at: u64) -> Self {
        let (mut before, mut index) = (0, 0);
        for &(_, len) in &self.list {
            if before + u64::from(len) > at {
                break;
            }
            before += u64::from(len);
            index += 1;
        }
        let mut rest = self.list.split_off(index);
        let kept = (at - before) as u32; // less than a segment's length, or the stream is shorter than `at`
        if let Some((gpa, len)) = rest.front_mut()
            && kept > 0
        {
            self.list.push_back((*gpa, kept));
            *gpa = gpa.wrapping_add(kept.into());
            *len -= kept;
        }
        Self { list: rest }
    }

    /// Copies as many bytes as both have, from the stream's beginning.
    pub(super) fn read(&self, ram: &GuestRam, into: &mut [u8]) -> Result<(), NotRam> {
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
    pub(super) fn write(&self, ram: &GuestRam, from: &[u8]) -> Result<(), NotRam> {
        let mut rest = from;
        for &(gpa, len) in &self.list {
            let (now, later) = rest.split_at(rest.len().min(len as usize));
            let written = ram.write(gpa, now);
            ram.note_dma_write(gpa, now.len() as u64);
            written.map_err(|_| NotRam)?;
            rest = later;
        }
        Ok(())
    }
}
