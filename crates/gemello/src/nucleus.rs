//! The nucleus as a guest: its image, and the disk it pages to.

use crate::limits;
use machine::{Disk, Trust};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// The bootable image.
pub(crate) const IMAGE: &[u8] = nucleus_image::NUCLEUS;
/// Its memory unless the user says otherwise: little, so that paging can be seen.
pub(crate) const MEMORY: u64 = 64 << 20;
/// Bytes of its swap disk.
const SWAP: u64 = 64 << 20;
/// How often a name that is taken is replaced by another.
const ATTEMPTS: u32 = 16;

/// A sparse file for this run alone. It has no name; where the host knows no such files, it loses
/// its name when this value goes.
#[derive(Debug)]
pub(crate) struct Swap {
    file: File,
    path: PathBuf,
    named: bool,
}

impl Swap {
    /// Makes the file, in the temporary directory or in memory.
    ///
    /// # Errors
    /// The host offers no place for it.
    pub(crate) fn new() -> io::Result<Self> {
        let place = std::env::temp_dir();
        nameless(&place).or_else(|_| named(&place)).or_else(|error| {
            in_memory().map_err(|_| {
                let advice = limits::advice(&error).unwrap_or("set TMPDIR to a writable directory");
                let (place, size) = (place.display(), SWAP >> 20);
                let text =
                    format!("cannot make a file of {size} MiB in {place}: {error}; {advice}");
                io::Error::new(error.kind(), text)
            })
        })
    }

    /// As a disk of the machine.
    pub(crate) fn disk(&self) -> Disk {
        Disk { path: self.path.clone(), read_only: false, trust: Trust::Raw }
    }

    /// Over a file without a name, which this process reaches through its descriptor.
    fn through_descriptor(file: File) -> io::Result<Self> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        file.set_len(SWAP)?;
        fs::metadata(&path)?; // not where /proc is missing
        Ok(Self { file, path, named: false })
    }
}

fn nameless(place: &Path) -> io::Result<Swap> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, place, flags, Mode::RUSR | Mode::WUSR)?;
    Swap::through_descriptor(file.into())
}

/// Processes that share the directory may have equal ids: a name is random, and must be new.
fn named(place: &Path) -> io::Result<Swap> {
    let mut taken = io::Error::from(ErrorKind::AlreadyExists);
    for attempt in 0..ATTEMPTS {
        let path =
            place.join(format!("gemello-swap-{:016x}", RandomState::new().hash_one(attempt)));
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                let swap = Swap { file, path, named: true };
                swap.file.set_len(SWAP)?;
                return Ok(swap);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

fn in_memory() -> io::Result<Swap> {
    let file = rustix::fs::memfd_create("gemello-swap", MemfdFlags::CLOEXEC)?;
    Swap::through_descriptor(file.into())
}

impl Drop for Swap {
    fn drop(&mut self) {
        if self.named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processes with one id are as two swap disks of this one.
    #[test]
    fn swap_disks_never_meet_and_leave_nothing() {
        let place = std::env::temp_dir().join(format!("gemello-swaps-{}", std::process::id()));
        fs::create_dir_all(&place).expect("a scratch directory");
        for make in [nameless, named] {
            let (one, two) = (make(&place).expect("one"), make(&place).expect("two"));
            for swap in [&one, &two] {
                let file = OpenOptions::new().read(true).write(true).open(&swap.path);
                assert_eq!(file.expect("it opens").metadata().expect("a file").len(), SWAP);
            }
            drop((one, two));
            assert_eq!(fs::read_dir(&place).expect("a directory").count(), 0);
        }
        fs::remove_dir_all(&place).expect("empty");
        assert!(in_memory().is_ok());
    }
}
