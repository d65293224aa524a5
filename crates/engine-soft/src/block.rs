//! Decoded blocks, keyed by the guest-physical address of their code and the mode they were decoded for.
//!
//! Linear addresses come and go; physical code stays: a block survives every TLB flush and context switch and dies only when a byte
//! of it is written (granules of 64 bytes) or the cache is full. Links from a block to its successors on the same page
//! are valid while `epoch` is the cache's; any death starts a new epoch, which severs all links at once.
//!
//! A block may be killed by its own store. Its memory therefore stays until the next [`BlockCache::bury`], and its remaining ops
//! are redirected to a handler that leaves it.
#![allow(unsafe_code)] // blocks are owned here and referred to by pointer; see docs/UNSAFE.md

use crate::op::{Handler, Op};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A straight run of decoded instructions. What the run loop reads of each block comes first, on one cache line.
#[repr(C, align(64))]
pub(crate) struct Block {
    /// The ops; the last one always leaves the block.
    pub(crate) ops: Box<[Op]>,
    /// Guest instructions (the last op may be a fall-through marker and none).
    pub(crate) instructions: u32,
    /// There is a second page: a copy of what `second_page` says.
    pub(crate) crosses: bool,
    /// Its translation.
    pub(crate) host: HostCode,
    /// Guest-physical page that the last instruction continues on, if it crosses a page boundary.
    pub(crate) second_page: Option<u64>,
    /// Bytes of code.
    pub(crate) len: u16,
    /// Whether that successor lies on the same page, so that a link is sound.
    pub(crate) linkable: [bool; 2],
    /// Successors for [`crate::op::Step::Taken`] and [`crate::op::Step::Through`].
    pub(crate) links: [Cell<*const Block>; 2],
    /// The epoch in which the links were made.
    pub(crate) link_epoch: [Cell<u64>; 2],
    pub(crate) key: Key,
}

/// What the translator keeps with a block.
#[derive(Default)]
#[repr(C)]
pub(crate) struct HostCode {
    /// Runs in the interpreter; `u32::MAX`: the translator has had it.
    pub(crate) heat: Cell<u32>,
    pub(crate) code: Cell<Option<Host>>,
    /// Numbers of the translations that its code is in.
    pub(crate) regions: RefCell<Vec<u32>>,
    /// A second translation, which checks each access by itself.
    pub(crate) narrow: Cell<Option<Host>>,
}

impl HostCode {
    /// Forgets the translations.
    fn separate(&self) {
        self.code.set(None);
        self.narrow.set(None);
    }
}

/// Where a block's translation lies: offsets in the code area.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// Entry from another page, with RIP in the address register.
    pub(crate) far: u32,
    /// Entry for who has put status flags by (`Context::flags`).
    pub(crate) aside: u32,
    /// Entry from the same page.
    pub(crate) near: u32,
    /// Entry from the same page with the vector registers loaded.
    pub(crate) body: u32,
    /// The translation's number.
    pub(crate) region: u32,
}

/// Guest-physical address in the low 56 bits, mode above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) const NONE: Self = Self(u64::MAX);

    pub(crate) const fn new(gpa: u64, mode: u8) -> Self {
        Self(gpa & ((1 << 56) - 1) | (mode as u64) << 56)
    }

    pub(crate) const fn gpa(self) -> u64 {
        self.0 & ((1 << 56) - 1)
    }

    /// The same mode at `gpa`.
    const fn elsewhere(self, gpa: u64) -> Self {
        Self::new(gpa, (self.0 >> 56) as u8)
    }

    /// Code of user mode.
    pub(crate) const fn is_user(self) -> bool {
        (self.0 >> 56) as u8 & crate::cpu::USER != 0
    }

    const fn slot(self) -> usize {
        ((self.0 ^ self.0 >> 13 ^ self.0 >> 56) as usize) & (JUMP_ENTRIES - 1)
    }
}

/// Spreads the words that blocks and pages are found by. A guest that makes them collide slows itself.
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

const JUMP_ENTRIES: usize = 1 << 15;
/// Ops kept before everything is thrown away.
const CAPACITY: usize = 2 << 20;

/// The translation of this number is good only as long as nothing is written to `len` bytes at `gpa`.
struct Peek {
    gpa: u64,
    len: u64,
    number: u32,
}

/// The blocks on one guest-physical page.
#[derive(Default)]
struct CodePage {
    /// Bit n: some block has code in bytes 64n to 64n+63.
    granules: u64,
    blocks: Vec<*mut Block>,
    /// Code that translations rely on without containing it.
    peeks: Vec<Peek>,
}

/// All blocks of one virtual processor.
pub(crate) struct BlockCache {
    blocks: Table<Key, *mut Block>,
    jump: Box<[(Key, *const Block)]>,
    pages: Table<u64, CodePage>,
    dead: Vec<*mut Block>,
    /// Translations that dead blocks are part of, to be made to leave before translated code runs again.
    pub(crate) dead_code: Vec<u32>,
    ops: usize,
    pub(crate) epoch: u64,
    pub(crate) decoded: u64,
    pub(crate) invalidated: u64,
    stale: Handler,
}

