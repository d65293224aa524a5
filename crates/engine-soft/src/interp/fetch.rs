//! Finds the block at RIP: instruction TLB, block cache, and on a miss the decoder.

use crate::block::Key;
use crate::core::Block;
use crate::core::Core;
use crate::decode::{self, Decoded, Window};
use crate::mmu::Target;
use crate::observer::CodeCache;
use crate::op::{Fallible, Fault, Step};
use crate::tlb::{self, PAGE_MASK};
use x86::addr::{Gpa, Width};
use x86::exception::Exception;
use x86::state::{Mode, Seg, gpr};

/// How much of the code at RIP one block takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// As much as runs in one go.
    Run,
    /// One instruction, for stepping.
    Instruction,
}

/// Mode bit of blocks that hold a single instruction, for stepping.
const STEP: u8 = 1 << 4;

impl Extent {
    fn mode_bit(self) -> u8 {
        if self == Self::Instruction { STEP } else { 0 }
    }
}

/// The block at RIP, decoded on a miss. `None`: the fetch faulted, and the exception has been
/// delivered.
#[inline(always)]
pub(crate) fn block_at_rip(core: &mut Core, extent: Extent) -> Option<*const Block> {
    if core.mode == Mode::Long64 && extent == Extent::Run {
        let la = core.state.rip;
        let entry = core.fetch_entry(la);
        if entry.tag == la & !PAGE_MASK {
            let key = Key::new(entry.gpa | la & PAGE_MASK, core.mode_key);
            if let Some((block, second)) = core.mmu.blocks.find_with_second(key)
                && second.is_none_or(|page| follows(core, la, page))
            {
                return Some(block);
            }
        }
    }
    match find_or_decode(core, extent) {
        Ok(block) => Some(block),
        Err(Fault) => {
            super::deliver::fault_here(core);
            None
        }
    }
}

/// Whether the page after `la`'s is known to be the guest-physical `page`.
fn follows(core: &Core, la: u64, page: u64) -> bool {
    let next = (la | PAGE_MASK).wrapping_add(1);
    let entry = core.fetch_entry(next);
    entry.tag == next && entry.gpa == page
}

/// Performs the instruction at RIP without traps or delivery. `None`: it could not be fetched.
pub(crate) fn perform(core: &mut Core) -> Option<Step> {
    let block = find_or_decode(core, Extent::Instruction).ok()?;
    // SAFETY: the lookup above found `block` alive, and only the run loop frees blocks.
    #[allow(unsafe_code)]
    let op = unsafe { (*block).ops.first()? };
    core.state.gpr[gpr::BLOCK_IP] = core.state.rip;
    let step = (op.run.get())(core, op);
    if step == Step::Next {
        core.state.rip = core.next_ip(op);
    }
    Some(step)
}

/// The linear address of RIP; #GP(0) beyond the code segment's limit.
fn linear_rip(core: &mut Core) -> Fallible<u64> {
    let rip = core.state.rip;
    if core.mode == Mode::Long64 {
        return Ok(rip);
    }
    let cs = core.state.seg[Seg::Cs as usize];
    if rip > u64::from(cs.limit) {
        return core.gp();
    }
    Ok(cs.base.wrapping_add(rip) & 0xffff_ffff)
}

fn translate(core: &mut Core, la: u64) -> Fallible<Target> {
    let privilege = core.privilege();
    let view = core.mmu.tlb.view(core.mmu.view(privilege));
    let entry = view.fetch[tlb::fetch_index(la)];
    if entry.tag == la & !PAGE_MASK {
        let gpa = entry.gpa | la & PAGE_MASK;
        if let Some(host) = core.mmu.ram.host_address(Gpa(gpa), 1) {
            return Ok(Target::Ram { host, gpa });
        }
    }
    let target = core.mmu.fetch_target(la, privilege);
    core.check(target)
}

fn gpa_of(target: Target) -> u64 {
    match target {
        Target::Ram { gpa, .. } | Target::Device { gpa } => gpa,
    }
}

#[inline(never)]
fn find_or_decode(core: &mut Core, extent: Extent) -> Fallible<*const Block> {
    core.mmu.begin();
    let la = linear_rip(core)?;
    let gpa = gpa_of(translate(core, la)?);
    let key = Key::new(gpa, core.mode_key | extent.mode_bit());
    if let Some(found) = core.mmu.blocks.find(key)
        && let Some(block) = valid_here(core, found, la, extent)?
    {
        return Ok(block);
    }
    let block = decode_at(core, key, la, gpa, extent)?;
    match valid_here(core, block, la, extent)? {
        Some(block) => Ok(block),
        None => core.gp(),
    }
}

/// Revalidates a cached block for `la`: its second page must be where it was, and it must lie
/// within the code segment. `None`: the block must be decoded anew.
#[allow(unsafe_code)]
fn valid_here(
    core: &mut Core,
    block: *const Block,
    la: u64,
    extent: Extent,
) -> Fallible<Option<*const Block>> {
    // SAFETY: the caller has found `block` in the cache or inserted it, and only the run loop frees
    // blocks.
    let b = unsafe { &*block };
    if let Some(page) = b.second_page {
        let next = next_page(core, la);
        if gpa_of(translate(core, next)?) != page {
            return Ok(None);
        }
    }
    if core.mode != Mode::Long64 {
        let limit = u64::from(core.state.seg[Seg::Cs as usize].limit);
        let last = core.state.rip + u64::from(b.len).max(1) - 1;
        if last > limit && limit != 0xffff_ffff {
            // A block runs as a whole only if all of it is within the limit.
            if extent == Extent::Instruction || b.instructions == 1 {
                return core.gp();
            }
            return find_or_decode(core, Extent::Instruction).map(Some);
        }
    }
    Ok(Some(block))
}

/// The page after that of `la`, wrapped to the mode's address space.
fn next_page(core: &Core, la: u64) -> u64 {
    let next = (la | PAGE_MASK).wrapping_add(1);
    if core.mode == Mode::Long64 { next } else { next & 0xffff_ffff }
}

fn read_code(core: &mut Core, gpa: u64, into: &mut [u8]) {
    if core.mmu.ram.read(Gpa(gpa), into).is_err() {
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = core
                .machine
                .io()
                .map_or(0xff, |io| io.mmio_read(Gpa(gpa + i as u64), Width::B1) as u8);
        }
    }
}

fn decode_at(
    core: &mut Core,
    key: Key,
    la: u64,
    gpa: u64,
    extent: Extent,
) -> Fallible<*const Block> {
    if core.thunks.crowded() {
        start_anew(core);
    } else if core.mmu.blocks.is_full() {
        core.mmu.blocks.flush();
    }
    let room = (PAGE_MASK + 1 - (gpa & PAGE_MASK)) as usize;
    let mut second = None;
    let max = if extent == Extent::Instruction { 1 } else { usize::MAX };
    for _ in 0..4 {
        core.mmu.hold_code(gpa, second);
        let mut window = Window::new(room, |bytes| read_code(core, gpa, bytes));
        if let Some(page) = second {
            window.extend(|bytes| read_code(core, page, bytes));
        }
        let rip = core.state.rip;
        match decode::decode(core, key, rip, &window, second, max) {
            Decoded::Block(block) => return Ok(core.mmu.blocks.insert(block)),
            Decoded::Crosses => {
                let next = next_page(core, la);
                second = Some(gpa_of(translate(core, next)?));
            }
            Decoded::Full => start_anew(core),
        }
    }
    core.raise(Exception::ud())
}

/// Drops all blocks and thunks.
fn start_anew(core: &mut Core) {
    core.mmu.blocks.flush();
    core.thunks.reset();
}
