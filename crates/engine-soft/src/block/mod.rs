//! Decoded blocks, keyed by the guest-physical address of their code and the mode they were decoded
//! for.
//!
//! Linear addresses come and go; physical code stays: a block survives every TLB flush and context
//! switch. It dies only when a byte of it is written (granules of 64 bytes) or the cache is full.
//! Links from a block to its successors on the same page are valid while `epoch` is the cache's;
//! any death starts a new epoch, which severs all links at once.

mod arena;
mod cache;
mod page;

pub(crate) use arena::BlockId;
pub(crate) use cache::BlockCache;
pub(crate) use page::{granules, meet};

use crate::op::{Handler, Op};
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A straight run of decoded instructions. What the run loop reads of each block comes first, on
/// one cache line.
#[repr(C, align(64))]
pub(crate) struct Block<C> {
    /// The ops; the last one always leaves the block.
    pub(crate) ops: Box<[Op<C>]>,
    /// Guest instructions (the last op may be a fall-through marker and none).
    pub(crate) instructions: u32,
    /// There is a second page: a copy of what `second_page` says.
    pub(crate) crosses: bool,
    /// Its translation.
    pub(crate) translation: TranslationSlot,
    /// Guest-physical page that the last instruction continues on, if it crosses a page boundary.
    pub(crate) second_page: Option<u64>,
    /// Bytes of code.
    pub(crate) len: u16,
    /// Whether that successor lies on the same page, so that a link is sound.
    pub(crate) linkable: [bool; 2],
    /// Successors for [`crate::op::Step::Taken`] and [`crate::op::Step::Through`].
    pub(crate) links: [Cell<*const Self>; 2],
    /// The epoch in which the links were made.
    pub(crate) link_epoch: [Cell<u64>; 2],
    pub(crate) key: Key,
}

/// What the translator keeps with a block.
#[derive(Default)]
#[repr(C)]
pub(crate) struct TranslationSlot {
    /// Runs in the interpreter; `u32::MAX`: the translator has had it.
    pub(crate) heat: Cell<u32>,
    /// The translation whose checks serve several accesses each.
    pub(crate) shared: Cell<Option<Entries>>,
    /// The translation whose accesses are checked each by itself.
    pub(crate) per_access: Cell<Option<Entries>>,
}

impl TranslationSlot {
    /// Forgets the translations.
    fn separate(&self) {
        self.shared.set(None);
        self.per_access.set(None);
    }
}

/// Where a block's translation lies: offsets in the code area.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries {
    /// Entry from another page, with RIP in the address register.
    pub(crate) cross_page: u32,
    /// Entry with status flags saved (`Context::flags`).
    pub(crate) flags_saved: u32,
    /// Entry from the same page.
    pub(crate) near: u32,
    /// Entry from the same page with the vector registers loaded.
    pub(crate) body: u32,
    /// Where the former two lead once the translation is dead, and where the latter two do.
    pub(crate) dead_saved: u32,
    pub(crate) dead: u32,
    /// The translation's number.
    pub(crate) region: u32,
}

impl Entries {
    /// The same, of region `region`, whose code stands at `base` rather than at 0.
    pub(crate) fn placed(&self, base: u32, region: u32) -> Self {
        Self {
            cross_page: base + self.cross_page,
            flags_saved: base + self.flags_saved,
            near: base + self.near,
            body: base + self.body,
            dead_saved: base + self.dead_saved,
            dead: base + self.dead,
            region,
        }
    }
}

/// Mode bit of block keys: SSE instructions need no check.
pub(crate) const SSE_ON: u8 = 1 << 5;
/// Mode bit of block keys: AVX instructions need no check.
pub(crate) const AVX_ON: u8 = 1 << 6;
/// Mode bit of block keys: not at level 0.
pub(crate) const USER: u8 = 1 << 7;

/// Guest-physical address in the low 56 bits, mode above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) const NONE: Self = Self(u64::MAX);
    /// What memory of zeros holds.
    const ZERO: Self = Self(0);

    pub(crate) const fn new(gpa: u64, mode: u8) -> Self {
        Self(gpa & ((1 << 56) - 1) | (mode as u64) << 56)
    }

    pub(crate) const fn gpa(self) -> u64 {
        self.0 & ((1 << 56) - 1)
    }

    /// The same mode at `gpa`.
    pub(crate) const fn elsewhere(self, gpa: u64) -> Self {
        Self::new(gpa, (self.0 >> 56) as u8)
    }

    /// Code of user mode.
    pub(crate) const fn is_user(self) -> bool {
        (self.0 >> 56) as u8 & USER != 0
    }

    /// A place among `entries`, a power of two.
    const fn slot(self, entries: usize) -> usize {
        ((self.0 ^ self.0 >> 13 ^ self.0 >> 56) as usize) & (entries - 1)
    }
}

/// Spreads the words that blocks and pages are found by. A guest that makes them collide slows
/// itself.
#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, word: u64) {
        // The table takes its place from the low bits and its tag from the high ones.
        let product = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

/// By words that need not be spread well.
pub(crate) type Table<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

impl<C> Block<C> {
    /// The parts of its code, each within one page: guest-physical address and bytes. Both may lie
    /// in one frame.
    fn extents(&self) -> [(u64, u64); 2] {
        let (gpa, len) = (self.key.gpa(), u64::from(self.len));
        let first = len.min(0x1000 - (gpa & 0xfff));
        [(gpa, first), self.second_page.map_or((0, 0), |page| (page, len - first))]
    }

    /// The pages that its code is on, as frame numbers; one of them twice counts once.
    fn frames(&self) -> impl Iterator<Item = u64> + use<C> {
        let first = self.key.gpa() >> 12;
        let second = self.second_page.map(|page| page >> 12).filter(|&page| page != first);
        std::iter::once(first).chain(second)
    }

    /// Makes a run of it end at the next op: `stale` leaves the block at its op's start.
    fn redirect(&self, stale: Handler<C>) {
        for op in &self.ops {
            op.run.set(stale);
        }
    }
}
