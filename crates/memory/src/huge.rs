//! Asking the host for huge pages: a guest's accesses then miss the host's TLB less often.
#![allow(unsafe_code)] // Reason: madvise on the mapping that `GuestRam` has just made.

use rustix::mm::{Advice, madvise};
use vm_memory::{GuestMemoryMmap, GuestMemoryRegion as _};

/// Advises the host to back `map` by huge pages as it is touched. Where there are none it stays as
/// it is.
pub(crate) fn advise(map: &GuestMemoryMmap<()>) {
    for region in vm_memory::GuestMemoryBackend::iter(map) {
        // SAFETY: the region's own mapping, whole; the advice changes neither its contents nor its
        // protection.
        let _ = unsafe {
            madvise(region.as_ptr().cast(), region.len() as usize, Advice::LinuxHugepage)
        };
    }
}
