//! Who owns the blocks: an arena of handles. A block is alive, dead, or freed, in this order, each
//! once.
//!
//! The run loop refers to blocks by pointer and may be inside one that dies by its own store. A
//! dead block's memory therefore stays until [`Arena::free_dead`], which the run loop calls where
//! it holds no pointer. A handle that is freed may be given to another block; dying twice is
//! refused, so no block is freed twice.

use super::Block;

/// The handle of a block, good until the block is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockId(u32);

struct Slot<C> {
    block: Option<Box<Block<C>>>,
    alive: bool,
}

pub(super) struct Arena<C> {
    slots: Vec<Slot<C>>,
    vacant: Vec<BlockId>,
    dead: Vec<BlockId>,
}

impl<C> Default for Arena<C> {
    fn default() -> Self {
        Self { slots: Vec::new(), vacant: Vec::new(), dead: Vec::new() }
    }
}

impl<C> Arena<C> {
    /// Takes `block` in, alive.
    pub(super) fn add(&mut self, block: Block<C>) -> BlockId {
        let slot = Slot { block: Some(Box::new(block)), alive: true };
        if let Some(id) = self.vacant.pop() {
            self.slots[id.0 as usize] = slot;
            return id;
        }
        self.slots.push(slot);
        BlockId((self.slots.len() - 1) as u32)
    }

    /// The block, if it is alive.
    pub(super) fn get(&self, id: BlockId) -> Option<&Block<C>> {
        let slot = self.slots.get(id.0 as usize).filter(|slot| slot.alive)?;
        slot.block.as_deref()
    }

    /// Declares the block dead and tells what it was; `None`: it was dead already.
    pub(super) fn retire(&mut self, id: BlockId) -> Option<&Block<C>> {
        let slot = self.slots.get_mut(id.0 as usize).filter(|slot| slot.alive)?;
        slot.alive = false;
        self.dead.push(id);
        slot.block.as_deref()
    }

    /// Whether nothing is dead that is not freed.
    #[inline(always)]
    pub(super) fn is_clean(&self) -> bool {
        self.dead.is_empty()
    }

    /// Frees the dead. `check` sees each before it goes.
    pub(super) fn free_dead(&mut self, mut check: impl FnMut(BlockId, &Block<C>)) {
        while let Some(id) = self.dead.pop() {
            let slot = &mut self.slots[id.0 as usize];
            if let Some(block) = slot.block.take() {
                check(id, &block);
                self.vacant.push(id);
            }
        }
    }
}
