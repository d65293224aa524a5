//! The software TLB, laid out for an inline check: one difference, one compare and one sum.
//!
//! A *view* is the set of translations usable at one privilege in one address space: one per PCID
//! slot for user accesses, one shared by all address spaces for supervisor accesses (its non-global
//! entries leave at every switch), one for supervisor accesses with SMAP overridden, and one that
//! stays empty, which sends every access to the slow path (alignment checks). A processor that
//! changes privilege changes a pointer, nothing else. See ADR 0003.
//!
//! An entry is tagged with its page's linear address for each kind of access it allows. The index
//! comes from an access's first byte; it hits if neither that nor its last byte lies on another
//! page.

mod data;
pub(crate) mod extent;
pub(crate) mod fetch;
mod filled;
#[cfg(test)]
pub(crate) mod mirror;
mod view;

pub(crate) use data::{ENTRIES, Entry, index};
pub(crate) use extent::PAGE_MASK;
pub(crate) use fetch::{FETCH_ENTRIES, FetchEntry, fetch_index};

use crate::observer::{Mapping, Rights, TlbObserver};
use crate::translate::targets::{ADDRESS, HOST, Targets, target_slot};
use data::{Page, no_page};
use std::io;
use view::View;

/// PCIDs whose translations are kept at the same time.
pub(crate) const SLOTS: usize = 8;
/// View of supervisor accesses.
pub(crate) const SUPERVISOR: usize = SLOTS;
/// View of supervisor accesses that may touch user pages although SMAP is on.
pub(crate) const SUPERVISOR_AC: usize = SLOTS + 1;
/// The view that never holds anything.
pub(crate) const EMPTY: usize = SLOTS + 2;
const VIEWS: usize = SLOTS + 3;

/// What a page walk found, for [`Tlb::fill`].
#[derive(Clone, Copy)]
pub(crate) struct Fill {
    /// Linear address of the page.
    pub(crate) page: u64,
    /// Guest-physical address of the page.
    pub(crate) gpa: u64,
    /// Host address of the page.
    pub(crate) host: u64,
    /// Reads may proceed.
    pub(crate) read: bool,
    /// Writes may proceed: permitted, dirty bit set, no code on the page.
    pub(crate) write: bool,
    /// Valid in every address space.
    pub(crate) global: bool,
    /// Bytes in the page that it is a piece of.
    pub(crate) size: u64,
}

/// All views of one virtual processor.
pub(crate) struct Tlb {
    views: Vec<View>,
    pcids: [Option<u16>; SLOTS],
    victim: usize,
    /// Branches to other pages that translated code may have.
    pub(crate) slots: usize,
    /// The slot of the current PCID.
    pub(crate) slot: usize,
    pub(crate) flushes: u64,
    /// Times that a data translation was taken away or lost rights, other than to make room.
    pub(crate) losses: u64,
}

impl Tlb {
    /// # Errors
    /// The host has no address space left.
    pub(crate) fn new() -> io::Result<Self> {
        let mut pcids = [None; SLOTS];
        pcids[0] = Some(0);
        Ok(Self {
            views: (0..VIEWS).map(|_| View::new()).collect::<io::Result<_>>()?,
            pcids,
            victim: 0,
            slots: 0,
            slot: 0,
            flushes: 0,
            losses: 0,
        })
    }

    pub(crate) fn view(&self, view: usize) -> &View {
        &self.views[view]
    }

    /// Enters a translation for view `n`.
    pub(crate) fn fill(&mut self, n: usize, fill: Fill, observer: &mut impl TlbObserver) {
        if n == EMPTY {
            return;
        }
        let view = &mut self.views[n];
        let i = index(fill.page);
        view.data[i].vacate(i, &mut lost(n, observer));
        view.data[i] = Entry {
            rtag: if fill.read { fill.page } else { no_page(i) },
            wtag: if fill.write { fill.page } else { no_page(i) },
            host: fill.host,
            addend: fill.host.wrapping_sub(fill.page),
        };
        if let Some((page, rights)) = view.data[i].held(i) {
            observer.filled(Mapping { view: n, page, rights }, fill.gpa);
        }
        view.pages[i] = Page(fill.gpa | u64::from(fill.global));
        view.filled.note(i, fill.global);
        view.note(fill.page, fill.size, fill.global);
    }

