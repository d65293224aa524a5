//! What the host is told of guest memory.
#![allow(unsafe_code)] // Reason: madvise on the mapping that `GuestRam` has just made.

use rustix::mm::{Advice, madvise};
use vm_memory::{GuestMemoryMmap, GuestMemoryRegion};

/// Bytes of memory from which on huge pages are asked for. In a smaller guest, the bytes of a huge
/// page that it does not use weigh more than the host's TLB misses.
const LARGE: u64 = 128 << 20;

/// Asks the host to back `map` by huge pages as it is touched, if the guest is large (its accesses
/// then miss the host's TLB less often), and to leave it out of core dumps: what a guest has in
/// memory is its own. Where the host does not, all stays as it is.
pub(crate) fn advise(map: &GuestMemoryMmap<()>) {
    let regions = || vm_memory::GuestMemoryBackend::iter(map);
    let large = regions().map(GuestMemoryRegion::len).sum::<u64>() >= LARGE;
    let huge = large.then_some(Advice::LinuxHugepage);
    for region in regions() {
        for advice in huge.into_iter().chain([Advice::LinuxDontDump]) {
            // SAFETY: the region's own mapping, whole; the advice changes neither its contents nor
            // its protection.
            let _ = unsafe { madvise(region.as_ptr().cast(), region.len() as usize, advice) };
        }
    }
}
