//! One area full of translations, and what is recorded of them. The processors of a machine share
//! it without a lock; it only grows, but for jumps in its code that are replaced by the word.

use super::append::AppendOnly;
use super::links::CrossPageBranch;
use super::site::{Cause, ExitSite, FaultMapEntry};
use crate::block::{Entries, Key};
use crate::thunk;
use crate::thunk::area::CodeArea;
use crate::thunk::guard::{Translated, TranslatedRegistration};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What all translations of a generation do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Poll in every loop.
    pub(super) polls: bool,
    /// Count instructions.
    pub(super) counting: bool,
    /// Stop before a block for which too few instructions are left.
    pub(super) bounded: bool,
    /// Keep status flags exact even where the guest replaces them before it reads them: the frame
    /// of an interrupt in between shows them, and they must be the same on each run.
    pub(super) exact_flags: bool,
}

impl Options {
    /// What `self` or `other` does.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            polls: self.polls | other.polls,
            counting: self.counting | other.counting,
            bounded: self.bounded | other.bounded,
            exact_flags: self.exact_flags | other.exact_flags,
        }
    }
}

/// Offsets in the code area.
#[derive(Clone, Copy)]
pub(super) struct Stubs {
    /// To be called with the target in RDI; goes there with RIP in ADDRESS, and returns with all
    /// registers changed but RSP.
    pub(super) enter: usize,
    /// Where faults go: all registers to `Context::raw`, then out.
    pub(super) fault: usize,
    /// Loads the vector registers and MXCSR and jumps to ADDRESS.
    pub(super) load_vectors: usize,
    /// Goes to `Context::beside`, with all registers as at a boundary, from the state.
    pub(super) beside: usize,
    /// See [`super::gate`].
    pub(super) syscall: usize,
    pub(super) sysret: usize,
    /// At a region's boundary.
    pub(super) boundary: RegionStubs,
}

/// What depends on the registers spilled.
#[derive(Clone, Copy)]
pub(super) struct RegionStubs {
    /// Where every exit goes: stores the guest's registers and returns from `enter`.
    pub(super) leave: usize,
    /// Calls [`super::fill`], and goes on where it says or leaves: by the register that the site's
    /// number is in, 0 for those not spilled.
    pub(super) fill: [usize; 16],
}

/// Emits what depends on how processors are laid out.
#[derive(Clone, Copy)]
pub(super) struct Emits {
    /// The code that enters and leaves translations, with AVX or without. `None`: there is no room.
    pub(super) stubs: fn(&CodeArea, bool) -> Option<Stubs>,
    /// The stubs for regions that spill these registers.
    pub(super) for_region: fn(&CodeArea, u16, bool) -> Option<RegionStubs>,
    /// What the fault guard needs of code that is left at this host address.
    pub(super) guarded: fn(u64) -> Translated,
}

/// See the module.
pub(super) struct Generation {
    /// Dropped before the area: as soon as that is unmapped another thread may have code there.
    _registration: TranslatedRegistration,
    pub(super) area: CodeArea,
    pub(super) options: Options,
    pub(super) stubs: Stubs,
    pub(super) regions: AppendOnly<RegionRecord>,
    pub(super) sites: AppendOnly<Site>,
    pub(super) branches: AppendOnly<CrossPageBranch>,
}

/// A region that was translated.
pub(super) struct RegionRecord {
    /// Where its code begins, and its length.
    pub(super) base: u32,
    pub(super) len: u32,
    pub(super) entries: Vec<(Key, Entries)>,
    /// Frames of the guest's code that it relies on.
    pub(super) frames: Vec<u64>,
    /// What a fault means from each offset in it on, ascending.
    pub(super) fault_map: Vec<FaultMapEntry>,
    pub(super) dead: AtomicBool,
}

/// An exit.
pub(super) struct Site {
    pub(super) exit: ExitSite,
    pub(super) cause: Cause,
    /// The translation to go on in if a check needs each access checked by itself: its number in
    /// the upper half, where it is entered in the lower; 0: not known.
    per_access: AtomicU64,
}

