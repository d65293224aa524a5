//! Chooses the three registers that a region spills.

use super::address::{PAGE_BASE, expression_of};
use super::asm::{RAX, RSP};
use super::flow::Class;
use super::region::Region;
use super::scratch;
use super::scratch::bits;

const RDX: u8 = 2;

/// Which registers to spill: those the region uses least, weighing loops.
pub(super) fn choose(region: &Region) -> u16 {
    /// Uses that moving registers at the boundary costs, each way.
    const MOVE: u32 = 6;
    if !region.blocks.iter().any(|b| b.loop_head) {
        return scratch::STANDARD;
    }
    let mut uses = [0u32; 16];
    for (n, block) in region.blocks.iter().enumerate() {
        let weight = if in_loop(region, n) { 8 } else { 1 };
        for g in &region.insns[block.first..block.first + block.count] {
            let mut mask = g.usage.registers;
            if let Some((at, _)) = matches!(g.class, Class::Memory(_) | Class::Bit(_) | Class::Lea)
                .then(|| expression_of(&g.i, false))
                .flatten()
            {
                for r in [at.base, at.index].into_iter().filter(|r| *r < PAGE_BASE) {
                    mask |= 1 << r;
                }
            }
            bits(mask).for_each(|r| uses[usize::from(r)] += weight);
        }
    }
    // RAX, RDX and RSP stay; the least used of the others, the standard ones first.
    let mut order: Vec<u8> = (0..16).filter(|r| ![RAX, RDX, RSP].contains(r)).collect();
    order.sort_by_key(|r| (uses[usize::from(*r)], scratch::STANDARD & 1 << r == 0));
    let chosen = order[..scratch::COUNT].iter().fold(0, |mask, r| mask | 1u16 << r);
    let cost = |mask: u16| bits(mask).map(|r| uses[usize::from(r)]).sum::<u32>();
    if cost(chosen) + 2 * MOVE >= cost(scratch::STANDARD) { scratch::STANDARD } else { chosen }
}

/// Whether block `n` lies between a loop's head and the branch back to it.
fn in_loop(region: &Region, n: usize) -> bool {
    let start = region.blocks[n].start;
    region.blocks.iter().enumerate().any(|(from, b)| {
        region.successors(from).into_iter().flatten().any(|to| {
            to <= region.last(from).delta && region.at(to).is_some() && (to..b.end).contains(&start)
        })
    })
}

/// Any three that may be: for tests, which run everything once and would see the standard ones
/// only.
pub(super) fn any(region: &Region) -> u16 {
    let mut seed = region.insns.iter().fold(0x9e37_79b9u32, |seed, g| {
        g.bytes().iter().fold(seed, |seed, b| (seed ^ u32::from(*b)).wrapping_mul(0x0100_0193))
    });
    let mut mask = 0u16;
    while mask.count_ones() < scratch::COUNT as u32 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let register = (seed >> 28) as u8;
        if ![RAX, RDX, RSP].contains(&register) {
            mask |= 1 << register;
        }
    }
    mask
}