    /// Enters an instruction translation for view `n`.
    pub(crate) fn fill_fetch(
        &mut self,
        n: usize,
        entry: FetchEntry,
        observer: &mut impl TlbObserver,
    ) {
        if n == EMPTY {
            return;
        }
        let view = &mut self.views[n];
        let FetchEntry { tag: page, gpa, global, size } = entry;
        let i = fetch_index(page);
        view.fetch[i].vacate(i, &mut lost(n, observer));
        view.fetch[i] = entry;
        observer.filled(Mapping { view: n, page, rights: Rights::EXECUTE }, gpa);
        view.fetch_filled.note(i, global);
        view.note(page, size, global);
    }

    /// The table of targets of `view`, and the slots of its branches to other pages, made on first
    /// use.
    #[inline]
    pub(crate) fn branch_tables(&mut self, view: usize) -> (u64, u64) {
        let targets = &mut self.views[view].targets;
        if targets.table.is_empty() {
            targets.make(self.slots);
        }
        (targets.table.as_ptr() as u64, targets.slots.as_ptr() as u64)
    }

    /// Where `la` is in host code, if `view`'s table of targets knows.
    #[inline(always)]
    pub(crate) fn target(&self, view: usize, la: u64) -> Option<u64> {
        let entry = self.views[view].targets.table.get(target_slot(la))?;
        (entry[ADDRESS] == la).then_some(entry[HOST])
    }

    /// Enters a target for `view`, if its code page is in the instruction part. True if it is the
    /// first on that page, as far as is known.
    pub(crate) fn fill_target(&mut self, view: usize, la: u64, host: u64) -> bool {
        let view = &mut self.views[view];
        let entry = view.fetch[fetch_index(la)];
        entry.tag == la & !PAGE_MASK
            && !view.targets.table.is_empty()
            && view.targets.fill(la, host, &entry)
    }

    /// As [`Tlb::fill_target`], for a link from another page, which [`Targets::set_slot`] may make
    /// then. False: it must not be made.
    pub(crate) fn link_target(&mut self, view: usize, la: u64, host: u64) -> bool {
        self.fill_target(view, la, host);
        let targets = &mut self.views[view].targets;
        let known = targets.table.get(target_slot(la)).is_some_and(|entry| *entry == [la, host]);
        if known {
            targets.linked.insert(la & !PAGE_MASK);
        }
        known
    }

    /// What leads translated code of `view` on.
    pub(crate) fn targets(&mut self, view: usize) -> &mut Targets {
        &mut self.views[view].targets
    }

    /// Empties all tables of targets.
    pub(crate) fn forget_targets(&mut self) {
        self.views.iter_mut().for_each(|view| view.targets.clear());
    }

    /// Drops the data translations of `la`, and nothing else: more than that is never needed where
    /// the tables have not changed.
    pub(crate) fn forget(&mut self, la: u64, observer: &mut impl TlbObserver) {
        self.losses += 1;
        for (n, view) in self.used() {
            view.data[index(la)].vacate(index(la), &mut lost(n, observer));
        }
    }

    /// Makes every write to the page at `gpa` take the slow path from now on.
    pub(crate) fn forbid_writes(&mut self, gpa: u64, observer: &mut impl TlbObserver) {
        self.losses += 1;
        for (n, view) in self.used() {
            let lost = &mut lost(n, observer);
            view.filled.each(|i| {
                if view.pages[i].gpa() == gpa {
                    view.data[i].forbid_writes(i, lost);
                }
            });
        }
    }

