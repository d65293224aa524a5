//! A qcow2 image, read and written by the crate `imago`.
//!
//! Metadata is cached in this process until a flush, in an order that keeps the image sound at any
//! moment: whoever ends in between leaks clusters at the most. The lock is held shared by all
//! but a discard, which changes where clusters are.

use super::check;
use super::file::ImageFile;
use super::header::Header;
use super::{DiskAccess, ImageError, SECTOR, Space, Storage, space};
use imago::file::File as HostFile;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{FormatAccess, ShallowMapping, StorageOpenOptions};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// An open image as imago has it.
pub(crate) type Access = FormatAccess<HostFile>;

/// One image of a chain with all below it.
pub(crate) struct Layer {
    pub(crate) access: Access,
    /// The same file, to look at its size.
    file: File,
    granule: u32,
}

/// A qcow2 image in use.
pub(crate) struct Qcow2Image {
    access: RwLock<Access>,
    sectors: u64,
    granule: u32,
    writable: DiskAccess,
    file: File,
    /// The largest size that the file has had. It only grows.
    seen: AtomicU64,
}

/// The qcow2 image in `opened`, from `path`, on `below`.
pub(crate) fn layer(
    path: &Path,
    opened: ImageFile,
    access: DiskAccess,
    header: &Header,
    below: Option<Layer>,
) -> Result<Layer, ImageError> {
    let no = |error: io::Error| ImageError::Qcow2 { path: path.to_owned(), why: error.to_string() };
    let file = opened.file.try_clone().map_err(no)?;
    let writable = access == DiskAccess::ReadWrite;
    if writable && let Err(why) = check::tables(&file, opened.bytes, header).map_err(no)? {
        return Err(ImageError::Qcow2 { path: path.to_owned(), why });
    }
    let storage = host_file(path, opened, access).map_err(no)?;
    let mut image = Qcow2::<HostFile>::open_image(storage, writable).map_err(no)?;
    if image.requires_external_data_file() {
        let why = "its data is in another file; qemu-img convert puts it into one".to_owned();
        return Err(ImageError::Qcow2 { path: path.to_owned(), why });
    }
    image.set_data_file(None);
    image.set_backing(below.map(|below| below.access));
    Ok(Layer { access: FormatAccess::new(image), file, granule: header.cluster })
}

/// The raw image in `opened`, from `path`, to build on.
pub(crate) fn raw_layer(
    path: &Path,
    opened: ImageFile,
    access: DiskAccess,
) -> Result<Layer, ImageError> {
    let no = |source| ImageError::Read { path: path.to_owned(), source };
    let file = opened.file.try_clone().map_err(no)?;
    let storage = host_file(path, opened, access).map_err(no)?;
    let raw = Raw::open_image(storage, access == DiskAccess::ReadWrite).map_err(no)?;
    Ok(Layer { access: FormatAccess::new(raw), file, granule: SECTOR as u32 })
}

/// The file as imago takes it.
pub(crate) fn host_file(
    path: &Path,
    opened: ImageFile,
    access: DiskAccess,
) -> io::Result<HostFile> {
    let writable = access == DiskAccess::ReadWrite;
    let options = StorageOpenOptions::new().filename(path).write(writable);
    HostFile::from_open_file(opened.file, options)
}

impl Qcow2Image {
    pub(crate) fn new(layer: Layer, writable: DiskAccess, path: &Path) -> Result<Self, ImageError> {
        let Layer { access, file, granule } = layer;
        let no = |source| ImageError::Read { path: path.to_owned(), source };
        let seen = AtomicU64::new(file.metadata().map_err(no)?.len());
        let sectors = access.size() / SECTOR;
        Ok(Self { access: RwLock::new(access), sectors, granule, writable, file, seen })
    }

    fn shared(&self) -> RwLockReadGuard<'_, Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Access> {
        self.access.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the host the space of the range's whole clusters, as far as only this disk uses them:
    /// they read as zeros. Before they are freed, for whoever gets them then may fill them at once.
    fn give_back(&self, access: &Access, offset: u64, bytes: u64) -> io::Result<()> {
        let cluster = u64::from(self.granule);
        let (mut at, end) = (offset.next_multiple_of(cluster), offset + bytes);
        let end = end - end % cluster;
        while at < end {
            let (mapping, len) = access.get_shallow_mapping(at, end - at)?;
            if len == 0 {
                break;
            }
            if let ShallowMapping::Raw { offset: there, writable: true, .. } = mapping {
                space::punch(&self.file, there, len)?;
            }
            at += len;
        }
        Ok(())
    }

    /// That nobody has cut the file short: what is gone would read as zeros.
    fn whole(&self) -> io::Result<()> {
        let bytes = self.file.metadata()?.len();
        if bytes < self.seen.fetch_max(bytes, Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut short"));
        }
        Ok(())
    }
}

impl Storage for Qcow2Image {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn granule(&self) -> u32 {
        self.granule
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.whole()?;
        self.shared().read(into, offset)
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.whole()?;
        self.shared().write(from, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared().sync()
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.whole()?;
        let mut access = self.alone();
        self.give_back(&access, offset, bytes)?;
        match access.discard_to_any(offset, bytes) {
            // Version 2 has no clusters of zeros.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            done => done,
        }
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, space: Space) -> io::Result<()> {
        self.whole()?;
        let done = match space {
            Space::GiveBack => {
                let mut access = self.alone();
                self.give_back(&access, offset, bytes)?;
                access.discard_to_zero(offset, bytes)
            }
            Space::Keep => self.shared().write_zeroes(offset, bytes),
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let access = self.shared();
                space::zero(offset, bytes, |zeros, at| access.write(zeros, at))
            }
            done => done,
        }
    }

    fn settle(&self) -> io::Result<()> {
        match self.writable {
            DiskAccess::ReadOnly => Ok(()),
            DiskAccess::ReadWrite => {
                self.whole()?;
                self.shared().flush()
            }
        }
    }
}
