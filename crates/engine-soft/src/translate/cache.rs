//! The code cache of a machine: its processors share the translations, keyed by guest-physical
//! address and mode. Whatever one has translated, the others find.
//!
//! Shared are a [`Generation`], which translated code is run in without a lock, and an [`Index`],
//! which is asked where a block has become hot or a page is met. A processor's own are its tables
//! of targets, its links between pages, and what it remembers of exits.
//!
//! # What a translation rests on
//! - *Code that is written to.* The cache holds code of the pages it has translations of, beside
//!   the processors: writes to them are posted ([`memory::Follower`]). Before a processor enters
//!   translated code it has the cache catch up with all that it has acknowledged itself
//!   ([`TranslationCache::is_behind`]): a translation that is stale by then is dead.
//! - *Code that is written to while it is translated.* A translation is announced before its code
//!   is read, by a processor that is not behind, and discarded if a change to one of its pages was
//!   posted since. Blocks that are announced already are left to who began.
//! - *A full area.* Another generation begins ([`super::epochs`]); the processors move there one
//!   by one. As long as one has not left the last but one, there is no room: code is interpreted.
//!
//! Locks: `state`, then the change log's or those of `epochs`. Any processor's thread takes it,
//! with no other lock held; nothing waits under it.

use super::append::AppendOnly;
use super::epochs::{Epochs, Member, Notify};
use super::generation::{Emits, Generation, Options, RegionRecord, RegionStubs, Site};
use super::index::Index;
use super::region::Region;
use super::site::{ExitSite, StubTarget, Translation};
use super::{figures, scratch};
use crate::block::{Entries, Key};
use crate::thunk;
use memory::{Follower, GuestRam};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use x86::addr::Gpa;

/// Requests for which a host that has refused memory for code is not asked again.
const UNASKED: u32 = 1 << 14;
/// Bytes of code for which there is one slot of a cross-page branch: none has fewer.
const CODE_PER_SLOT: usize = 64;

/// See the module.
pub(crate) struct TranslationCache {
    ram: GuestRam,
    capacity: usize,
    emits: Emits,
    epochs: Arc<Epochs<Generation>>,
    asked: Asked,
    /// Processors that share it.
    members: AtomicU32,
    state: Mutex<State>,
}

/// What is looked at on each way into translated code: on a cache line of its own.
#[repr(align(64))]
struct Asked {
    /// Moves whenever code has come that may be entered, or has changed, or a generation begins.
    version: AtomicU64,
    /// The change log's epoch up to which dead translations are dead.
    followed: AtomicU64,
}

/// What the lock protects.
struct State {
    generation: Arc<Generation>,
    number: u64,
    /// No more fits into the generation.
    full: bool,
    /// Requests until the host is asked again, which has refused the next one.
    refused: u32,
    /// What the next generation's translations do.
    options: Options,
    /// The stubs of regions, by the registers they spill.
    region_stubs: HashMap<u16, RegionStubs>,
    index: Index,
    /// From the first translation on.
    follower: Option<Follower>,
}

/// Who asks the cache.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    /// The generation that it has.
    pub(super) number: u64,
    /// Something was posted that it has not taken note of.
    pub(super) behind: bool,
}

/// What is to be translated.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) per_access: bool,
    pub(super) second_page: Option<u64>,
}

/// What becomes of the wish to translate something.
pub(super) enum Begun<'a> {
    /// It is there.
    Known(Entries),
    /// Not now: another processor is at it, or there is no room.
    Later,
    /// Now.
    Now(Ticket<'a>),
}

/// A translation that was announced, until it is published or dropped.
pub(super) struct Ticket<'a> {
    cache: &'a TranslationCache,
    number: u64,
    id: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = sync::lock(&self.cache.state);
        if state.number == self.number {
            state.index.end(self.id);
        }
    }
}

impl TranslationCache {
    /// The cache of a machine with `ram`, of `capacity` bytes of host code.
    ///
    /// # Errors
    /// The host denies executable memory.
    pub(super) fn new(ram: GuestRam, capacity: usize, emits: Emits) -> io::Result<Self> {
        let epochs = Arc::new(Epochs::new(Generation::new(capacity, Options::default(), &emits)?));
        let state = State {
            generation: epochs.current(),
            number: epochs.number(),
            full: false,
            refused: 0,
            options: Options::default(),
            region_stubs: HashMap::new(),
            index: Index::default(),
            follower: None,
        };
        Ok(Self {
            ram,
            capacity,
            emits,
            epochs,
            asked: Asked { version: AtomicU64::new(1), followed: AtomicU64::new(u64::MAX) },
            members: AtomicU32::new(0),
            state: Mutex::new(state),
        })
    }

    /// The cache of one more processor: this one, or one of its own where the host lets code be
    /// written only while nobody runs it.
    ///
    /// # Errors
    /// The host denies executable memory.
    pub(crate) fn share(self: &Arc<Self>) -> io::Result<Arc<Self>> {
        if sync::lock(&self.state).generation.area.may_be_shared() {
            return Ok(self.clone());
        }
        Self::new(self.ram.clone(), self.capacity, self.emits).map(Arc::new)
    }

