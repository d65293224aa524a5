//! The mapping: what backs a machine's RAM, and where a guest-physical address is in it.

use crate::advice;
use crate::attributes::Attributes;
use crate::log::ChangeLog;
use crate::pager::Inner;
use crate::split::SplitWord;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mm::{MapFlags, ProtFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion,
};
use x86::addr::Gpa;

pub(crate) const PAGE: u64 = 0x1000;

/// What a machine's RAM is made of.
#[derive(Debug)]
pub enum Backing {
    /// This process's own memory, which nobody else can map. The host gives it huge pages.
    Anonymous,
    /// An unnamed file in memory ([`GuestRam::descriptor`]), which other processes can map and a
    /// snapshot can be taken from. It has huge pages only where the host allows them for shared
    /// memory.
    Memfd,
    /// A file, the regions one after the other.
    File {
        /// Open for reading, and for writing unless it is private.
        file: File,
        /// Where the first region begins, a multiple of the page size. The file reaches to the end
        /// of the last.
        offset: u64,
        /// Writes go to a copy of this process's own and leave the file as it is.
        private: bool,
    },
}

/// One contiguous piece of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address of its first byte, page aligned.
    pub gpa: Gpa,
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// Host virtual address of its first byte.
    host: usize,
    /// The number of its first page, counted without the holes.
    page: usize,
}

/// Why guest memory could not be set up or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refused.
    #[error("cannot reserve {} MiB of guest memory: {why}; ask for less `memory`",
        bytes.div_ceil(1 << 20))]
    Reserve {
        /// How much was asked for.
        bytes: u64,
        /// Why.
        why: String,
    },
    /// The host refused a file in memory.
    #[error(
        "cannot create {bytes} bytes of shared guest memory (memfd_create, ftruncate, \
         F_ADD_SEALS): {source}; permit these system calls, or back the memory by a \
         file or anonymously"
    )]
    Memfd {
        /// How much was asked for.
        bytes: u64,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be mapped.
    #[error(
        "cannot map {bytes} bytes from offset {offset} of the file that is to back guest memory: \
         {why}; it must reach that far, and be open for reading (and writing unless private)"
    )]
    File {
        /// How much was asked for.
        bytes: u64,
        /// From where.
        offset: u64,
        /// Why.
        why: String,
    },
    /// Outside RAM.
    #[error("guest-physical range {gpa:#x}..+{len:#x} is not (all) RAM")]
    OutsideRam {
        /// First byte.
        gpa: Gpa,
        /// Bytes.
        len: u64,
    },
    /// It must stay where it is.
    #[error("guest-physical page {gpa:#x} is pinned by a device; try again when its I/O is done")]
    Pinned {
        /// The first such page.
        gpa: Gpa,
    },
    /// The swap file has failed.
    #[error("guest memory is lost: {why}")]
    Lost {
        /// How.
        why: String,
    },
    /// There is no place for what leaves memory.
    #[error("cannot create a swap file in {folder}: {why}; name a folder on a disk as `swap`")]
    Swap {
        /// Where it was to be.
        folder: String,
        /// Why.
        why: String,
    },
    /// Memory cannot be kept within the budget.
    #[error("cannot keep {} MiB of guest memory `resident`: {why}", resident >> 20)]
    Pager {
        /// The budget in bytes.
        resident: u64,
        /// Why.
        why: String,
    },
    /// Its contents are elsewhere.
    #[error("guest-physical page {gpa:#x} is absent; have it brought in first")]
    Absent {
        /// The first such page.
        gpa: Gpa,
    },
}

/// What all clones have in common beside the mapping.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) log: ChangeLog,
    /// Writes by devices since the machine was made.
    pub(crate) writes: AtomicU64,
    /// How many pages are absent.
    pub(crate) absent: AtomicU64,
    pub(crate) pager: OnceLock<Arc<Inner>>,
    pub(crate) split: SplitWord,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("log", &self.log).finish_non_exhaustive()
    }
}

