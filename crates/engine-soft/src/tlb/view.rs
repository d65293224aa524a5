//! A view: the translations usable at one privilege in one address space.
//!
//! What drops some of them tells `lost` of each page and right.

use super::data::{ENTRIES, Entry, Page, index};
use super::extent::{Extent, LARGE, Large, PAGE_MASK};
use super::fetch::{FETCH_ENTRIES, FetchEntry, NO_FETCH, fetch_index};
use super::filled::Filled;
use crate::observer::Rights;
use crate::translate::targets::Targets;

/// See the module.
pub(crate) struct View {
    pub(crate) data: Box<[Entry; ENTRIES]>,
    /// Of the entry at each place.
    pub(crate) pages: Box<[Page; ENTRIES]>,
    pub(crate) fetch: Box<[FetchEntry; FETCH_ENTRIES]>,
    /// What was filled since the last flush, so that a flush need not touch the whole view.
    pub(crate) filled: Filled<{ ENTRIES / 64 }>,
    pub(crate) fetch_filled: Filled<{ FETCH_ENTRIES / 64 }>,
    pub(crate) targets: Targets,
    pub(crate) large: Large,
    /// Holds nothing at all.
    pub(crate) blank: bool,
    /// May hold global translations.
    pub(crate) global: bool,
}

impl View {
    pub(crate) fn new() -> Self {
        Self {
            data: Box::new(std::array::from_fn(Entry::vacant)),
            pages: Box::new([Page(0); ENTRIES]),
            fetch: Box::new([NO_FETCH; FETCH_ENTRIES]),
            filled: Filled::NONE,
            fetch_filled: Filled::NONE,
            targets: Targets::new(),
            large: Large::new(),
            blank: true,
            global: false,
        }
    }

    pub(crate) fn note(&mut self, page: u64, size: u64, global: bool) {
        self.large.note(page, size);
        self.blank = false;
        self.global |= global;
    }

    pub(crate) fn flush(&mut self, lost: &mut impl FnMut(u64, Rights)) {
        if self.blank {
            return;
        }
        self.targets.clear();
        self.filled.each(0..ENTRIES / 64, |i| self.data[i].vacate(i, lost));
        self.fetch_filled.each(0..FETCH_ENTRIES / 64, |i| self.fetch[i].vacate(i, lost));
        self.filled = Filled::NONE;
        self.fetch_filled = Filled::NONE;
        self.large.clear();
        self.blank = true;
        self.global = false;
    }

    pub(crate) fn flush_non_global(&mut self, lost: &mut impl FnMut(u64, Rights)) {
        if !self.global {
            return self.flush(lost);
        }
        if self.targets.local {
            self.targets.clear();
        }
        self.filled.take_local(|i| {
            if !self.pages[i].global() {
                self.data[i].vacate(i, lost);
            }
        });
        self.fetch_filled.take_local(|i| {
            let entry = &mut self.fetch[i];
            if !entry.global {
                entry.vacate(i, lost);
            }
        });
    }

    pub(crate) fn flush_page(&mut self, la: u64, lost: &mut impl FnMut(u64, Rights)) {
        if self.blank {
            return;
        }
        self.targets.clear_page(la);
        match self.large.around(la) {
            Extent::Page => self.flush_small(la, lost),
            Extent::Region => self.flush_region(la, lost),
            Extent::Everything => self.flush(lost),
        }
    }

    pub(crate) fn flush_small(&mut self, la: u64, lost: &mut impl FnMut(u64, Rights)) {
        let page = la & !PAGE_MASK;
        let entry = &mut self.data[index(la)];
        if entry.rtag == page || entry.wtag == page {
            entry.vacate(index(la), lost);
        }
        let entry = &mut self.fetch[fetch_index(la)];
        if entry.tag == page {
            entry.vacate(fetch_index(la), lost);
        }
    }

    /// Drops all pieces of the region of `1 << LARGE` bytes around `la`.
    pub(crate) fn flush_region(&mut self, la: u64, lost: &mut impl FnMut(u64, Rights)) {
        let same = |tag: u64| tag >> LARGE == la >> LARGE;
        let start = la >> LARGE << LARGE;
        let words = (1 << (LARGE - 12)) / 64;
        let first = index(start) / 64;
        self.filled.each(first..(first + words).min(ENTRIES / 64), |i| {
            let entry = &mut self.data[i];
            if same(entry.rtag) || same(entry.wtag) {
                entry.vacate(i, lost);
            }
        });
        self.fetch_filled.each(0..FETCH_ENTRIES / 64, |i| {
            if same(self.fetch[i].tag) {
                self.fetch[i].vacate(i, lost);
            }
        });
    }
}
