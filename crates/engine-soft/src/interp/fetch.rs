//! Finds the block at RIP: instruction TLB, block cache, and on a miss the decoder.

use crate::block::Key;
use crate::cpu::Block;
use crate::cpu::Cpu;
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
pub(crate) fn block_at_rip(cpu: &mut Cpu, extent: Extent) -> Option<*const Block> {
    if cpu.mode == Mode::Long64 && extent == Extent::Run {
        let la = cpu.state.rip;
        let entry = cpu.fetch_entry(la);
        if entry.tag == la & !PAGE_MASK {
            let key = Key::new(entry.gpa | la & PAGE_MASK, cpu.mode_key);
            if let Some((block, second)) = cpu.mmu.blocks.find_with_second(key)
                && second.is_none_or(|page| follows(cpu, la, page))
            {
                return Some(block);
            }
        }
    }
    match find_or_decode(cpu, extent) {
        Ok(block) => Some(block),
        Err(Fault) => {
            super::deliver::fault_here(cpu);
            None
        }
    }
}

/// Whether the page after `la`'s is known to be the guest-physical `page`.
fn follows(cpu: &Cpu, la: u64, page: u64) -> bool {
    let next = (la | PAGE_MASK).wrapping_add(1);
    let entry = cpu.fetch_entry(next);
    entry.tag == next && entry.gpa == page
}

/// Performs the instruction at RIP without traps or delivery. `None`: it could not be fetched.
pub(crate) fn perform(cpu: &mut Cpu) -> Option<Step> {
    let block = find_or_decode(cpu, Extent::Instruction).ok()?;
    // SAFETY: the lookup above found `block` alive, and only the run loop frees blocks.
    #[allow(unsafe_code)]
    let op = unsafe { (*block).ops.first()? };
    cpu.state.gpr[gpr::BLOCK_IP] = cpu.state.rip;
    let step = (op.run.get())(cpu, op);
    if step == Step::Next {
        cpu.state.rip = cpu.next_ip(op);
    }
    Some(step)
}

/// The linear address of RIP; #GP(0) beyond the code segment's limit.
fn linear_rip(cpu: &mut Cpu) -> Fallible<u64> {
    let rip = cpu.state.rip;
    if cpu.mode == Mode::Long64 {
        return Ok(rip);
    }
    let cs = cpu.state.seg[Seg::Cs as usize];
    if rip > u64::from(cs.limit) {
        return cpu.gp();
    }
    Ok(cs.base.wrapping_add(rip) & 0xffff_ffff)
}

fn translate(cpu: &mut Cpu, la: u64) -> Fallible<Target> {
    let privilege = cpu.privilege();
    let view = cpu.mmu.tlb.view(cpu.mmu.view(privilege));
    let entry = view.fetch[tlb::fetch_index(la)];
    if entry.tag == la & !PAGE_MASK {
        let gpa = entry.gpa | la & PAGE_MASK;
        if let Some(host) = cpu.mmu.ram.host_address(Gpa(gpa), 1) {
            return Ok(Target::Ram { host, gpa });
        }
    }
    let target = cpu.mmu.fetch_target(la, privilege);
    cpu.check(target)
}

fn gpa_of(target: Target) -> u64 {
    match target {
        Target::Ram { gpa, .. } | Target::Device { gpa } => gpa,
    }
}

#[inline(never)]
fn find_or_decode(cpu: &mut Cpu, extent: Extent) -> Fallible<*const Block> {
    let la = linear_rip(cpu)?;
    let gpa = gpa_of(translate(cpu, la)?);
    let key = Key::new(gpa, cpu.mode_key | extent.mode_bit());
    if let Some(found) = cpu.mmu.blocks.find(key)
        && let Some(block) = valid_here(cpu, found, la, extent)?
    {
        return Ok(block);
    }
    let block = decode_at(cpu, key, la, gpa, extent)?;
    match valid_here(cpu, block, la, extent)? {
        Some(block) => Ok(block),
        None => cpu.gp(),
    }
}

/// Revalidates a cached block for `la`: its second page must be where it was, and it must lie
/// within the code segment. `None`: the block must be decoded anew.
#[allow(unsafe_code)]
fn valid_here(
    cpu: &mut Cpu,
    block: *const Block,
    la: u64,
    extent: Extent,
) -> Fallible<Option<*const Block>> {
    // SAFETY: the caller has found `block` in the cache or inserted it, and only the run loop frees
    // blocks.
    let b = unsafe { &*block };
    if let Some(page) = b.second_page {
        let next = next_page(cpu, la);
        if gpa_of(translate(cpu, next)?) != page {
            return Ok(None);
        }
    }
    if cpu.mode != Mode::Long64 {
        let limit = u64::from(cpu.state.seg[Seg::Cs as usize].limit);
        let last = cpu.state.rip + u64::from(b.len).max(1) - 1;
        if last > limit && limit != 0xffff_ffff {
            // A block runs as a whole only if all of it is within the limit.
            if extent == Extent::Instruction || b.instructions == 1 {
                return cpu.gp();
            }
            return find_or_decode(cpu, Extent::Instruction).map(Some);
        }
    }
    Ok(Some(block))
}

/// The page after that of `la`, wrapped to the mode's address space.
fn next_page(cpu: &Cpu, la: u64) -> u64 {
    let next = (la | PAGE_MASK).wrapping_add(1);
    if cpu.mode == Mode::Long64 { next } else { next & 0xffff_ffff }
}

fn read_code(cpu: &mut Cpu, gpa: u64, into: &mut [u8]) {
    if cpu.mmu.ram.read(Gpa(gpa), into).is_err() {
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = cpu
                .machine
                .io()
                .map_or(0xff, |io| io.mmio_read(Gpa(gpa + i as u64), Width::B1) as u8);
        }
    }
}

fn decode_at(cpu: &mut Cpu, key: Key, la: u64, gpa: u64, extent: Extent) -> Fallible<*const Block> {
    if cpu.thunks.crowded() {
        start_anew(cpu);
    } else if cpu.mmu.blocks.is_full() {
        cpu.mmu.blocks.flush();
    }
    let room = (PAGE_MASK + 1 - (gpa & PAGE_MASK)) as usize;
    let mut second = None;
    let max = if extent == Extent::Instruction { 1 } else { usize::MAX };
    for _ in 0..4 {
        cpu.mmu.hold_code(gpa, second);
        let mut window = Window::new(room, |bytes| read_code(cpu, gpa, bytes));
        if let Some(page) = second {
            window.extend(|bytes| read_code(cpu, page, bytes));
        }
        let rip = cpu.state.rip;
        match decode::decode(cpu, key, rip, &window, second, max) {
            Decoded::Block(block) => return Ok(cpu.mmu.blocks.insert(block)),
            Decoded::Crosses => {
                let next = next_page(cpu, la);
                second = Some(gpa_of(translate(cpu, next)?));
            }
            Decoded::Full => start_anew(cpu),
        }
    }
    cpu.raise(Exception::ud())
}

/// Drops all blocks and thunks.
fn start_anew(cpu: &mut Cpu) {
    cpu.mmu.blocks.flush();
    cpu.thunks.reset();
}
