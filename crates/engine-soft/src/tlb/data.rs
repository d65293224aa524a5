//! The data entries of a view, which loads, stores and translated code look at.

use super::extent::PAGE_MASK;
use crate::observer::Rights;

/// Entries of a view; a power of two.
pub(crate) const ENTRIES: usize = 32768;

/// One data translation.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Entry {
    /// The page's linear address if reads may proceed.
    pub(crate) rtag: u64,
    /// The page's linear address if writes may proceed.
    pub(crate) wtag: u64,
    /// The page's host address.
    pub(super) host: u64,
    /// What leads from a linear address on the page to its host address.
    pub(super) addend: u64,
}

impl Entry {
    /// Where [`Entry::host`] is, for translated code.
    pub(crate) const HOST: usize = std::mem::offset_of!(Self, host);
    /// Where [`Entry::addend`] is, for translated code.
    pub(crate) const ADDEND: usize = std::mem::offset_of!(Self, addend);

    /// One that allows nothing, for the place `i`.
    pub(crate) const fn vacant(i: usize) -> Self {
        let tag = no_page(i);
        Self { rtag: tag, wtag: tag, host: 0, addend: 0 }
    }

    /// The page that accesses at place `i` may hit, and which accesses; `None`: there is none.
    pub(crate) fn held(&self, i: usize) -> Option<(u64, Rights)> {
        let (read, write) = (index(self.rtag) == i, index(self.wtag) == i);
        let page = if read { self.rtag } else { self.wtag };
        (read || write).then_some((page, Rights { read, write, execute: false }))
    }

    /// Allows nothing any more, at place `i`; tells `lost` what it allowed.
    pub(crate) fn vacate(&mut self, i: usize, lost: &mut impl FnMut(u64, Rights)) {
        if let Some((page, rights)) = self.held(i) {
            lost(page, rights);
        }
        *self = Self::vacant(i);
    }

    /// Allows no writes any more, at place `i`; tells `lost` if it did.
    pub(crate) fn forbid_writes(&mut self, i: usize, lost: &mut impl FnMut(u64, Rights)) {
        if index(self.wtag) == i {
            lost(self.wtag, Rights::WRITE);
        }
        self.wtag = no_page(i);
    }

    /// The host address of `la`, which lies on the page.
    #[inline(always)]
    pub(crate) const fn at(&self, la: u64) -> u64 {
        self.host + (la & PAGE_MASK)
    }
}

/// What a data translation leads to: the page's guest-physical address; bit 0: global.
#[derive(Clone, Copy)]
pub(crate) struct Page(pub(crate) u64);

impl Page {
    /// Its guest-physical address.
    pub(crate) const fn gpa(self) -> u64 {
        self.0 & !PAGE_MASK
    }

    pub(crate) const fn global(self) -> bool {
        self.0 & 1 != 0
    }
}

/// A page that neither what begins at place `i` of a view lies on nor what follows it: no access
/// there has it as its first or last.
///
/// It is page 0 wherever that will do, so that memory of zeros is a view that allows nothing. An
/// access has page 0 as its first at place 0, and as its last also at the last place, where it
/// begins just below 2^64 and wraps.
pub(crate) const fn no_page(i: usize) -> u64 {
    if zero_allows_nothing(i) { 0 } else { ((ENTRIES / 2) as u64) << 12 }
}

/// Whether an entry of zeros is one that allows nothing, at place `i`.
const fn zero_allows_nothing(i: usize) -> bool {
    i != 0 && i != ENTRIES - 1
}

/// Index of the data entry for linear address `la`.
#[inline(always)]
pub(crate) const fn index(la: u64) -> usize {
    (la >> 12) as usize & (ENTRIES - 1)
}