impl BlockCache {
    /// `stale` replaces the handlers of a killed block's ops: it must leave the block at its op's start.
    pub(crate) fn new(stale: Handler) -> Self {
        Self {
            blocks: Table::default(),
            jump: vec![(Key::NONE, std::ptr::null()); JUMP_ENTRIES].into_boxed_slice(),
            pages: Table::default(),
            dead: Vec::new(),
            dead_code: Vec::new(),
            ops: 0,
            epoch: 1,
            decoded: 0,
            invalidated: 0,
            stale,
        }
    }

    /// The block for `key`, if decoded. The pointer is good until the next [`BlockCache::bury`].
    #[inline(always)]
    pub(crate) fn find(&mut self, key: Key) -> Option<*const Block> {
        let (known, block) = self.jump[key.slot()];
        if known == key { Some(block) } else { self.find_slow(key) }
    }

    /// As [`BlockCache::find`], with the second page of a block that does not lie on one.
    #[inline(always)]
    pub(crate) fn find_with_second(&self, key: Key) -> Option<(*const Block, Option<u64>)> {
        let (known, block) = self.jump[key.slot()];
        // SAFETY: what is in `jump` is alive.
        let second = || unsafe { if (*block).crosses { (*block).second_page } else { None } };
        (known == key).then(|| (block, second()))
    }

    #[cold]
    fn find_slow(&mut self, key: Key) -> Option<*const Block> {
        let block = *self.blocks.get(&key)?;
        self.jump[key.slot()] = (key, block);
        Some(block)
    }

    /// The translation of the block for `key`, if there is one.
    pub(crate) fn translation(&self, key: Key) -> Option<Host> {
        // SAFETY: blocks in the table are alive.
        self.blocks.get(&key).and_then(|&block| unsafe { (*block).host.code.get() })
    }

    /// The translations of blocks that begin on the page of `key`, in its mode, with where on the page.
    pub(crate) fn translations_beside(&self, key: Key) -> impl Iterator<Item = (u64, Host)> {
        let page = key.gpa() & !0xfff;
        let blocks = self.pages.get(&(page >> 12)).into_iter().flat_map(|page| &page.blocks);
        blocks.filter_map(move |&block| {
            // SAFETY: blocks in the page tables are alive.
            let b = unsafe { &*block };
            let offset = b.key.gpa() & 0xfff;
            let host = b.host.code.get()?;
            (b.key == key.elsewhere(page | offset)).then_some((offset, host))
        })
    }

    /// Enters a block. True if its page held no code before: writes to it must now be watched.
    pub(crate) fn insert(&mut self, block: Block) -> (*const Block, bool) {
        if self.ops > CAPACITY {
            self.flush();
        }
        let (key, gpa, len) = (block.key, block.key.gpa(), u64::from(block.len));
        let second = block.second_page;
        self.ops += block.ops.len();
        self.decoded += 1;
        let block = Box::into_raw(Box::new(block));
        let mut fresh = false;
        let first_len = len.min(0x1000 - (gpa & 0xfff));
        fresh |= self.cover(gpa, first_len, block);
        if let Some(page) = second {
            fresh |= self.cover(page, len - first_len, block);
        }
        if let Some(old) = self.blocks.insert(key, block) {
            self.kill(old, false);
        }
        self.jump[key.slot()] = (key, block);
        (block, fresh)
    }

    fn cover(&mut self, gpa: u64, len: u64, block: *mut Block) -> bool {
        let page = self.pages.entry(gpa >> 12).or_default();
        let fresh = page.granules == 0;
        page.granules |= granules(gpa, len);
        page.blocks.push(block);
        fresh
    }

    /// Translation `number` relies on what the `len` bytes at `gpa` are, on a page that it has blocks on.
    pub(crate) fn peek(&mut self, gpa: u64, len: u64, number: u32) {
        if let Some(page) = self.pages.get_mut(&(gpa >> 12)) {
            page.granules |= granules(gpa, len);
            page.peeks.push(Peek { gpa, len, number });
        }
    }

    /// Whether any block has code on the page of `gpa`.
    pub(crate) fn is_code_page(&self, gpa: u64) -> bool {
        self.pages.contains_key(&(gpa >> 12))
    }

    /// Whether decoded code lies in the granules of `len` bytes at `gpa`.
    pub(crate) fn holds(&self, gpa: u64, len: u64) -> bool {
        self.pages.get(&(gpa >> 12)).is_some_and(|page| page.granules & granules(gpa, len) != 0)
    }

