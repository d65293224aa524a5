//! The nucleus as a guest: its image, and the disk it pages to.

use machine::{Disk, Trust};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

/// The bootable image.
pub(crate) const IMAGE: &[u8] = nucleus_image::NUCLEUS;
/// Its memory unless the user says otherwise: little, so that paging can be seen.
pub(crate) const MEMORY: u64 = 64 << 20;
/// Bytes of its swap disk.
const SWAP: u64 = 64 << 20;

/// A sparse file in the temporary directory that loses its name when this value goes.
pub(crate) struct Swap(PathBuf);

impl Swap {
    /// Makes the file.
    ///
    /// # Errors
    /// The temporary directory cannot be written.
    pub(crate) fn new() -> io::Result<Self> {
        let name = format!("gemello-swap-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let swap = Self(path);
        file.set_len(SWAP)?;
        Ok(swap)
    }

    /// As a disk of the machine.
    pub(crate) fn disk(&self) -> Disk {
        Disk { path: self.0.clone(), read_only: false, trust: Trust::Raw }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
