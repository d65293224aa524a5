//! A request in a chain's buffers.

use crate::virtio::chain::Segments;
use memory::{FilePlace, GuestRam};
use rustix::fd::BorrowedFd;
use share::{Exchange, Place, Unreachable};
use std::io;
use x86::addr::Gpa;

/// See the module.
pub(super) struct Buffers<'a> {
    ram: &'a GuestRam,
    readable: Stream,
    writable: Stream,
}

/// Bytes of the guest's memory in pieces.
struct Stream {
    pieces: Vec<(Gpa, u64)>,
    len: usize,
}

impl Stream {
    fn new(segments: &Segments) -> Self {
        Self { pieces: segments.ranges(), len: segments.len() as usize }
    }

    /// The pieces of `len` bytes from byte `from` on, as far as there are any.
    fn part(&self, from: usize, len: usize) -> Vec<(Gpa, u64)> {
        let (mut skip, mut left) = (from as u64, len as u64);
        let mut part = Vec::new();
        for &(gpa, len) in &self.pieces {
            let before = skip.min(len);
            skip -= before;
            let count = (len - before).min(left);
            if count > 0 {
                part.push((gpa.wrapping_add(before), count));
                left -= count;
            }
        }
        part
    }

    /// As [`Self::part`], all of it.
    fn whole(&self, from: usize, len: usize) -> Result<Vec<(Gpa, u64)>, Unreachable> {
        let there = from.checked_add(len).is_some_and(|end| end <= self.len);
        if there { Ok(self.part(from, len)) } else { Err(Unreachable) }
    }
}

impl<'a> Buffers<'a> {
    pub(super) fn new(ram: &'a GuestRam, readable: &Segments, writable: &Segments) -> Self {
        Self { ram, readable: Stream::new(readable), writable: Stream::new(writable) }
    }
}

impl Exchange for Buffers<'_> {
    fn size(&self) -> usize {
        self.readable.len
    }

    fn room(&self) -> usize {
        self.writable.len
    }

    fn read(&self, from: usize, into: &mut [u8]) -> Result<(), Unreachable> {
        let mut rest = into;
        for (gpa, len) in self.readable.whole(from, rest.len())? {
            let (now, later) = rest.split_at_mut(len as usize);
            self.ram.read(gpa, now).map_err(|_| Unreachable)?;
            rest = later;
        }
        Ok(())
    }

    fn write(&self, from: usize, bytes: &[u8]) -> Result<(), Unreachable> {
        let mut rest = bytes;
        for (gpa, len) in self.writable.whole(from, rest.len())? {
            let (now, later) = rest.split_at(len as usize);
            let written = self.ram.write(gpa, now);
            self.ram.wrote(gpa, len);
            written.map_err(|_| Unreachable)?;
            rest = later;
        }
        Ok(())
    }

    fn fill(
        &self,
        from: usize,
        len: usize,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> io::Result<usize> {
        let pieces = self.writable.part(from, len);
        self.ram.read_file(&pieces, file, offset).map(|count| count as usize)
    }

    fn drain(
        &self,
        from: usize,
        len: usize,
        file: BorrowedFd<'_>,
        place: Place,
    ) -> io::Result<usize> {
        let place = match place {
            Place::At(offset) => FilePlace::At(offset),
            Place::End => FilePlace::End,
        };
        let pieces = self.readable.part(from, len);
        self.ram.write_file(&pieces, file, place).map(|count| count as usize)
    }
}