    /// Branches to other pages that a generation may have.
    pub(crate) const fn slots(&self) -> usize {
        self.capacity / CODE_PER_SLOT
    }

    pub(super) fn join(&self, notify: Notify) -> Member<Generation> {
        self.members.fetch_add(1, Ordering::Relaxed);
        self.epochs.join(notify)
    }

    #[inline(always)]
    pub(super) fn version(&self) -> u64 {
        self.asked.version.load(Ordering::Acquire)
    }

    /// Whether a translation may be stale that was made from code as it was at epoch `seen`.
    #[inline(always)]
    pub(super) fn is_behind(&self, seen: u64) -> bool {
        self.asked.followed.load(Ordering::Acquire) < seen
    }

    /// Makes those translations dead whose code has changed.
    #[cold]
    pub(super) fn catch_up(&self) {
        self.follow(&mut sync::lock(&self.state));
    }

    fn follow(&self, state: &mut State) {
        let State { follower, index, generation, .. } = state;
        let Some(follower) = follower else { return };
        let mut died = false;
        follower.catch_up(|change| died |= index.apply(change, generation));
        let seen = follower.seen();
        state.let_go();
        if died {
            self.asked.version.fetch_add(1, Ordering::Release);
        }
        self.asked.followed.store(seen, Ordering::Release);
    }

    /// The translations of the block for `key` that some other processor may have made: one that is
    /// alone knows its own.
    pub(super) fn find(&self, key: Key, number: u64) -> Option<Entries> {
        if self.members.load(Ordering::Relaxed) < 2 {
            return None;
        }
        let state = sync::lock(&self.state);
        state.index.get(key).shared.filter(|_| state.number == number)
    }

    /// As [`Index::beside`].
    pub(super) fn beside(&self, key: Key, number: u64) -> Vec<(u64, Entries)> {
        let state = sync::lock(&self.state);
        if state.number == number { state.index.beside(key).collect() } else { Vec::new() }
    }

    /// Announces a translation, if there is none. Its code may be read from now on.
    pub(super) fn begin(&self, wanted: Wanted, asker: Asker) -> Begun<'_> {
        let mut state = sync::lock(&self.state);
        if state.follower.is_none() {
            state.follower = Some(self.ram.follower());
        }
        self.follow(&mut state);
        let Wanted { key, per_access, second_page } = wanted;
        if state.number != asker.number {
            return Begun::Later;
        }
        if let Some(entries) = state.index.get(key).get(per_access) {
            return Begun::Known(entries);
        }
        if asker.behind || state.full {
            if state.full {
                self.advance(&mut state);
            }
            return Begun::Later;
        }
        let pages = [key.gpa(), second_page.unwrap_or(key.gpa())];
        match state.index.begin(key, per_access, pages) {
            Some(id) => Begun::Now(Ticket { cache: self, number: state.number, id }),
            None => Begun::Later,
        }
    }

    /// From now on all translations do what `options` say, too. They are made anew if they do not.
    pub(super) fn demand(&self, options: Options) {
        let mut state = sync::lock(&self.state);
        state.options = state.options.and(options);
        if state.generation.options != state.options {
            state.full = true;
            self.advance(&mut state);
        }
    }

    /// Begins another generation, if all have left the last but one.
    fn advance(&self, state: &mut State) {
        if state.refused > 0 {
            state.refused -= 1;
            return;
        }
        let new = || Generation::new(self.capacity, state.options, &self.emits);
        match self.epochs.advance(new) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "no room for translations: interpreting");
                state.refused = UNASKED;
                return;
            }
        }
        state.generation = self.epochs.current();
        state.number = self.epochs.number();
        state.full = false;
        state.region_stubs.clear();
        state.index.clear();
        state.let_go();
        self.asked.version.fetch_add(1, Ordering::Release);
    }

    /// Bytes of code in use, and room for them.
    pub(super) fn usage(&self) -> (u64, u64) {
        let state = sync::lock(&self.state);
        (state.generation.area.used() as u64, self.capacity as u64)
    }
}

impl Drop for TranslationCache {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|e| e.into_inner());
        state.index.clear();
        state.let_go();
    }
}

impl Ticket<'_> {
    /// Lets every processor find the translation `t` of `region`. `None`: there is no room, or its
    /// code has changed.
    pub(super) fn publish(self, region: &Region, t: Translation) -> Option<Entries> {
        let mut state = sync::lock(&self.cache.state);
        self.cache.follow(&mut state);
        let entries = state.place(&self, region, t);
        if entries.is_some() {
            self.cache.asked.version.fetch_add(1, Ordering::Release);
        }
        drop(state);
        entries
    }
}

impl State {
    /// Has the follower let go of the pages that no translation is made from any more.
    fn let_go(&mut self) {
        let Self { follower: Some(follower), index, .. } = self else { return };
        index.released.drain(..).for_each(|frame| follower.release_code(Gpa(frame << 12)));
    }

