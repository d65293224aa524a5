//! All blocks of one virtual processor: found by key, killed by what is written to their code.

use super::arena::Arena;
use super::page::{CodePage, granules, meet};
use super::{Block, BlockId, Entries, Key, Table};
use crate::observer::CodeCache;
use crate::op::Handler;
use crate::zeroed::Zeroed;
use std::io;

/// Entries of the table that is asked first.
const JUMP_ENTRIES: usize = 1 << 15;
/// Ops kept before everything is thrown away.
const CAPACITY: usize = 2 << 20;

/// See the module.
pub(crate) struct BlockCache<C> {
    arena: Arena<C>,
    blocks: Table<Key, BlockId>,
    /// Pointers to living blocks.
    jump: Zeroed<[(Key, *const Block<C>); JUMP_ENTRIES]>,
    pages: Table<u64, CodePage>,
    /// Pages that have lost their last block, for others to be told.
    released: Vec<u64>,
    ops: usize,
    pub(crate) epoch: u64,
    pub(crate) decoded: u64,
    pub(crate) invalidated: u64,
    stale: Handler<C>,
}

impl<C> BlockCache<C> {
    /// `stale` replaces the handlers of a killed block's ops: it must leave the block at its op's
    /// start.
    ///
    /// # Errors
    /// The host has no address space left.
    #[allow(unsafe_code)] // a table of zeros; see docs/UNSAFE.md
    pub(crate) fn new(stale: Handler<C>) -> io::Result<Self> {
        // SAFETY: each entry is an integer and a pointer that may be null.
        let mut jump: Zeroed<[(Key, *const Block<C>); _]> = unsafe { Zeroed::new() }?;
        // A key of zeros belongs there: it must lead to no block.
        jump[Key::ZERO.slot(JUMP_ENTRIES)] = (Key::NONE, std::ptr::null());
        Ok(Self {
            arena: Arena::default(),
            blocks: Table::default(),
            jump,
            pages: Table::default(),
            released: Vec::new(),
            ops: 0,
            epoch: 1,
            decoded: 0,
            invalidated: 0,
            stale,
        })
    }

    /// The block for `key`, if decoded, as the run loop refers to it: good until the next
    /// [`BlockCache::free_dead`].
    #[inline(always)]
    pub(crate) fn find(&mut self, key: Key) -> Option<*const Block<C>> {
        let (known, block) = self.jump[key.slot(JUMP_ENTRIES)];
        if known == key { Some(block) } else { self.find_slow(key) }
    }

    #[cold]
    fn find_slow(&mut self, key: Key) -> Option<*const Block<C>> {
        let block = std::ptr::from_ref(self.get(key)?);
        self.jump[key.slot(JUMP_ENTRIES)] = (key, block);
        Some(block)
    }

    /// As [`BlockCache::find`] by the first table alone, with the second page of a block that does
    /// not lie on one.
    #[inline(always)]
    #[allow(unsafe_code)] // no lookup in the arena on the instruction path; see docs/UNSAFE.md
    pub(crate) fn find_with_second(&self, key: Key) -> Option<(*const Block<C>, Option<u64>)> {
        let (known, block) = self.jump[key.slot(JUMP_ENTRIES)];
        // SAFETY: `jump` names living blocks only: `kill` and `flush` take each out, and the arena
        // frees none that lives.
        let second = || unsafe { if (*block).crosses { (*block).second_page } else { None } };
        (known == key).then(|| (block, second()))
    }

    /// The block for `key`, if decoded.
    pub(crate) fn get(&self, key: Key) -> Option<&Block<C>> {
        self.arena.get(*self.blocks.get(&key)?)
    }

    /// The translation of the block for `key`, if there is one.
    pub(crate) fn translation(&self, key: Key) -> Option<Entries> {
        self.get(key).and_then(|block| block.translation.shared.get())
    }

    /// Whether everything should be thrown away before more is entered.
    pub(crate) fn is_full(&self) -> bool {
        self.ops > CAPACITY
    }

    /// Enters a block, whose pages are open.
    pub(crate) fn insert(&mut self, block: Block<C>) -> *const Block<C> {
        let (key, extents) = (block.key, block.extents());
        self.ops += block.ops.len();
        self.decoded += 1;
        let frames = block.frames();
        let id = self.arena.add(block);
        for frame in frames {
            let page = self.pages.entry(frame).or_default();
            page.granules |= covered(extents, frame);
            page.blocks.push(id);
        }
        if let Some(old) = self.blocks.insert(key, id) {
            self.kill(old);
        }
        let block = self.arena.get(id).map_or(std::ptr::null(), std::ptr::from_ref);
        self.jump[key.slot(JUMP_ENTRIES)] = (key, block);
        block
    }

