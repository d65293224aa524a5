//! A part of a disk, as its file system reads it.

use disk_image::{SECTOR, Storage};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What is kept of what was read last: metadata are read by the word.
const KEPT: u64 = 4096;

/// A part of a disk, by bytes.
pub(crate) struct Part {
    disk: Arc<dyn Storage>,
    range: Range<u64>,
    /// Bytes of the disk that are kept, and where they begin.
    kept: (u64, Vec<u8>),
}

impl Part {
    pub(crate) fn new(disk: &Arc<dyn Storage>, range: Range<u64>) -> Self {
        Self { disk: Arc::clone(disk), range, kept: (0, Vec::new()) }
    }

    /// Bytes that it has.
    pub(crate) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Fills `into` with what begins at its byte `start`.
    pub(crate) fn read(&mut self, start: u64, into: &mut [u8]) -> io::Result<()> {
        let outside = || io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the partition's end");
        let end = start.checked_add(into.len() as u64).ok_or_else(outside)?;
        if end > self.len() {
            return Err(outside());
        }
        let (start, end) = (self.range.start + start, self.range.start + end);
        let (first, kept) = &mut self.kept;
        if start < *first || end > *first + kept.len() as u64 {
            let from = start / SECTOR * SECTOR;
            let to = end.max(from + KEPT).next_multiple_of(SECTOR).min(self.range.end);
            kept.resize((to - from) as usize, 0);
            self.disk.read(from, kept)?;
            *first = from;
        }
        let at = (start - *first) as usize;
        into.copy_from_slice(&kept[at..at + into.len()]);
        Ok(())
    }
}
