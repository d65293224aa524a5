//! A raw image, or a block device of the host: the disk's bytes and nothing else.

use super::file::ImageFile;
use super::straight::{self, HostCache, Straight};
use super::{ImageError, SECTOR, Space, Storage, space};
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// A raw image, locked while it is open.
#[derive(Debug)]
pub struct RawImage {
    file: Arc<File>,
    /// The same, for transfers that are aligned where that matters.
    straight: Straight,
    sectors: u64,
}

impl RawImage {
    /// The image that `opened`, from `path`, is.
    pub(crate) fn new(
        path: &Path,
        opened: ImageFile,
        cache: HostCache,
    ) -> Result<Self, ImageError> {
        let ImageFile { file, bytes } = opened;
        if bytes < SECTOR {
            return Err(ImageError::TooSmall { path: path.to_owned(), bytes });
        }
        if !bytes.is_multiple_of(SECTOR) {
            return Err(ImageError::Uneven { path: path.to_owned(), bytes });
        }
        let file = Arc::new(file);
        let straight = match cache {
            HostCache::Used => Arc::clone(&file),
            HostCache::Bypassed => Arc::new(straight::past_the_cache(path, &file)?),
        };
        let straight = Straight { file: straight, cache };
        Ok(Self { file, straight, sectors: bytes / SECTOR })
    }

    /// Over a file of this process's own, which nobody else can have: its whole sectors.
    ///
    /// # Errors
    /// Its size cannot be told.
    pub fn over(file: File) -> io::Result<Self> {
        let sectors = file.metadata()?.len() / SECTOR;
        let file = Arc::new(file);
        let straight = Straight { file: Arc::clone(&file), cache: HostCache::Used };
        Ok(Self { file, straight, sectors })
    }
}

impl Storage for RawImage {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn granule(&self) -> u32 {
        4096
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.file.write_all_at(from, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn straight(&self) -> Option<&Straight> {
        Some(&self.straight)
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        space::punch(&self.file, offset, bytes)
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, space: Space) -> io::Result<()> {
        let how = match space {
            Space::GiveBack => FallocateFlags::PUNCH_HOLE,
            Space::Keep => FallocateFlags::ZERO_RANGE,
        };
        if space::allocate(&self.file, how, offset, bytes)? {
            return Ok(());
        }
        space::zero(offset, bytes, |zeros, at| self.file.write_all_at(zeros, at))
    }
}