    /// Puts a translation into the area. Returns where its first block is entered.
    fn place(
        &mut self,
        ticket: &Ticket<'_>,
        region: &Region,
        mut t: Translation,
    ) -> Option<Entries> {
        if self.number != ticket.number || !self.index.end(ticket.id) {
            return None;
        }
        let base = self.resolve(ticket.cache, &mut t);
        let generation = self.generation.clone();
        let placed = base.filter(|_| generation.area.push(&t.code).is_some());
        let Some(base) = placed else {
            self.full = true;
            return None;
        };
        let number = generation.regions.len();
        let entries: Vec<(Key, Entries)> =
            t.entries.iter().map(|(key, entries)| (*key, entries.placed(base, number))).collect();
        record(&generation, region, t, base);
        let mut opened = Vec::new();
        self.index.enter(region, number, &entries, &mut opened);
        if let Some(follower) = &self.follower {
            opened.into_iter().for_each(|frame| follower.hold_code(Gpa(frame << 12)));
        }
        if !region.per_access {
            for (key, entries) in &entries {
                let dead = self.index.retired(*key);
                dead.iter().for_each(|dead| generation.relink(dead, entries));
            }
        }
        entries.iter().find(|(key, _)| *key == region.blocks[0].key).map(|(_, entries)| *entries)
    }

    /// Resolves what in `t` depends on where it will stand: that offset in the area. `None`: there
    /// is no room.
    fn resolve(&mut self, cache: &TranslationCache, t: &mut Translation) -> Option<u32> {
        let inside = self.region_stubs(cache, t.spilled)?;
        let Generation { area, stubs, sites, branches, .. } = &*self.generation;
        let base = area.next(t.code.len())?;
        let (site, branch) = (sites.len(), branches.len());
        if branch as usize + t.cross_page.len() > cache.slots() {
            return None;
        }
        for (place, out) in &t.jumps {
            let target = match out {
                StubTarget::Leave => stubs.boundary.leave,
                StubTarget::LeaveRegion => inside.leave,
                StubTarget::Fill(register) => inside.fill[usize::from(*register)],
                StubTarget::LoadVectors => stubs.load_vectors,
                StubTarget::Syscall => stubs.syscall,
                StubTarget::Sysret => stubs.sysret,
            };
            let rel = target as i64 - (base + place + 4) as i64;
            t.code[*place..place + 4].copy_from_slice(&(rel as i32).to_le_bytes());
        }
        t.site_numbers.iter().for_each(|&place| add(&mut t.code, place, site));
        t.slots.iter().for_each(|&(place, n)| add(&mut t.code, place, 4 * (branch + n)));
        for exit in &mut t.sites {
            match exit {
                ExitSite::Link { place, .. } => *place += base as u32,
                ExitSite::Check { retry, .. } => *retry += base as u32,
                ExitSite::CrossPage { branch: number, .. } => *number += branch,
                ExitSite::Target { .. } | ExitSite::Dead { .. } | ExitSite::Interpret { .. } => {}
            }
        }
        Some(base as u32)
    }

    /// The stubs for regions that spill `spilled`.
    fn region_stubs(&mut self, cache: &TranslationCache, spilled: u16) -> Option<RegionStubs> {
        if spilled == scratch::STANDARD {
            return Some(self.generation.stubs.boundary);
        }
        if let Some(known) = self.region_stubs.get(&spilled) {
            return Some(*known);
        }
        let avx = thunk::HostFeatures::probe().has(thunk::Feature::Avx);
        let made = (cache.emits.for_region)(&self.generation.area, spilled, avx)?;
        self.region_stubs.insert(spilled, made);
        Some(made)
    }
}

/// Adds `n` to the 32 bits at `place`.
fn add(code: &mut [u8], place: usize, n: u32) {
    if let Some(word) = code[place..].first_chunk_mut() {
        *word = u32::from_le_bytes(*word).wrapping_add(n).to_le_bytes();
    }
}

/// Records the translation `t` of `region`, which stands at `base`.
fn record(generation: &Generation, region: &Region, t: Translation, base: u32) {
    let number = generation.regions.len();
    let entries = t.entries.iter().map(|(key, e)| (*key, e.placed(base, number))).collect();
    append(&generation.branches, t.cross_page.into_iter().map(|branch| branch.placed(base)));
    let causes: Vec<_> = figures::causes(&region.insns, &t.sites);
    append(
        &generation.sites,
        t.sites.into_iter().zip(causes).map(|(exit, cause)| Site::new(exit, cause)),
    );
    let mut frames: Vec<u64> = region.relies_on().map(|(gpa, _)| gpa >> 12).collect();
    frames.sort_unstable();
    frames.dedup();
    generation.regions.push(RegionRecord {
        base,
        len: t.code.len() as u32,
        entries,
        frames,
        fault_map: t.fault_map,
        dead: false.into(),
    });
}

fn append<T>(list: &AppendOnly<T>, new: impl Iterator<Item = T>) {
    new.for_each(|value| {
        list.push(value);
    });
}