    /// `len` bytes at `gpa` (within one page) are about to change: kills the blocks there. True if the page holds no code any more.
    pub(crate) fn written(&mut self, gpa: u64, len: u64) -> bool {
        let Some(page) = self.pages.get_mut(&(gpa >> 12)) else { return true };
        if page.granules & granules(gpa, len) == 0 {
            return false;
        }
        let wrong = page.peeks.extract_if(.., |p| meet((p.gpa, p.len), (gpa, len)));
        self.dead_code.extend(wrong.map(|peek| peek.number));
        let hit: Vec<_> = page.blocks.iter().copied().filter(|&b| overlaps(b, gpa, len)).collect();
        for block in hit {
            self.kill(block, true);
        }
        !self.pages.contains_key(&(gpa >> 12))
    }

    fn kill(&mut self, block: *mut Block, mapped: bool) {
        // SAFETY: `block` came from `insert` and is freed only in `bury`; only shared access while it may be running.
        let b = unsafe { &*block };
        if mapped {
            self.blocks.remove(&b.key);
        }
        self.jump[b.key.slot()] = (Key::NONE, std::ptr::null());
        b.host.separate();
        self.dead_code.append(&mut b.host.regions.borrow_mut());
        for op in &b.ops {
            op.run.set(self.stale);
        }
        self.uncover(b.key.gpa() >> 12, block);
        if let Some(page) = b.second_page {
            self.uncover(page >> 12, block);
        }
        self.ops -= b.ops.len();
        self.dead.push(block);
        self.invalidated += 1;
        self.epoch += 1;
    }

    fn uncover(&mut self, number: u64, block: *mut Block) {
        let Some(page) = self.pages.get_mut(&number) else { return };
        page.blocks.retain(|&b| b != block);
        let peeked = page.peeks.iter().fold(0, |bits, p| bits | granules(p.gpa, p.len));
        page.granules =
            page.blocks.iter().fold(peeked, |bits, &b| bits | block_granules(b, number));
        if page.blocks.is_empty() {
            self.pages.remove(&number);
        }
    }

    /// Kills everything (the cache is full, or memory was replaced).
    pub(crate) fn flush(&mut self) {
        for block in self.blocks.drain().map(|(_, b)| b) {
            // SAFETY: as in `kill`.
            let b = unsafe { &*block };
            b.host.separate();
            self.dead_code.append(&mut b.host.regions.borrow_mut());
            for op in &b.ops {
                op.run.set(self.stale);
            }
            self.jump[b.key.slot()] = (Key::NONE, std::ptr::null());
            self.dead.push(block);
        }
        self.pages.clear();
        self.ops = 0;
        self.epoch += 1;
    }

    /// Separates all blocks from their translations.
    pub(crate) fn forget_translations(&mut self) {
        self.dead_code.clear();
        self.pages.values_mut().for_each(|page| page.peeks.clear());
        for &block in self.blocks.values() {
            // SAFETY: blocks in the table are alive.
            let host = unsafe { &(*block).host };
            host.separate();
            host.regions.borrow_mut().clear();
            host.heat.set(0);
        }
    }

    /// Frees the dead. No block may be running.
    #[inline(always)]
    pub(crate) fn bury(&mut self) {
        if !self.dead.is_empty() {
            self.bury_all();
        }
    }

    #[cold]
    fn bury_all(&mut self) {
        for block in self.dead.drain(..) {
            // SAFETY: made by `Box::into_raw` in `insert`, in no table any more, links to it are of an older epoch, and
            // the caller runs none.
            drop(unsafe { Box::from_raw(block) });
        }
    }
}

impl Drop for BlockCache {
    fn drop(&mut self) {
        self.flush();
        self.bury();
    }
}

/// The granules that `len` bytes at `gpa` touch, within one page.
fn granules(gpa: u64, len: u64) -> u64 {
    let first = (gpa & 0xfff) >> 6;
    let last = ((gpa & 0xfff) + len.max(1) - 1).min(0xfff) >> 6;
    (u64::MAX >> (63 - (last - first))) << first
}

/// The part of `block` on page `number`, as (gpa, len).
fn extent(block: *mut Block, number: u64) -> (u64, u64) {
    // SAFETY: blocks in the page tables are alive.
    let b = unsafe { &*block };
    let gpa = b.key.gpa();
    let first = u64::from(b.len).min(0x1000 - (gpa & 0xfff));
    if gpa >> 12 == number { (gpa, first) } else { (number << 12, u64::from(b.len) - first) }
}

fn block_granules(block: *mut Block, number: u64) -> u64 {
    let (gpa, len) = extent(block, number);
    granules(gpa, len)
}

fn overlaps(block: *mut Block, gpa: u64, len: u64) -> bool {
    meet(extent(block, gpa >> 12), (gpa, len))
}

/// Whether two pieces of memory, (gpa, len), have bytes in common.
const fn meet((a, a_len): (u64, u64), (b, b_len): (u64, u64)) -> bool {
    a < b + b_len && b < a + a_len
}
