//! What the host is told of guest memory.
#![allow(unsafe_code)] // Reason: madvise on the mapping that `GuestRam` has just made.

use rustix::mm::{Advice, madvise};
use vm_memory::{GuestMemoryMmap, GuestMemoryRegion as _};

/// Asks the host to back `map` by huge pages as it is touched (a guest's accesses then miss the
/// host's TLB less often), and to leave it out of core dumps: what a guest has in memory is its
/// own. Where the host does not, all stays as it is.
pub(crate) fn advise(map: &GuestMemoryMmap<()>) {
    for region in vm_memory::GuestMemoryBackend::iter(map) {
        for advice in [Advice::LinuxHugepage, Advice::LinuxDontDump] {
            // SAFETY: the region's own mapping, whole; the advice changes neither its contents nor
            // its protection.
            let _ = unsafe { madvise(region.as_ptr().cast(), region.len() as usize, advice) };
        }
    }
}