    /// Makes every write take the slow path once.
    pub(crate) fn forbid_all_writes(&mut self, observer: &mut impl TlbObserver) {
        self.losses += 1;
        for (n, view) in self.used() {
            let lost = &mut lost(n, observer);
            view.filled.each(|i| view.data[i].forbid_writes(i, lost));
        }
    }

    /// Drops every translation to the guest-physical pages that `gone` is true of.
    pub(crate) fn drop_frames(
        &mut self,
        gone: impl Fn(u64) -> bool,
        observer: &mut impl TlbObserver,
    ) {
        self.losses += 1;
        for (n, view) in self.used() {
            let lost = &mut lost(n, observer);
            view.filled.each(|i| {
                if gone(view.pages[i].gpa()) {
                    view.data[i].vacate(i, lost);
                }
            });
            // Linear addresses still lead there: targets and links between pages stay good, and the
            // code is dropped by the block cache.
            view.fetch_filled.each(|i| {
                if gone(view.fetch[i].gpa) {
                    view.fetch[i].vacate(i, lost);
                }
            });
        }
    }

    /// The views that hold something.
    fn used(&mut self) -> impl Iterator<Item = (usize, &mut View)> {
        self.views[..EMPTY].iter_mut().enumerate().filter(|(_, view)| !view.blank)
    }

    fn flush_non_global_of(&mut self, view: usize, observer: &mut impl TlbObserver) {
        self.views[view].flush_non_global(&mut lost(view, observer));
    }

    fn flush_non_global_supervisor(&mut self, observer: &mut impl TlbObserver) {
        self.flush_non_global_of(SUPERVISOR, observer);
        self.flush_non_global_of(SUPERVISOR_AC, observer);
    }

    /// Drops everything.
    pub(crate) fn flush_all(&mut self, observer: &mut impl TlbObserver) {
        self.flushes += 1;
        self.losses += 1;
        self.used().for_each(|(n, view)| view.flush(&mut lost(n, observer)));
    }

    /// Drops the current PCID's non-global translations.
    pub(crate) fn flush_current(&mut self, observer: &mut impl TlbObserver) {
        self.flushes += 1;
        self.losses += 1;
        self.flush_non_global_of(self.slot, observer);
        self.flush_non_global_supervisor(observer);
    }

    /// Drops the non-global translations of every PCID.
    pub(crate) fn flush_non_global(&mut self, observer: &mut impl TlbObserver) {
        self.flushes += 1;
        self.losses += 1;
        (0..EMPTY).for_each(|view| self.flush_non_global_of(view, observer));
    }

    /// Makes `pcid` current; keeps its translations if `keep`.
    pub(crate) fn switch(&mut self, pcid: u16, keep: bool, observer: &mut impl TlbObserver) {
        self.losses += 1;
        self.flush_non_global_supervisor(observer);
        let known = self.pcids.iter().position(|&p| p == Some(pcid));
        self.slot = known.unwrap_or_else(|| self.take_slot(pcid, observer));
        if known.is_some() && !keep {
            self.flushes += 1;
            self.flush_non_global_of(self.slot, observer);
        }
    }

    fn take_slot(&mut self, pcid: u16, observer: &mut impl TlbObserver) -> usize {
        self.victim = (self.victim + 1) % SLOTS;
        if self.victim == self.slot {
            self.victim = (self.victim + 1) % SLOTS;
        }
        let slot = self.victim;
        self.views[slot].flush(&mut lost(slot, observer));
        self.pcids[slot] = Some(pcid);
        slot
    }

    /// INVLPG: the page in the current address space, and global translations of it everywhere.
    /// Dropping more is permitted.
    pub(crate) fn flush_page(&mut self, la: u64, observer: &mut impl TlbObserver) {
        self.flushes += 1;
        self.losses += 1;
        for (n, view) in self.views[..EMPTY].iter_mut().enumerate() {
            if n == self.slot || n >= SUPERVISOR || view.global {
                view.flush_page(la, &mut lost(n, observer));
            }
        }
    }

