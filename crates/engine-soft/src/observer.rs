//! What the MMU reports: to the cache of decoded code, to a recorder of a run that is to be undone,
//! and to an observer of the TLB's contents.
//!
//! The MMU is generic over them: the calls cost no dispatch, and it depends on none.
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
pub(crate) trait Recorder: TlbObserver {
    /// Whether anything is recorded now.
    fn is_recording(&self) -> bool;
    /// The walk for `la` from `cr3` may have marked its entries accessed or dirty.
    fn marked(&mut self, ram: &GuestRam, cr3: u64, la: u64);
    /// An access of `kind` at `la` reached `gpa` in RAM, and goes no further than its page.
    fn reached(&mut self, ram: &GuestRam, la: u64, gpa: u64, kind: AccessKind);
    /// What is about to happen cannot be undone. True if it must not happen.
    fn forbids(&mut self) -> bool;
}

/// What accesses to a page may hit its entry in the TLB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Reads of data.
    pub(crate) read: bool,
    /// Writes of data.
    pub(crate) write: bool,
    /// Instruction fetches.
    pub(crate) execute: bool,
}

impl Rights {
    pub(crate) const WRITE: Self = Self { read: false, write: true, execute: false };
    pub(crate) const EXECUTE: Self = Self { read: false, write: false, execute: true };
}

/// A translation of one view of the TLB (see [`crate::tlb`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Which view.
    pub(crate) view: usize,
    /// The page's linear address.
    pub(crate) page: u64,
    pub(crate) rights: Rights,
}

/// An observer of what the TLB holds: a mirror that does what it is told holds the same.
///
/// Each right is told once when it comes and once when it goes, before the next guest instruction.
/// An entry that is replaced goes first, even by one for the same page. What is copied from the TLB
/// (the stack's page of translated code) may be used until [`crate::tlb::Tlb::losses`] changes,
/// which an entry that makes room does not.
pub(crate) trait TlbObserver {
    /// Accesses hit from now on, and reach the guest-physical page `gpa`.
    fn filled(&mut self, _mapping: Mapping, _gpa: u64) {}
    /// Accesses miss from now on.
    fn dropped(&mut self, _mapping: Mapping) {}
}

/// Nobody observes.
impl TlbObserver for () {}