impl Site {
    pub(super) fn new(exit: ExitSite, cause: Cause) -> Self {
        Self { exit, cause, per_access: AtomicU64::new(0) }
    }

    /// Translation number `region`, entered at `place`, is the one to go on in.
    pub(super) fn set_per_access(&self, region: u32, place: u32) {
        self.per_access.store(u64::from(region) << 32 | u64::from(place), Ordering::Release);
    }
}

impl Generation {
    /// One without translations, of `capacity` bytes.
    ///
    /// # Errors
    /// The host denies executable memory.
    pub(super) fn new(capacity: usize, options: Options, emits: &Emits) -> io::Result<Self> {
        let area = CodeArea::new_translated(capacity)?;
        let avx = thunk::HostFeatures::probe().has(thunk::Feature::Avx);
        let stubs = (emits.stubs)(&area, avx)
            .ok_or_else(|| io::Error::other("the code cache has no room for anything"))?;
        let (start, end) = area.range();
        let data = (emits.guarded)(area.address(stubs.fault));
        Ok(Self {
            _registration: TranslatedRegistration::new(start, end, data)?,
            area,
            options,
            stubs,
            regions: AppendOnly::default(),
            sites: AppendOnly::default(),
            branches: AppendOnly::default(),
        })
    }

    /// Whether translation number `region` is still good.
    #[inline]
    pub(super) fn is_alive(&self, region: u32) -> bool {
        self.regions.get(region).is_some_and(|region| !region.dead.load(Ordering::Acquire))
    }

    /// Where to go on from `site` if its check needs each access checked by itself, if that is
    /// translated. A dead one would lead back to the check.
    pub(super) fn per_access(&self, site: &Site) -> Option<u64> {
        let known = site.per_access.load(Ordering::Acquire);
        let (region, place) = ((known >> 32) as u32, known as u32);
        (place != 0 && self.is_alive(region)).then(|| self.area.address(place as usize))
    }

    /// The translation that `offset` in the area lies in.
    pub(super) fn region_at(&self, offset: u32) -> Option<&RegionRecord> {
        let (mut low, mut high) = (0, self.regions.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.regions.get(middle) {
                Some(region) if region.base <= offset => low = middle + 1,
                _ => high = middle,
            }
        }
        let region = self.regions.get(low.checked_sub(1)?)?;
        (offset - region.base < region.len).then_some(region)
    }

    /// Whether a guest instruction begins at `offset`, so that its state is whole there. Called by
    /// a signal's handler: takes no lock.
    pub(super) fn begins_instruction(&self, offset: u32) -> bool {
        let here = |region: &RegionRecord| {
            let entry = region.fault(offset)?;
            Some(entry.offset + region.base == offset && entry.boundary)
        };
        self.region_at(offset).and_then(here) == Some(true)
    }

    /// Makes region number `n` unreachable: each of its entries leads to the dispatcher. False: it
    /// was dead.
    pub(super) fn bury(&self, n: u32) -> bool {
        let Some(region) = self.regions.get(n) else { return false };
        if region.dead.swap(true, Ordering::AcqRel) {
            return false;
        }
        for (_, entries) in &region.entries {
            self.area.patch_jump(entries.flags_saved, entries.dead_saved);
            self.area.patch_jump(entries.near, entries.dead);
            if entries.body != entries.near {
                self.area.patch_jump(entries.body, entries.dead);
            }
        }
        true
    }

    /// Points the entries `from`, of a dead translation, at `to`.
    pub(super) fn relink(&self, from: &Entries, to: &Entries) {
        self.area.patch_jump(from.flags_saved, to.flags_saved);
        self.area.patch_jump(from.near, to.near);
        // One entry for both does not say that the vector registers are loaded.
        if from.body != from.near {
            self.area.patch_jump(from.body, to.body);
        }
    }
}

impl RegionRecord {
    /// What a fault at `offset` in the area means.
    pub(super) fn fault(&self, offset: u32) -> Option<FaultMapEntry> {
        let from = offset.checked_sub(self.base)?;
        let last = self.fault_map.partition_point(|s| s.offset <= from).checked_sub(1)?;
        self.fault_map.get(last).copied()
    }
}
