//! Recovers status flags that an address check has overwritten, where translated code stops.
//!
//! Flags that the program replaces before it reads them are not saved around a check (ADR 0016),
//! but the frame of a fault in between shows them. Most of them follow from registers that are
//! still there: those of a comparison from its operands, those of a sum from the sum and what was
//! added. The translator notes which instruction made the flags, and whether its operands are as it
//! left them. At a stop the instruction is executed once more on copies. That costs nothing where
//! nothing stops.

use super::flow::{Class, FlagUse};
use super::insn::GuestInsn;
use super::recipe::Recipe;
use super::region::{BasicBlock, Region};

/// What is known behind `g`, before which it was `before`.
fn behind(g: &GuestInsn, before: Option<Recipe>) -> Option<Recipe> {
    match g.usage.flags {
        FlagUse::Replaces => Recipe::of(&g.i),
        FlagUse::Changes => None,
        FlagUse::Reads if g.i.rflags_modified() & super::flow::STATUS != 0 => None,
        FlagUse::Reads | FlagUse::Leaves => {
            before.filter(|recipe| recipe.registers() & g.written() == 0)
        }
    }
}

/// Notes in each instruction of `region` how the flags before it can be had.
pub(super) fn note(region: &mut Region) {
    let mut ends = vec![None; region.blocks.len()];
    for b in 0..region.blocks.len() {
        let mut recipe = match b {
            0 if region.per_access && region.blocks[0].predecessors == 0 => Some(Recipe::NOTED),
            _ if region.inherits(b) => predecessor(region, b).and_then(|p| ends[p]),
            _ => None,
        };
        let BasicBlock { first, count, .. } = region.blocks[b];
        for g in &mut region.insns[first..first + count] {
            g.recipe = recipe.filter(|recipe| kept(g, recipe));
            recipe = behind(g, recipe);
        }
        ends[b] = recipe;
    }
}

/// The block before that goes on to `block`: that one found it.
fn predecessor(region: &Region, block: usize) -> Option<usize> {
    let start = region.blocks[block].start;
    (0..block).find(|&p| region.successors(p).contains(&Some(start)))
}

/// Whether `g` may stop with its registers changed, before it is done: a repeated instruction is
/// followed by a poll.
fn kept(g: &GuestInsn, recipe: &Recipe) -> bool {
    !matches!(g.class, Class::Repeat(_)) || recipe.registers() & g.written() == 0
}