    /// INVPCID type 0: the page in `pcid`. Dropping more is permitted.
    pub(crate) fn flush_page_of(&mut self, pcid: u16, la: u64, observer: &mut impl TlbObserver) {
        if let Some(slot) = self.pcids.iter().position(|&p| p == Some(pcid)) {
            self.views[slot].flush_page(la, &mut lost(slot, observer));
        }
        self.flush_page(la, observer);
    }

    /// Drops the non-global translations of `pcid`.
    pub(crate) fn flush_pcid(&mut self, pcid: u16, observer: &mut impl TlbObserver) {
        self.flushes += 1;
        self.losses += 1;
        if let Some(slot) = self.pcids.iter().position(|&p| p == Some(pcid)) {
            self.flush_non_global_of(slot, observer);
            if slot == self.slot {
                self.flush_non_global_supervisor(observer);
            }
        }
    }
}

/// What tells `observer` that view `view` has lost a page or rights to it.
fn lost(view: usize, observer: &mut impl TlbObserver) -> impl FnMut(u64, Rights) {
    move |page, rights| observer.dropped(Mapping { view, page, rights })
}

#[cfg(test)]
mod tests {
    use super::fetch::NO_FETCH;
    use super::*;
    use crate::translate::targets::{TARGET_ENTRIES, vacant};
    use crate::zeroed::own_pages;

    /// One translation that a processor was given: (page, bytes of its page, global).
    type Given = (u64, u64, bool);
    /// Whether what a view was given must have left it.
    type Judge = Box<dyn Fn(usize, &Given) -> bool>;

