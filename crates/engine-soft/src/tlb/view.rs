//! A view: the translations usable at one privilege in one address space.
//!
//! What drops some of them tells `lost` of each page and right.
#![allow(unsafe_code)] // tables of zeros; see docs/UNSAFE.md

use super::data::{ENTRIES, Entry, Page, index};
use super::extent::{Extent, LARGE, Large, PAGE_MASK};
use super::fetch::{FETCH_ENTRIES, FetchEntry, NO_FETCH, fetch_index};
use super::filled::Filled;
use crate::observer::Rights;
use crate::translate::targets::Targets;
use crate::zeroed::Zeroed;
use std::io;

/// See the module.
pub(crate) struct View {
    pub(crate) data: Zeroed<[Entry; ENTRIES]>,
    /// Of the entry at each place.
    pub(crate) pages: Zeroed<[Page; ENTRIES]>,
    pub(crate) fetch: Zeroed<[FetchEntry; FETCH_ENTRIES]>,
    /// What was filled since the last flush, so that a flush need not touch the whole view.
    pub(crate) filled: Filled,
    pub(crate) fetch_filled: Filled,
    pub(crate) targets: Targets,
    pub(crate) large: Large,
    /// Holds nothing at all.
    pub(crate) blank: bool,
    /// May hold global translations.
    pub(crate) global: bool,
}

impl View {
    /// One that holds nothing. Of its tables, no more is touched than an entry of zeros may not
    /// stand in.
    ///
    /// # Errors
    /// The host has no address space left.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: each is an array of structs of integers, and of a bool, for which 0 is false.
        let (mut data, pages, mut fetch): (Zeroed<[Entry; ENTRIES]>, _, Zeroed<[FetchEntry; _]>) =
            unsafe { (Zeroed::new()?, Zeroed::new()?, Zeroed::new()?) };
        for i in [0, ENTRIES - 1] {
            data[i] = Entry::vacant(i);
        }
        fetch[0] = NO_FETCH;
        Ok(Self {
            data,
            pages,
            fetch,
            filled: Filled::none(ENTRIES),
            fetch_filled: Filled::none(FETCH_ENTRIES),
            targets: Targets::new(),
            large: Large::new(),
            blank: true,
            global: false,
        })
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
        self.filled.each(|i| self.data[i].vacate(i, lost));
        self.fetch_filled.each(|i| self.fetch[i].vacate(i, lost));
        self.filled.clear();
        self.fetch_filled.clear();
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
        self.filled.each_of(first..(first + words).min(ENTRIES / 64), |i| {
            let entry = &mut self.data[i];
            if same(entry.rtag) || same(entry.wtag) {
                entry.vacate(i, lost);
            }
        });
        self.fetch_filled.each(|i| {
            if same(self.fetch[i].tag) {
                self.fetch[i].vacate(i, lost);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `view` would serve an access of `size` bytes at `la`, by the two comparisons there
    /// are: `Cpu::load`'s, of the last byte's page, and translated code's, of the first byte's
    /// offset.
    fn serves(view: &View, la: u64, size: u64) -> bool {
        let Entry { rtag, wtag, .. } = view.data[index(la)];
        [rtag, wtag].into_iter().any(|tag| {
            let last = la.wrapping_add(size - 1) & !PAGE_MASK;
            tag == last || la.wrapping_sub(tag) <= PAGE_MASK + 1 - size
        })
    }

    /// The first and the last bytes of pages at every place, in all parts of the address space.
    fn accesses() -> impl Iterator<Item = (u64, u64)> {
        let parts = [0, 1 << 32, 0x7fff_fe00_0000, 0xffff_8000_0000_0000, 0xffff_ffff_fe00_0000];
        let pages =
            parts.into_iter().flat_map(|part| (0..ENTRIES as u64).map(move |n| part | n << 12));
        pages.flat_map(|page| {
            let offsets = [(0, 1), (0x123, 8), (0xff8, 8), (0xff9, 8), (0xfff, 2), (0xfe1, 32)];
            offsets.map(|(offset, size)| (page | offset, size))
        })
    }

    fn serves_anything(view: &View) -> Option<(u64, u64)> {
        let fetches = |la: u64| view.fetch[fetch_index(la)].tag == la & !PAGE_MASK;
        accesses().find(|&(la, size)| serves(view, la, size) || fetches(la))
    }

    #[test]
    fn a_new_view_serves_nothing() {
        let view = View::new().expect("room");
        assert_eq!(serves_anything(&view), None);
    }

    /// What makes a page of zeros a view that serves nothing.
    #[test]
    fn a_vacant_entry_is_zero_but_at_two_places() {
        let vacant = |i| {
            let Entry { rtag, wtag, host, addend } = Entry::vacant(i);
            [rtag, wtag, host, addend] == [0; 4]
        };
        assert!((0..ENTRIES).all(|i| vacant(i) != (i == 0 || i == ENTRIES - 1)));
    }
}
