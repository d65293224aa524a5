//! The process's heap: one for all threads, on huge pages as it becomes large. A machine that runs
//! much code has some hundred MiB of decoded blocks and translations: each huge page is one page
//! fault instead of 512, and one entry of the host's TLB.
#![allow(unsafe_code)] // Reason: mallopt(3), sbrk(2) and madvise(2).

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;
/// By how many bytes the heap grows. More brings more of it on huge pages, and more of it into
/// memory.
const STEP: i32 = 4 << 20;
/// Bytes of a block from which on it has a mapping of its own: zeros come from the host then.
const OWN_MAPPING: i32 = 512 << 10;
/// Bytes at the heap's beginning for which no huge pages are asked: most processes need no more.
const SMALL: usize = 32 << 20;

/// The end of what is known of the heap.
static SEEN: AtomicUsize = AtomicUsize::new(usize::MAX);

/// How much of a block is going to be used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    All,
    /// It is zeros: a table of which little may ever be touched.
    Little,
}

/// Has glibc allocate from one heap. It would have one for each thread, and reserve 128 MiB of
/// address space for it, which a limited process has not got. For threads that are started from now
/// on.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TOP_PAD, STEP),
        (libc::M_MMAP_THRESHOLD, OWN_MAPPING),
        (libc::M_TRIM_THRESHOLD, 2 * STEP),
    ] {
        // SAFETY: glibc stores one word under its own lock; a thread that reads it meanwhile sees
        // the old value or the new one.
        unsafe { libc::mallopt(parameter, value) };
    }
    SEEN.store(end() + SMALL, Ordering::Relaxed);
}

/// A block of `size` bytes at `start` is about to be handed out.
#[inline]
pub(crate) fn look(start: usize, size: usize, used: Use) {
    if start + size > SEEN.load(Ordering::Relaxed) {
        beyond(start, size, used);
    }
}

/// The block lies beyond what is known of the heap. Asks the host for huge pages there, before
/// anything is touched. Where the host has none, all stays as it is.
#[cold]
fn beyond(start: usize, size: usize, used: Use) {
    let (from, to) = match end() {
        end if start < end => (SEEN.fetch_max(end, Ordering::Relaxed), end),
        _ if used == Use::All && size >= HUGE_PAGE => (start, start + size),
        _ => return,
    };
    let (from, to) = (from.next_multiple_of(PAGE), to & !(PAGE - 1));
    if from < to {
        let place = ptr::without_provenance_mut(from);
        // SAFETY: the range lies in the heap, or in a block that is being handed out; the advice
        // changes neither contents nor protection.
        unsafe { libc::madvise(place, to - from, libc::MADV_HUGEPAGE) };
    }
}

/// Where the heap ends at the moment.
fn end() -> usize {
    // SAFETY: an increment of 0 leaves the heap as it is, and sbrk(2) has no other effect.
    unsafe { libc::sbrk(0) }.addr()
}
