//! Which translation stands for which guest code, and which guest code each relies on.

use super::generation::Generation;
use super::region::Region;
use crate::block::{Entries, Key, Table, granules, meet};
use crate::tlb::PAGE_MASK;
use memory::Change;
use std::collections::HashMap;
use x86::addr::Gpa;

/// Invalidated translations of a block whose entries are redirected to its new one. Those before
/// them exit for good.
const RETIRED: usize = 4;

/// Where a block's code is in translations.
#[derive(Clone, Copy, Default)]
pub(super) struct Translated {
    /// The translation whose checks serve several accesses each.
    pub(super) shared: Option<Entries>,
    /// The translation whose accesses are checked each by itself.
    pub(super) per_access: Option<Entries>,
}

impl Translated {
    pub(super) fn get(&self, per_access: bool) -> Option<Entries> {
        if per_access { self.per_access } else { self.shared }
    }
}

/// Bytes within one page that a translation relies on.
#[derive(Clone, Copy)]
struct Piece {
    gpa: u64,
    len: u64,
    region: u32,
}

/// A guest-physical page with code that translations rely on.
#[derive(Default)]
struct CodePage {
    /// Bit n: there is some in bytes 64n to 64n+63.
    granules: u64,
    pieces: Vec<Piece>,
    /// Entries of shared translations that begin here.
    entries: Vec<(Key, Entries)>,
}

/// A translation under way.
struct Pending {
    id: u64,
    key: Key,
    per_access: bool,
    pages: [u64; 2],
    /// What it relies on has changed since it began.
    spoiled: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Index {
    blocks: Table<Key, Translated>,
    /// By frame number.
    pages: Table<u64, CodePage>,
    /// Translations of dead blocks, which others may still jump to.
    retired: HashMap<Key, Vec<Entries>>,
    pending: Vec<Pending>,
    last: u64,
    /// Frames that have lost their last translation.
    pub(super) released: Vec<u64>,
}

impl Index {
    /// The translations of the block for `key`.
    pub(super) fn get(&self, key: Key) -> Translated {
        self.blocks.get(&key).copied().unwrap_or_default()
    }

    /// The entries on the page of `key`, in its mode, with where on the page.
    pub(super) fn beside(&self, key: Key) -> impl Iterator<Item = (u64, Entries)> {
        let page = key.gpa() & !PAGE_MASK;
        let entries = self.pages.get(&(page >> 12)).into_iter().flat_map(|page| &page.entries);
        entries.filter_map(move |(other, entries)| {
            let offset = other.gpa() & PAGE_MASK;
            (*other == key.elsewhere(page | offset)).then_some((offset, *entries))
        })
    }

    /// A translation of `key`'s block begins, from code on `pages`, which has not been read yet.
    /// `None`: another is under way.
    pub(super) fn begin(&mut self, key: Key, per_access: bool, pages: [u64; 2]) -> Option<u64> {
        if self.pending.iter().any(|p| p.key == key && p.per_access == per_access) {
            return None;
        }
        self.last += 1;
        let id = self.last;
        self.pending.push(Pending { id, key, per_access, pages, spoiled: false });
        Some(id)
    }

    /// It ends. True if what it was made from is as it was.
    pub(super) fn end(&mut self, id: u64) -> bool {
        let Some(n) = self.pending.iter().position(|p| p.id == id) else { return false };
        !self.pending.swap_remove(n).spoiled
    }

    /// Enters translation number `number` of `region`; frames that have none yet go to `opened`.
    pub(super) fn enter(
        &mut self,
        region: &Region,
        number: u32,
        entries: &[(Key, Entries)],
        opened: &mut Vec<u64>,
    ) {
        for (gpa, len) in region.relies_on() {
            let frame = gpa >> 12;
            let page = self.pages.entry(frame).or_insert_with(|| {
                opened.push(frame);
                CodePage::default()
            });
            page.granules |= granules((gpa, len));
            page.pieces.push(Piece { gpa, len, region: number });
        }
        for &(key, entries) in entries {
            let block = self.blocks.entry(key).or_default();
            if region.per_access {
                block.per_access = Some(entries);
            } else {
                block.shared = Some(entries);
                if let Some(page) = self.pages.get_mut(&(key.gpa() >> 12)) {
                    page.entries.push((key, entries));
                }
            }
        }
    }