    fn next(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    /// Few pages, many collisions: user and kernel addresses that differ in high bits only.
    fn page(seed: &mut u64) -> u64 {
        let high = [0, 0xffff_8880_0000_0000, 0xffff_ffff_8000_0000, 0x7fff_c000_0000];
        high[next(seed) as usize & 3] | (next(seed) & 0x1c0_0007) << 12
    }

    fn give(tlb: &mut Tlb, view: usize, seed: &mut u64) -> Given {
        let page = page(seed);
        // One size for a gigabyte, as page tables have it.
        let size =
            [0x1000, 0x20_0000, 0x40_0000, 0x4000_0000][(page >> 30 ^ page >> 34) as usize & 3];
        let global = next(seed) & 3 == 0;
        let fill =
            Fill { page, gpa: page & 0xffff_f000, host: 1, read: true, write: true, global, size };
        tlb.fill(view, fill, &mut ());
        tlb.fill_fetch(
            view,
            FetchEntry { tag: page, gpa: page & 0xffff_f000, global, size },
            &mut (),
        );
        tlb.branch_tables(view);
        tlb.fill_target(view, page | 5, 77);
        (page, size, global)
    }

    fn holds(view: &View, page: u64) -> bool {
        let la = page | 5;
        view.data[index(page)].rtag == page
            || view.fetch[fetch_index(page)].tag == page
            || view.targets.table[target_slot(la)][ADDRESS] == la
    }

    #[test]
    fn what_is_flushed_is_gone() {
        let mut seed = 0x1234_5678_9abc_def1;
        for _ in 0..400 {
            let mut tlb = Tlb::new().expect("room");
            let given: Vec<(usize, Given)> = (0..60)
                .map(|n| {
                    let view = if n & 1 == 0 { tlb.slot } else { SUPERVISOR };
                    (view, give(&mut tlb, view, &mut seed))
                })
                .collect();
            let la = page(&mut seed) | 0x123;
            let other = next(&mut seed) & 1 == 0;
            let must_go: Judge = match next(&mut seed) % 4 {
                0 => {
                    tlb.flush_current(&mut ());
                    Box::new(|_, g| !g.2)
                }
                1 => {
                    tlb.switch(u16::from(other), false, &mut ());
                    Box::new(move |view, g| !g.2 && (view == SUPERVISOR || !other))
                }
                2 => {
                    tlb.flush_all(&mut ());
                    Box::new(|_, _| true)
                }
                _ => {
                    tlb.flush_page(la, &mut ());
                    Box::new(move |_, g| g.0 & !(g.1 - 1) == la & !(g.1 - 1))
                }
            };
            // What was given twice counts as it was given last.
            for (n, (view, g)) in given.iter().enumerate() {
                let again = given[n + 1..].iter().any(|(v, h)| v == view && h.0 == g.0);
                assert!(again || !must_go(*view, g) || !holds(tlb.view(*view), g.0), "{g:x?}");
            }
        }
    }

    #[test]
    fn invlpg_leaves_other_pages_alone() {
        let mut tlb = Tlb::new().expect("room");
        let kernel = 0xffff_8880_0040_0000;
        for (page, size) in [(kernel, 0x20_0000), (0x40_0000, 0x1000), (0x80_0000, 0x1000)] {
            let fill =
                Fill { page, gpa: page, host: 1, read: true, write: true, global: true, size };
            tlb.fill(SUPERVISOR, fill, &mut ());
        }
        tlb.flush_page(0x40_0000, &mut ());
        let left = |page: u64| tlb.view(SUPERVISOR).data[index(page)].rtag == page;
        // The first two share a place, where the second was.
        assert!(!left(0x40_0000) && left(0x80_0000));
    }

    /// Pages of each view's tables that are in memory.
    fn pages_of_views(tlb: &Tlb) -> Vec<usize> {
        let of = |view: &View| {
            own_pages(&*view.data) + own_pages(&*view.pages) + own_pages(&*view.fetch)
        };
        tlb.views.iter().map(of).collect()
    }

    #[test]
    fn what_drops_translations_touches_none_that_was_never_entered() {
        let mut tlb = Tlb::new().expect("room");
        // Of the data entries the first page and the last, of instruction entries the first.
        assert_eq!(pages_of_views(&tlb), [3; VIEWS]);
        let given = [(SUPERVISOR, 0x123_4000, true), (0, 0x40_0000, false)];
        for (view, page, global) in given {
            let (gpa, size) = (page, 0x1000);
            let fill = Fill { page, gpa, host: 1, read: true, write: true, global, size };
            tlb.fill(view, fill, &mut ());
            tlb.fill_fetch(view, FetchEntry { tag: page, gpa, global, size }, &mut ());
        }
        let before = pages_of_views(&tlb);
        for page in (0..1 << 32).step_by(0x1f_f000) {
            tlb.flush_page(page, &mut ());
            tlb.flush_page_of(0, page, &mut ());
        }
        tlb.forbid_writes(0x123_4000, &mut ());
        tlb.forbid_all_writes(&mut ());
        tlb.drop_frames(|gpa| gpa < 0x40_0000, &mut ());
        tlb.flush_current(&mut ());
        tlb.flush_non_global(&mut ());
        tlb.switch(5, false, &mut ());
        tlb.flush_pcid(5, &mut ());
        tlb.flush_all(&mut ());
        tlb.forget(0x765_4000, &mut ());
        assert_eq!(pages_of_views(&tlb), before);
    }

    #[test]
    fn a_table_of_targets_is_emptied_whole() {
        let mut targets = Targets::new();
        targets.make(0);
        let page = FetchEntry { size: 0x1000, ..NO_FETCH };
        let used = TARGET_ENTRIES / 4;
        for slot in 0..used as u64 {
            targets.fill(slot << 2, 77, &page);
        }
        targets.clear();
        assert!(targets.table.iter().enumerate().all(|(slot, entry)| *entry == vacant(slot)));
    }

    #[test]
    fn no_address_is_a_target_before_it_is_entered() {
        let mut tlb = Tlb::new().expect("room");
        tlb.branch_tables(SUPERVISOR);
        let table = &tlb.view(SUPERVISOR).targets.table;
        let vacant = |slot: usize| target_slot(table[slot][ADDRESS]) != slot;
        assert!((0..TARGET_ENTRIES).all(vacant));
    }
}
