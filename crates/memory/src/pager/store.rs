//! What the pager asks of the host: to bring a page of the swap file in, to write pages out, to
//! take them out of memory.
//!
//! Guest RAM is a shared mapping of the file, so the host's kernel keeps the two the same: a page
//! that is out comes back at the next access, whoever makes it. Page *n* of RAM is page *n* of the
//! file.
#![allow(unsafe_code)] // Reason: madvise, mincore, sync_file_range, and a look at guest pages.

use super::residency::Source;
use crate::GuestRam;
use crate::ram::PAGE;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

const WORDS: usize = PAGE as usize / 8;

/// The file behind `ram`, in terms of pages.
#[derive(Clone, Copy)]
pub(super) struct Store<'a> {
    ram: &'a GuestRam,
    file: BorrowedFd<'a>,
}

/// Cuts ascending `pages` into runs that follow each other in RAM and in one region.
pub(crate) fn runs(ram: &GuestRam, pages: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &page in pages {
        let starts_region = ram.regions().iter().any(|region| region.first_page() == page);
        match runs.last_mut().filter(|run| run.end == page && !starts_region) {
            Some(run) => run.end = page + 1,
            None => runs.push(page..page + 1),
        }
    }
    runs
}

impl<'a> Store<'a> {
    /// `None`: no file is behind `ram`.
    pub(super) fn of(ram: &'a GuestRam) -> Option<Self> {
        Some(Self { ram, file: ram.descriptor()? })
    }

    /// Where the host has the pages of `run`, and how many bytes they have.
    fn place(self, run: &Range<usize>) -> io::Result<(*mut u8, usize)> {
        let len = (run.len() as u64) * PAGE;
        let host = self.ram.page_address(run.start).and_then(|gpa| self.ram.host_address(gpa, len));
        Ok((host.ok_or(io::ErrorKind::InvalidInput)?, len as usize))
    }

    fn advise(self, run: &Range<usize>, advice: Advice) -> io::Result<()> {
        let (host, len) = self.place(run)?;
        // SAFETY: `place` found the range in one live mapping of `GuestRam`'s. This advice changes
        // no contents: what is taken out of memory is in the file.
        Ok(unsafe { madvise(host.cast(), len, advice) }?)
    }

    /// Has the host bring single pages, and none beside them: nobody would count those.
    pub(super) fn single_pages(self, pages: usize) -> io::Result<()> {
        let all: Vec<_> = (0..pages).collect();
        runs(self.ram, &all).iter().try_for_each(|run| {
            self.advise(run, Advice::Random)?;
            // A host without huge pages refuses this, and needs none of it.
            let _ = self.advise(run, Advice::LinuxNoHugepage);
            Ok(())
        })
    }

    /// Makes the page resident. An error of the file shows here rather than at an access.
    pub(super) fn bring(self, page: usize, source: Source) -> io::Result<()> {
        let advice = match source {
            // Where it has no place on the disk it gets one now, or this says that there is none.
            Source::Nothing => Advice::LinuxPopulateWrite,
            Source::File => Advice::LinuxPopulateRead,
        };
        self.advise(&(page..page + 1), advice).map_err(|error| match error.raw_os_error() {
            // What an access would have met is a SIGBUS (madvise(2)): the file does not give it.
            Some(libc::EFAULT) => io::Error::from_raw_os_error(libc::EIO),
            _ => error,
        })
    }

    /// Whether the page holds nothing but zeros.
    pub(super) fn is_zero(self, page: usize) -> bool {
        let Ok((host, _)) = self.place(&(page..page + 1)) else { return false };
        let words = host.cast::<u64>();
        // SAFETY: `place` found a whole page of guest memory there; it is read word by word,
        // volatile, and is page aligned.
        (0..WORDS).all(|i| unsafe { words.add(i).read_volatile() } == 0)
    }

    /// Has the host begin to write what has changed in `run`.
    pub(super) fn begin_to_write(self, run: &Range<usize>) -> io::Result<()> {
        self.sync(run, libc::SYNC_FILE_RANGE_WRITE)
    }

    /// Waits until all of `run` is in the file.
    pub(super) fn finish_writing(self, run: &Range<usize>) -> io::Result<()> {
        let wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        self.sync(run, wait | libc::SYNC_FILE_RANGE_WRITE)
    }

    fn sync(self, run: &Range<usize>, flags: libc::c_uint) -> io::Result<()> {
        let (offset, len) = extent(run);
        // SAFETY: no memory is involved; the descriptor is open.
        let done = unsafe {
            libc::sync_file_range(self.file.as_raw_fd(), offset as i64, len as i64, flags)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes `run`, which is in the file, out of memory.
    pub(super) fn take_out(self, run: &Range<usize>) -> io::Result<()> {
        self.advise(run, Advice::LinuxPageOut)
    }

    /// Makes `run`, which holds zeros, as new as it was in the file, and takes it out of memory. It
    /// keeps its place on the disk where the file system can do that; else it becomes a hole.
    pub(super) fn discard(self, run: &Range<usize>) -> io::Result<()> {
        let (offset, len) = extent(run);
        let free = |how| fallocate(self.file.as_fd(), how | FallocateFlags::KEEP_SIZE, offset, len);
        match free(FallocateFlags::ZERO_RANGE) {
            Err(Errno::OPNOTSUPP) => Ok(free(FallocateFlags::PUNCH_HOLE)?),
            done => Ok(done?),
        }
    }

    /// Which pages of `run` are in memory, whoever brought them.
    pub(super) fn resident(self, run: &Range<usize>) -> io::Result<Vec<bool>> {
        let (host, len) = self.place(run)?;
        let mut pages = vec![0_u8; run.len()];
        // SAFETY: the range lies in a live mapping; `pages` has a byte for each of its pages.
        if unsafe { libc::mincore(host.cast(), len, pages.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(pages.into_iter().map(|byte| byte & 1 != 0).collect())
    }
}

/// Offset and length of `run` in the file.
fn extent(run: &Range<usize>) -> (u64, u64) {
    (run.start as u64 * PAGE, run.len() as u64 * PAGE)
}
