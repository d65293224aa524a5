//! What leads translated code of a view on: the table of targets, from guest code addresses to
//! translations, for indirect branches and branches to other pages; and the slots of direct
//! branches to other pages that are linked in this view.

use crate::block::Table;
use crate::tlb::extent::{Extent, Large, PAGE_MASK, Regions};
use crate::tlb::fetch::FetchEntry;
use std::collections::HashSet;

/// Where a guest code address is in host code: the guest address ([`ADDRESS`]) and that of the
/// cross-page entry ([`HOST`]). Words, since a table of those comes from the host zeroed, and page
/// by page as it is used.
pub(crate) type TargetEntry = [u64; 2];

pub(crate) const ADDRESS: usize = 0;

pub(crate) const HOST: usize = 1;

/// Entries of a table of targets, one for four bytes of code: nearer to each other targets hardly
/// ever lie. So many that a mebibyte of code has its own: a fork in Linux missed a table of a
/// quarter twice as often.
pub(crate) const TARGET_ENTRIES: usize = 1 << 18;

/// Bits of an address that choose no slot.
pub(crate) const TARGET_GRAIN: u32 = 2;

/// An address shifted left by this, and masked by [`TARGET_MASK`], is its entry's offset in a
/// table.
pub(crate) const TARGET_SCALE: u8 =
    (size_of::<TargetEntry>().trailing_zeros() - TARGET_GRAIN) as u8;
pub(crate) const TARGET_MASK: usize = (TARGET_ENTRIES - 1) * size_of::<TargetEntry>();

/// The slot for `la` in a table of targets.
pub(crate) const fn target_slot(la: u64) -> usize {
    (la >> TARGET_GRAIN) as usize & (TARGET_ENTRIES - 1)
}

/// What stands at `slot` when nothing does: an address that belongs elsewhere.
pub(crate) const fn vacant(slot: usize) -> TargetEntry {
    [if slot == 0 { 1 << TARGET_GRAIN } else { 0 }, 0]
}

/// Targets of indirect and cross-page branches, for translated code.
pub(crate) struct Targets {
    pub(crate) table: Box<[TargetEntry]>,
    pub(crate) filled: Vec<u32>,
    /// Pages with targets.
    pub(crate) pages: Regions,
    /// Pages larger than 4 KiB with targets.
    pub(crate) large: Large,
    /// Some target's page is not global.
    pub(crate) local: bool,
    /// Pages that links of direct branches lead to.
    pub(crate) linked: HashSet<u64>,
    /// For each branch to another page, by number: how far its target lies from where it goes
    /// without a link, or that its direct jump goes there ([`super::links`]). 0: there is no link.
    pub(crate) slots: Box<[i32]>,
    /// Slots that are not 0, and perhaps others.
    filled_slots: Vec<u32>,
    /// Where each guest-physical page with translated code was entered; `None`: at several linear
    /// addresses.
    entered: Table<u64, Option<u64>>,
}

impl Targets {
    pub(crate) fn new() -> Self {
        Self {
            table: Box::default(),
            filled: Vec::new(),
            pages: Regions::new(12, 16),
            large: Large::new(),
            local: false,
            linked: HashSet::new(),
            slots: Box::default(),
            filled_slots: Vec::new(),
            entered: Table::default(),
        }
    }

    /// Makes the tables, the latter of `slots` entries.
    #[cold]
    pub(crate) fn make(&mut self, slots: usize) {
        self.table = vec![[0; 2]; TARGET_ENTRIES].into_boxed_slice();
        self.table[0] = vacant(0);
        self.slots = vec![0; slots].into_boxed_slice();
    }

    /// Links to other pages do not hold any more.
    pub(crate) fn sever(&mut self) {
        self.linked.clear();
        for slot in self.filled_slots.drain(..) {
            self.slots[slot as usize] = 0;
        }
    }

    /// Branch number `slot` goes `distance` bytes from where it goes without a link.
    pub(crate) fn set_slot(&mut self, slot: u32, distance: i32) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            if *place == 0 && distance != 0 {
                self.filled_slots.push(slot);
            }
            *place = distance;
        }
    }

    /// Translated code of the guest-physical page `gpa` is about to be entered at the linear page
    /// `la`. True if it has been entered at one other so far.
    pub(crate) fn enter_page(&mut self, gpa: u64, la: u64) -> bool {
        let at = self.entered.entry(gpa).or_insert(Some(la));
        let second = at.is_some_and(|at| at != la);
        if second {
            *at = None;
        }
        second
    }

    /// Where the guest-physical page `gpa` was entered, if it was; inside, `None`: at several
    /// linear addresses.
    pub(crate) fn entered_at(&self, gpa: u64) -> Option<Option<u64>> {
        self.entered.get(&gpa).copied()
    }

    /// Links that `distance` tells of go so far instead.
    pub(crate) fn replace_slots(&mut self, distance: impl Fn(u32) -> Option<i32>) {
        for &slot in &self.filled_slots {
            if let Some(place) = self.slots.get_mut(slot as usize).filter(|place| **place != 0) {
                *place = distance(slot).unwrap_or(*place);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.sever();
        self.entered.clear();
        if self.filled.is_empty() {
            return;
        }
        if self.filled.len() < TARGET_ENTRIES / 8 {
            for &i in &self.filled {
                self.table[i as usize] = vacant(i as usize);
            }
        } else {
            self.vacate();
        }
        self.filled.clear();
        self.pages.clear();
        self.large.clear();
        self.local = false;
    }

    pub(crate) fn vacate(&mut self) {
        for (slot, entry) in self.table.iter_mut().enumerate() {
            // What was never written to is only looked at, and stays out of memory.
            if entry[HOST] != 0 {
                *entry = vacant(slot);
            }
        }
    }

    /// True if it is the first on its page, as far as is known.
    pub(crate) fn fill(&mut self, la: u64, host: u64, page: &FetchEntry) -> bool {
        let slot = target_slot(la);
        let entry = &mut self.table[slot];
        if *entry == [la, host] {
            return false;
        }
        if entry[HOST] == 0 {
            self.filled.push(slot as u32);
        }
        *entry = [la, host];
        let first = !self.pages.may_hold(la);
        self.pages.note(la);
        self.large.note(la, page.size);
        self.local |= !page.global;
        first
    }

    pub(crate) fn clear_page(&mut self, la: u64) {
        if self.filled.is_empty() {
            return;
        }
        if self.large.around(la) != Extent::Page {
            self.clear();
        } else if self.pages.may_hold(la) {
            if self.linked.contains(&(la & !PAGE_MASK)) {
                self.sever();
            }
            let first = target_slot(la & !PAGE_MASK);
            let slots = first..first + (0x1000 >> TARGET_GRAIN);
            for (n, entry) in self.table[slots].iter_mut().enumerate() {
                if entry[HOST] != 0 && entry[ADDRESS] & !PAGE_MASK == la & !PAGE_MASK {
                    // It stays listed as filled, which its host address tells.
                    entry[ADDRESS] = vacant(first + n)[ADDRESS];
                }
            }
        }
    }
}
