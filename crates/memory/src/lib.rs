//! Guest-physical memory: regions and the holes between them.
//!
//! [`GuestRam`] owns the host mapping (vm-memory's) and hands out checked access to devices and loaders, and raw
//! host pointers to engines, whose generated loads and stores cannot go through a checked call. Guest memory
//! is shared with other virtual processors and with devices: it is only ever touched by volatile or atomic
//! accesses, never through a Rust reference.

mod access;
mod dma;
mod huge;

pub use dma::{DmaOverrun, DmaWrite};

use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion};

/// One contiguous piece of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address of its first byte, page aligned.
    pub gpa: u64,
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// Host virtual address of its first byte.
    host: usize,
}

/// Why guest memory could not be set up or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refused.
    #[error("cannot reserve {} MiB of guest memory: {source}; try a smaller --memory", bytes.div_ceil(1 << 20))]
    Reserve {
        /// How much was asked for.
        bytes: u64,
        /// Why.
        source: vm_memory::mmap::FromRangesError,
    },
    /// Outside RAM.
    #[error("guest-physical range {gpa:#x}..+{len:#x} is not (all) RAM")]
    OutsideRam {
        /// First byte.
        gpa: u64,
        /// Bytes.
        len: u64,
    },
}

/// A machine's RAM. Cloning shares it.
#[derive(Clone, Debug)]
pub struct GuestRam {
    map: GuestMemoryMmap<()>,
    regions: Arc<[Region]>,
    dma: Arc<dma::DmaLog>,
}

impl GuestRam {
    /// Maps zeroed memory for each `(gpa, bytes)`; ranges are page aligned, ascending and disjoint.
    ///
    /// # Errors
    /// The host has not enough address space or memory.
    pub fn new(ranges: &[(u64, u64)]) -> Result<Self, Error> {
        let bytes = ranges.iter().map(|r| r.1).sum();
        let wanted: Vec<_> =
            ranges.iter().map(|&(gpa, len)| (GuestAddress(gpa), len as usize)).collect();
        let map = GuestMemoryMmap::from_ranges(&wanted)
            .map_err(|source| Error::Reserve { bytes, source })?;
        huge::advise(&map);
        let regions = map
            .iter()
            .map(|r| Region {
                gpa: r.start_addr().0,
                len: r.len(),
                host: map.get_host_address(r.start_addr()).map_or(0, |p| p as usize),
            })
            .collect();
        Ok(Self { map, regions, dma: Arc::default() })
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
    pub fn host_address(&self, gpa: u64, len: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|r| {
            let offset = gpa.wrapping_sub(r.gpa);
            (offset < r.len && len <= r.len - offset).then(|| (r.host + offset as usize) as *mut u8)
        })
    }

    /// Copies from guest memory.
    ///
    /// # Errors
    /// The range is not all RAM.
    pub fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), Error> {
        let len = into.len() as u64;
        self.map.read_slice(into, GuestAddress(gpa)).map_err(|_| Error::OutsideRam { gpa, len })
    }

    /// Copies to guest memory.
    ///
    /// # Errors
    /// The range is not all RAM; nothing or a part may have been written.
    pub fn write(&self, gpa: u64, from: &[u8]) -> Result<(), Error> {
        let len = from.len() as u64;
        self.map.write_slice(from, GuestAddress(gpa)).map_err(|_| Error::OutsideRam { gpa, len })
    }
}