    /// `len` bytes at `gpa` (within one page) are about to change: kills the blocks there. True if
    /// the page holds no code any more.
    fn written_on_page(&mut self, gpa: u64, len: u64) -> bool {
        let Some(page) = self.pages.get_mut(&(gpa >> 12)) else { return true };
        if page.blocks.is_empty() {
            // It was opened, and decoding came to nothing.
            self.close_page(gpa >> 12);
            return true;
        }
        if page.granules & granules((gpa, len)) == 0 {
            return false;
        }
        let arena = &self.arena;
        let hit = |id: &BlockId| {
            arena.get(*id).is_some_and(|b| b.extents().iter().any(|&part| meet(part, (gpa, len))))
        };
        let hit: Vec<_> = page.blocks.iter().copied().filter(hit).collect();
        for id in hit {
            self.kill(id);
        }
        !self.pages.contains_key(&(gpa >> 12))
    }

    fn close_page(&mut self, frame: u64) {
        if self.pages.remove(&frame).is_some() {
            self.released.push(frame << 12);
        }
    }

    /// Takes a block out of every table. One that is dead already is left as it is.
    fn kill(&mut self, id: BlockId) {
        let Some(block) = self.arena.retire(id) else { return };
        block.redirect(self.stale);
        block.translation.separate();
        let (key, frames) = (block.key, block.frames());
        self.ops -= block.ops.len();
        if self.blocks.get(&key) == Some(&id) {
            self.blocks.remove(&key);
        }
        self.jump[key.slot(JUMP_ENTRIES)] = (Key::NONE, std::ptr::null());
        for frame in frames {
            self.uncover(frame, id);
        }
        self.invalidated += 1;
        self.epoch += 1;
    }

    fn uncover(&mut self, frame: u64, id: BlockId) {
        let Some(page) = self.pages.get_mut(&frame) else { return };
        page.blocks.retain(|&other| other != id);
        if page.blocks.is_empty() {
            self.close_page(frame);
            return;
        }
        let blocks = page.blocks.iter().filter_map(|&id| self.arena.get(id));
        page.granules = blocks.fold(0, |bits, b| bits | covered(b.extents(), frame));
    }

    /// Kills everything (the cache is full, or memory was replaced).
    fn kill_all(&mut self) {
        for (key, id) in self.blocks.drain() {
            let Some(block) = self.arena.retire(id) else { continue };
            block.redirect(self.stale);
            block.translation.separate();
            self.jump[key.slot(JUMP_ENTRIES)] = (Key::NONE, std::ptr::null());
        }
        self.released.extend(self.pages.drain().map(|(frame, _)| frame << 12));
        self.ops = 0;
        self.epoch += 1;
    }

    /// Separates all blocks from their translations.
    pub(crate) fn forget_translations(&mut self) {
        for block in self.blocks.values().filter_map(|&id| self.arena.get(id)) {
            block.translation.separate();
            block.translation.heat.set(0);
        }
    }

    /// Frees the dead. The caller holds no pointer to a block, but for one that has been found
    /// since the last death.
    #[inline(always)]
    pub(crate) fn free_dead(&mut self) {
        if !self.arena.is_clean() {
            self.free_all();
        }
    }

    #[cold]
    fn free_all(&mut self) {
        let Self { arena, blocks, jump, pages, .. } = self;
        arena.free_dead(|id, block| {
            debug_assert_ne!(blocks.get(&block.key), Some(&id), "a dead block is in the table");
            debug_assert!(
                !std::ptr::eq(jump[block.key.slot(JUMP_ENTRIES)].1, block),
                "a dead block is in the first table"
            );
            debug_assert!(
                block.frames().all(|f| pages.get(&f).is_none_or(|p| !p.blocks.contains(&id))),
                "a dead block is on a page"
            );
        });
    }
}

/// The granules of page `frame` that the parts of a block touch.
fn covered(extents: [(u64, u64); 2], frame: u64) -> u64 {
    let here = extents.into_iter().filter(|&(gpa, _)| gpa >> 12 == frame);
    here.fold(0, |bits, part| bits | granules(part))
}

impl<C> CodeCache for BlockCache<C> {
    fn is_code_page(&self, gpa: u64) -> bool {
        self.pages.contains_key(&(gpa >> 12))
    }

    fn open_page(&mut self, gpa: u64) {
        self.pages.entry(gpa >> 12).or_default();
    }

    fn holds(&self, gpa: u64, len: u64) -> bool {
        self.pages.get(&(gpa >> 12)).is_some_and(|page| page.granules & granules((gpa, len)) != 0)
    }

    fn written(&mut self, gpa: u64, len: u64) {
        self.written_on_page(gpa, len);
    }

    fn written_pages(&mut self, mut gpa: u64, len: u64) {
        let end = gpa.saturating_add(len);
        while gpa < end {
            let page_end = (gpa | 0xfff).saturating_add(1).min(end);
            self.written_on_page(gpa, page_end - gpa);
            gpa = page_end;
        }
    }

    fn flush(&mut self) {
        self.kill_all();
    }

    fn released(&mut self) -> &mut Vec<u64> {
        &mut self.released
    }
}
