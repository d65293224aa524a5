//! A value in pages of its own, which come from the host zeroed, each when it is first touched: a
//! large table of which little is used costs little.
#![allow(unsafe_code)] // Reason: mmap, and a reference to what it gives.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// See the module. It may be moved to another thread if its value may.
pub(crate) struct Zeroed<T> {
    place: NonNull<T>,
    value: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone, and is tied to no thread.
unsafe impl<T: Send> Send for Zeroed<T> {}

impl<T: Copy> Zeroed<T> {
    /// A value whose bytes are all zero.
    ///
    /// # Errors
    /// The host has no address space left.
    ///
    /// # Safety
    /// Bytes that are all zero are a value of `T`.
    pub(crate) unsafe fn new() -> io::Result<Self> {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 4096) };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object.
        let place =
            unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0) };
        match NonNull::new(place.cast::<T>()) {
            Some(at) if place != libc::MAP_FAILED => Ok(Self { place: at, value: PhantomData }),
            _ => Err(refused(size_of::<T>(), &io::Error::last_os_error())),
        }
    }
}

fn refused(size: usize, error: &io::Error) -> io::Error {
    let kib = size >> 10;
    io::Error::other(format!(
        "no {kib} KiB of address space for its tables: {error}; raise the limit (ulimit -v)"
    ))
}

impl<T> Deref for Zeroed<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the mapping is of `T`'s size, aligned to pages, and lives as long as `self`; its
        // bytes were a `T` at first (`new`'s contract), and only `deref_mut` changes them.
        unsafe { self.place.as_ref() }
    }
}

impl<T> DerefMut for Zeroed<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the mapping is of `T`'s size and holds a `T` as long as `self` lives, which is
        // borrowed exclusively.
        unsafe { self.place.as_mut() }
    }
}

impl<T> Drop for Zeroed<T> {
    fn drop(&mut self) {
        // SAFETY: `new` mapped this range with this length, and nothing refers to it any more. The
        // value is `Copy`, and so has nothing to drop.
        unsafe { libc::munmap(self.place.as_ptr().cast(), size_of::<T>()) };
    }
}

/// How many of the pages that `value` lies on are its process's own, and not the one page of zeros
/// that the host shows where memory was only read.
#[cfg(test)]
pub(crate) fn own_pages<T>(value: &T) -> usize {
    use std::os::unix::fs::FileExt as _;
    /// The page is mapped once (the kernel's documentation, mm/pagemap).
    const EXCLUSIVE: u64 = 1 << 56;
    let first = ptr::from_ref(value) as u64 / 4096;
    let mut words = vec![[0; 8]; size_of::<T>().div_ceil(4096)];
    let pagemap = std::fs::File::open("/proc/self/pagemap").expect("Linux");
    pagemap.read_exact_at(words.as_flattened_mut(), 8 * first).expect("a word a page");
    words.iter().filter(|&&word| u64::from_le_bytes(word) & EXCLUSIVE != 0).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_is_in_memory() {
        // SAFETY: an integer may be zero, and so may an array of them.
        let mut table: Zeroed<[u64; 1 << 17]> = unsafe { Zeroed::new() }.expect("room");
        assert_eq!(own_pages(&*table), 0);
        table[0x1000] = 5;
        table[0x1001] = 6;
        assert_eq!(table.iter().sum::<u64>(), 11, "the rest is zero");
        assert_eq!(own_pages(&*table), 1);
    }

    #[test]
    fn what_the_host_has_no_room_for_is_told() {
        // SAFETY: an integer may be zero, and so may an array of them.
        let Err(error) = (unsafe { Zeroed::<[u64; 1 << 50]>::new() }) else { panic!("room?") };
        assert!(error.to_string().contains("ulimit -v"), "{error}");
    }
}
