//! A region: basic blocks of one page that are translated together.

use super::address::Moves;
use super::flow::Class;
use super::insn::GuestInsn;
use crate::block::Key;
use crate::tlb::PAGE_MASK;

/// A straight run of instructions.
pub(super) struct BasicBlock {
    pub(super) key: Key,
    pub(super) start: i32,
    /// Where it falls through to.
    pub(super) end: i32,
    pub(super) first: usize,
    pub(super) count: usize,
    /// Edges from within the region.
    pub(super) predecessors: u32,
    /// Some edge from within the region goes backwards to it.
    pub(super) loop_head: bool,
    /// Status flags are needed at its start.
    pub(super) live_in: bool,
}

/// See the module.
pub(super) struct Region {
    pub(super) insns: Vec<GuestInsn>,
    /// The head first.
    pub(super) blocks: Vec<BasicBlock>,
    /// Some instruction uses vector registers.
    pub(super) vectors: bool,
    /// Its checks cover one access each (see `super::address`).
    pub(super) per_access: bool,
    /// The guest-physical page that its only instruction continues on.
    pub(super) second_page: Option<u64>,
    /// Code outside that shows status flags to be dead.
    pub(super) dependencies: Vec<CodeDependency>,
}

/// A piece of the page that the region relies on without containing it.
#[derive(Clone, Copy)]
pub(super) struct CodeDependency {
    pub(super) offset: u16,
    pub(super) len: u16,
}

impl Region {
    /// The guest's code that it relies on, each piece within one page: address and bytes.
    pub(super) fn relies_on(&self) -> impl Iterator<Item = (u64, u64)> {
        let page = self.blocks[0].key.gpa() & !PAGE_MASK;
        let pieces = self.blocks.iter().flat_map(move |b| {
            let (start, end) = (b.start as u64, b.end as u64);
            let here = end.min(PAGE_MASK + 1);
            let beyond = self.second_page.map(|second| (second, end - here));
            [Some((page + start, here - start)), beyond]
        });
        let around = self.dependencies.iter();
        let around = around.map(move |d| Some((page + u64::from(d.offset), u64::from(d.len))));
        pieces.chain(around).flatten().filter(|piece| piece.1 != 0)
    }

    /// The block that begins at page + `delta`.
    pub(super) fn at(&self, delta: i32) -> Option<usize> {
        self.blocks.iter().position(|b| b.start == delta)
    }

    /// Leaves instruction `n` to the interpreter; false if it is already.
    pub(super) fn leave(&mut self, n: usize) -> bool {
        let Some(g) = self.insns.get_mut(n) else { return false };
        g.moves = Moves::of(&g.i, Class::Other, &g.usage);
        !matches!(std::mem::replace(&mut g.class, Class::Other), Class::Other)
    }

    /// The block that instruction `n` belongs to.
    pub(super) fn block_of(&self, n: usize) -> Option<usize> {
        self.blocks.iter().position(|b| (b.first..b.first + b.count).contains(&n))
    }

    /// Whether `block` has one way in, from within the region: it begins with what its predecessor
    /// left in the scratch registers.
    pub(super) fn inherits(&self, block: usize) -> bool {
        let b = &self.blocks[block];
        block != 0 && b.predecessors == 1
    }

    pub(super) fn last(&self, block: usize) -> &GuestInsn {
        let b = &self.blocks[block];
        &self.insns[b.first + b.count - 1]
    }

    /// Where `block` may go by direct jumps and by falling through.
    pub(super) fn successors(&self, block: usize) -> [Option<i32>; 2] {
        let last = self.last(block);
        match last.class {
            Class::Jump => [Some(last.target()), None],
            Class::Jcc(_) => [Some(last.target()), Some(last.next())],
            class if class.leaves() => [None, None],
            _ => [Some(self.blocks[block].end), None],
        }
    }
}

/// The order in which blocks are emitted: each behind the one that falls through to it, where that
/// can be.
pub(super) fn layout(region: &Region) -> Vec<usize> {
    let mut order = Vec::with_capacity(region.blocks.len());
    let mut pending = vec![0];
    while let Some(mut b) = pending.pop() {
        while !order.contains(&b) {
            order.push(b);
            let [taken, through] = region.successors(b).map(|to| to.and_then(|to| region.at(to)));
            let (next, other) = match (taken, through) {
                (taken, Some(through)) => (Some(through), taken),
                (taken, None) => (taken, None),
            };
            pending.extend(other);
            match next {
                Some(next) => b = next,
                None => break,
            }
        }
    }
    order
}