    /// The entries of `key`'s invalidated translations.
    pub(super) fn retired(&self, key: Key) -> &[Entries] {
        self.retired.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Takes note of `change`. True if a translation died.
    pub(super) fn apply(&mut self, change: Change, generation: &Generation) -> bool {
        match change {
            Change::Wrote { gpa, len } => self.written(gpa, len, generation),
            Change::Revoke { gpa, len } => {
                let first = Gpa(gpa.0 & !PAGE_MASK);
                let end = gpa.saturating_add(len).saturating_add(PAGE_MASK).0 & !PAGE_MASK;
                self.written(first, end - first.0, generation)
            }
            Change::Everything => self.written(Gpa(0), u64::MAX, generation),
            Change::Code { .. } | Change::Absent | Change::TrackDirty => false,
        }
    }

    fn written(&mut self, gpa: Gpa, len: u64, generation: &Generation) -> bool {
        let last = gpa.saturating_add(len.max(1) - 1).0;
        let frames = gpa.0 >> 12..=last >> 12;
        for pending in &mut self.pending {
            pending.spoiled |= pending.pages.iter().any(|page| frames.contains(&(page >> 12)));
        }
        let wanted: Vec<u64> = if frames.end() - frames.start() < self.pages.len() as u64 {
            frames.filter(|frame| self.pages.contains_key(frame)).collect()
        } else {
            self.pages.keys().copied().filter(|frame| frames.contains(frame)).collect()
        };
        let mut died = false;
        for frame in wanted {
            let (first, last) = (gpa.0.max(frame << 12), last.min(frame << 12 | PAGE_MASK));
            for region in self.hit(frame, first, last - first + 1) {
                died |= self.kill(region, generation);
            }
        }
        died
    }

    /// The translations that rely on any of the `len` bytes at `gpa`, on page `frame`.
    fn hit(&self, frame: u64, gpa: u64, len: u64) -> Vec<u32> {
        let Some(page) = self.pages.get(&frame) else { return Vec::new() };
        if page.granules & granules((gpa, len)) == 0 {
            return Vec::new();
        }
        let hit = page.pieces.iter().filter(|p| meet((p.gpa, p.len), (gpa, len)));
        hit.map(|p| p.region).collect()
    }

    fn kill(&mut self, number: u32, generation: &Generation) -> bool {
        if !generation.bury(number) {
            return false;
        }
        let Some(region) = generation.regions.get(number) else { return false };
        for &(key, entries) in &region.entries {
            if let Some(block) = self.blocks.get_mut(&key) {
                let other = |entries: &Entries| entries.region != number;
                block.shared = block.shared.filter(other);
                block.per_access = block.per_access.filter(other);
            }
            let retired = self.retired.entry(key).or_default();
            if retired.len() == RETIRED {
                // Jumps to the oldest one go on exiting.
                retired.remove(0);
            }
            retired.push(entries);
        }
        for &frame in &region.frames {
            let Some(page) = self.pages.get_mut(&frame) else { continue };
            page.pieces.retain(|p| p.region != number);
            page.entries.retain(|(_, entries)| entries.region != number);
            page.granules = page.pieces.iter().fold(0, |all, p| all | granules((p.gpa, p.len)));
            if page.pieces.is_empty() {
                self.pages.remove(&frame);
                self.released.push(frame);
            }
        }
        true
    }

    /// Forgets every translation. What is under way comes to nothing.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.retired.clear();
        self.pending.clear();
        self.released.extend(self.pages.drain().map(|(frame, _)| frame));
    }
}
