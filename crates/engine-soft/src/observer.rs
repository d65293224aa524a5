//! What the MMU reports to those who keep account of guest memory: the cache of decoded code, and a
//! recorder of a run that is to be undone.
//!
//! The MMU is generic over both: the calls cost no dispatch, and it depends on neither.
//! A TLB hit reports nothing.

use memory::GuestRam;
use x86::bus::AccessKind;

/// Decoded code, by the guest-physical addresses that it was decoded from.
pub(crate) trait CodeCache {
    /// Whether any decoded code lies on the page of `gpa`, or is about to.
    fn is_code_page(&self, gpa: u64) -> bool;
    /// The page of `gpa` is about to get decoded code: it counts as a code page from now on.
    fn open_page(&mut self, gpa: u64);
    /// Whether decoded code lies in the granules of `len` bytes at `gpa`, within one page.
    fn holds(&self, gpa: u64, len: u64) -> bool;
    /// `len` bytes at `gpa`, within one page, have changed.
    fn written(&mut self, gpa: u64, len: u64);
    /// `len` bytes at `gpa` have changed, on any number of pages.
    fn written_pages(&mut self, gpa: u64, len: u64);
    /// All of memory may have changed.
    fn flush(&mut self);
    /// Pages that have lost their last code since this list was emptied.
    fn released(&mut self) -> &mut Vec<u64>;
}

/// A recorder of what the MMU does, for a run that is to be undone.
pub(crate) trait Recorder {
    /// Whether anything is recorded now.
    fn is_recording(&self) -> bool;
    /// The page tables are asked for `la`.
    fn walked(&mut self, la: u64);
    /// The walk for `la` from `cr3` may have marked its entries accessed or dirty.
    fn marked(&mut self, ram: &GuestRam, cr3: u64, la: u64);
    /// An access of `kind` at `la` reached `gpa` in RAM, and goes no further than its page.
    fn reached(&mut self, ram: &GuestRam, la: u64, gpa: u64, kind: AccessKind);
    /// What is about to happen cannot be undone. True if it must not happen.
    fn forbids(&mut self) -> bool;
}
