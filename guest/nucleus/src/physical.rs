//! Physical memory as the nucleus sees it: all of it at once, by the direct map in the upper half.
//!
//! This is the one place where a physical address becomes a pointer. The nucleus never uses a
//! user's virtual address as a pointer: it walks the user's tables itself and comes here (so SMAP
//! can stay on for good).

use core::ptr;

/// Where the direct map begins.
pub const DIRECT_MAP: u64 = 0xFFFF_8000_0000_0000;
/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// A page-sized piece of physical memory, by its physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame(pub u64);

impl Frame {
    /// The frame that holds `address`.
    pub const fn of(address: u64) -> Self {
        Self(address & 0x000F_FFFF_FFFF_F000)
    }

    pub fn zero(self) {
        // SAFETY: a frame is a whole page of the direct map, and whoever holds a Frame owns the
        // memory in it.
        unsafe { ptr::write_bytes(pointer(self.0), 0, PAGE as usize) };
    }

    pub fn copy_from(self, other: Self) {
        // SAFETY: both frames are whole pages of the direct map that their holders own, and they
        // differ.
        unsafe { ptr::copy_nonoverlapping(pointer(other.0), pointer(self.0), PAGE as usize) };
    }

    /// Copies `bytes` into the frame at `offset`.
    pub fn write(self, offset: u64, bytes: &[u8]) {
        assert!(offset as usize + bytes.len() <= PAGE as usize);
        // SAFETY: the assertion keeps the range inside the frame, which the holder of a `Frame`
        // owns.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(self.0 + offset), bytes.len()) };
    }

    /// Copies from the frame at `offset` into `bytes`.
    pub fn read(self, offset: u64, bytes: &mut [u8]) {
        assert!(offset as usize + bytes.len() <= PAGE as usize);
        // SAFETY: the assertion keeps the range inside the frame, which the holder of a `Frame`
        // owns.
        unsafe {
            ptr::copy_nonoverlapping(pointer(self.0 + offset), bytes.as_mut_ptr(), bytes.len());
        };
    }
}

fn pointer(address: u64) -> *mut u8 {
    (DIRECT_MAP + address) as *mut u8
}

macro_rules! access {
    ($get:ident, $set:ident, $type:ty) => {
        /// Reads memory or a device's register at a physical address, which must be a multiple of
        /// its size.
        pub fn $get(address: u64) -> $type {
            // SAFETY: the direct map covers the first 4 GiB and all memory; volatile, as a device
            // may be there.
            unsafe { pointer(address).cast::<$type>().read_volatile() }
        }

        /// Writes memory or a device's register at a physical address, which must be a multiple of
        /// its size.
        pub fn $set(address: u64, value: $type) {
            // SAFETY: as for reading; callers write only to frames and devices that are theirs.
            unsafe { pointer(address).cast::<$type>().write_volatile(value) };
        }
    };
}
access!(get8, set8, u8);
access!(get16, set16, u16);
access!(get32, set32, u32);
access!(get64, set64, u64);

/// A byte-wise copy of physical memory, for what boot loader and firmware left there.
pub fn bytes(address: u64, length: usize) -> alloc::vec::Vec<u8> {
    (address..).take(length).map(get8).collect()
}

/// A structure in memory's little-endian bytes.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// The same, 8 bytes.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}
