//! The instruction entries of a view.

use super::extent::PAGE_MASK;
use crate::observer::Rights;

/// Entries of a view's instruction part.
pub(crate) const FETCH_ENTRIES: usize = 512;

/// Never equals a page's address.
pub(crate) const NO_PAGE: u64 = u64::MAX;

/// One instruction-page translation.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct FetchEntry {
    /// The page's linear address.
    pub(crate) tag: u64,
    /// The page's guest-physical address.
    pub(crate) gpa: u64,
    pub(crate) global: bool,
    /// Bytes in the page that it is a piece of.
    pub(crate) size: u64,
}

impl FetchEntry {
    /// The page that fetches at place `i` may hit; `None`: there is none.
    pub(crate) fn held(&self, i: usize) -> Option<u64> {
        (self.tag & PAGE_MASK == 0 && fetch_index(self.tag) == i).then_some(self.tag)
    }

    /// Holds nothing any more, at place `i`; tells `lost` what it held.
    pub(crate) fn vacate(&mut self, i: usize, lost: &mut impl FnMut(u64, Rights)) {
        if let Some(page) = self.held(i) {
            lost(page, Rights::EXECUTE);
        }
        *self = NO_FETCH;
    }
}

/// One that holds nothing. Zeros do, too, but at place 0, which page 0 has.
pub(crate) const NO_FETCH: FetchEntry = FetchEntry { tag: NO_PAGE, gpa: 0, global: false, size: 0 };

/// Index of the instruction entry for linear address `la`.
#[inline(always)]
pub(crate) const fn fetch_index(la: u64) -> usize {
    (la >> 12) as usize & (FETCH_ENTRIES - 1)
}