/// A machine's RAM. Cloning shares it.
#[derive(Clone, Debug)]
pub struct GuestRam {
    // Dropped before the mapping: a pager guards that.
    pub(crate) shared: Arc<Shared>,
    map: GuestMemoryMmap<()>,
    regions: Arc<[Region]>,
    file: Option<Arc<File>>,
    attributes: Arc<Attributes>,
}

/// A page of RAM, as an engine enters it into a TLB.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Where the host has it. Shared memory: volatile or atomic accesses only.
    pub host: *mut u8,
    /// Its attributes at this moment.
    pub attributes: u8,
    /// Its number, counted without the holes.
    pub(crate) number: usize,
}

impl Region {
    /// The number of its first page, counted without the holes.
    pub(crate) fn first_page(&self) -> usize {
        self.page
    }

    /// Where the host has it: the address of its first byte, and its bytes.
    pub(crate) fn host_range(&self) -> (usize, usize) {
        (self.host, self.len as usize)
    }
}

impl GuestRam {
    /// Anonymous memory: [`GuestRam::create`] with [`Backing::Anonymous`].
    ///
    /// # Errors
    /// The host has not enough address space or memory.
    pub fn new(ranges: &[(Gpa, u64)]) -> Result<Self, Error> {
        Self::create(Backing::Anonymous, ranges)
    }

    /// Maps memory for each `(gpa, bytes)`; ranges are page aligned, ascending and disjoint. What
    /// is no file is zeroed.
    ///
    /// # Errors
    /// The host has not enough address space or memory, or denies the file.
    pub fn create(backing: Backing, ranges: &[(Gpa, u64)]) -> Result<Self, Error> {
        let bytes = ranges.iter().map(|r| r.1).sum();
        let backing = match backing {
            Backing::Memfd => {
                let file = memfd(bytes).map_err(|source| Error::Memfd { bytes, source })?;
                Backing::File { file, offset: 0, private: false }
            }
            other => other,
        };
        let map = map(&backing, ranges, bytes)?;
        advice::advise(&map);
        let mut page = 0;
        let regions: Arc<[Region]> = map
            .iter()
            .map(|r| {
                let host = map.get_host_address(r.start_addr()).map_or(0, |p| p as usize);
                let region = Region { gpa: Gpa(r.start_addr().0), len: r.len(), host, page };
                page += (r.len() / PAGE) as usize;
                region
            })
            .collect();
        let file = match backing {
            Backing::File { file, .. } => Some(Arc::new(file)),
            _ => None,
        };
        let attributes = Arc::new(Attributes::new(page));
        Ok(Self { shared: Arc::default(), map, regions, file, attributes })
    }

    /// The file that backs the memory, for other processes to map; the regions lie in it one after
    /// the other.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_deref().map(AsFd::as_fd)
    }

    /// vm-memory's view, for rust-vmm crates.
    pub fn mmap(&self) -> &GuestMemoryMmap<()> {
        &self.map
    }

    /// The regions in ascending order.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Bytes of RAM in all regions.
    pub fn size(&self) -> u64 {
        self.regions.iter().map(|r| r.len).sum()
    }

    /// The host address of guest-physical `gpa` if `len` bytes from there lie in one region.
    ///
    /// The memory behind it is shared: use volatile or atomic accesses only.
    #[inline]
    pub fn host_address(&self, gpa: Gpa, len: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|r| {
            let offset = gpa.wrapping_distance(r.gpa);
            (offset < r.len && len <= r.len - offset).then(|| (r.host + offset as usize) as *mut u8)
        })
    }

    /// The page of `gpa`, if it is RAM.
    #[inline]
    pub fn page(&self, gpa: Gpa) -> Option<Page> {
        self.regions.iter().find_map(|r| {
            let offset = gpa.wrapping_distance(r.gpa) & !(PAGE - 1);
            (gpa >= r.gpa && offset < r.len).then(|| {
                let number = r.page + (offset / PAGE) as usize;
                let host = (r.host + offset as usize) as *mut u8;
                Page { host, attributes: self.attributes.get(number), number }
            })
        })
    }

    /// The number of the page of `gpa`, counted without the holes.
    #[inline]
    pub(crate) fn page_number(&self, gpa: Gpa) -> Option<usize> {
        self.regions.iter().find_map(|r| {
            let offset = gpa.wrapping_distance(r.gpa);
            (offset < r.len).then(|| r.page + (offset / PAGE) as usize)
        })
    }

    /// The guest-physical address of page `number`.
    pub(crate) fn page_address(&self, number: usize) -> Option<Gpa> {
        self.regions.iter().find_map(|r| {
            let offset = (number as u64).checked_sub(r.page as u64)? * PAGE;
            (offset < r.len).then(|| r.gpa.wrapping_add(offset))
        })
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    pub(crate) fn log(&self) -> &ChangeLog {
        &self.shared.log
    }

    /// Copies from guest memory.
    ///
    /// # Errors
    /// The range is not all RAM, or its contents are lost.
    pub fn read(&self, gpa: Gpa, into: &mut [u8]) -> Result<(), Error> {
        let len = into.len() as u64;
        let outside = |_| Error::OutsideRam { gpa, len };
        if self.shared.pager.get().is_none() {
            return self.map.read_slice(into, GuestAddress(gpa.0)).map_err(outside);
        }
        self.note(self.pages(gpa, len));
        self.map.read_slice(into, GuestAddress(gpa.0)).map_err(outside)?;
        // After the copy: what was lost meanwhile must not get out.
        self.lost().map_or(Ok(()), |why| Err(Error::Lost { why: why.into() }))
    }

    /// Copies to guest memory. Where a processor may already hold something of it,
    /// [`GuestRam::wrote`] has to follow.
    ///
    /// # Errors
    /// The range is not all RAM; nothing or a part may have been written.
    pub fn write(&self, gpa: Gpa, from: &[u8]) -> Result<(), Error> {
        let len = from.len() as u64;
        // A page that is being written to does not pass for a page of zeros.
        let _hold = self.shared.pager.get().map(|_| self.hold(gpa, len)).transpose()?;
        self.map.write_slice(from, GuestAddress(gpa.0)).map_err(|_| Error::OutsideRam { gpa, len })
    }
}

/// A file in memory of this size, sealed: no process that maps it can resize it.
fn memfd(bytes: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("guest-ram", flags)?);
    file.set_len(bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// Maps all ranges.
fn map(backing: &Backing, ranges: &[(Gpa, u64)], bytes: u64) -> Result<GuestMemoryMmap<()>, Error> {
    let refused = |why: String| Error::Reserve { bytes, why };
    let mut before = 0;
    let mut regions = Vec::new();
    for &(gpa, len) in ranges {
        let region = map_one(backing, before, len as usize, bytes)?;
        let overflow = || refused(format!("{gpa:#x} + {len:#x} is no address"));
        regions.push(GuestRegionMmap::new(region, GuestAddress(gpa.0)).ok_or_else(overflow)?);
        before += len;
    }
    GuestMemoryMmap::from_regions(regions).map_err(|error| refused(error.to_string()))
}

/// Maps the region of `len` bytes that has `before` bytes of others before it.
fn map_one(
    backing: &Backing,
    before: u64,
    len: usize,
    bytes: u64,
) -> Result<MmapRegion<()>, Error> {
    let Backing::File { file, offset, private } = backing else {
        return MmapRegion::new(len)
            .map_err(|error| Error::Reserve { bytes, why: error.to_string() });
    };
    let at = offset + before;
    let refused = |why: String| Error::File { bytes: len as u64, offset: at, why };
    let about = file.metadata().map_err(|error| refused(error.to_string()))?;
    if about.is_file() && about.len() < at.saturating_add(len as u64) {
        // An access beyond its end would be a SIGBUS.
        return Err(refused(format!("it has {} bytes", about.len())));
    }
    let file = file.try_clone().map_err(|error| refused(error.to_string()))?;
    let kind = if *private { MapFlags::PRIVATE } else { MapFlags::SHARED };
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    MmapRegion::build(
        Some(FileOffset::new(file, at)),
        len,
        rights.bits() as i32,
        (kind | MapFlags::NORESERVE).bits() as i32,
    )
    .map_err(|error| refused(error.to_string()))
}
