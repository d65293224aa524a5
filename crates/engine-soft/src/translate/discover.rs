//! The unit of translation: hot blocks of one page that reach each other by direct branches.
//!
//! A region begins at a hot block and takes in successors that have run a few times themselves, so
//! it follows the paths the program really takes. Its basic blocks are exactly the interpreter's
//! decoded blocks: invalidating one of those invalidates the region. An instruction that crosses
//! the page's end is a region of its own, which checks each time that the next page is still the
//! same.

use super::address::Moves;
use super::classify::class_in;
use super::flow::{self, Class, FlagUse};
use super::insn::{GuestInsn, PAGE_BYTES};
use super::recover;
use super::region::{BasicBlock, CodeDependency, Region};
use crate::block::Key;
use crate::core::Block;
use crate::cpu::Cpu;
use crate::tlb::PAGE_MASK;
use iced_x86::{Decoder, Instruction, OpKind};
use x86::addr::Gpa;

/// Runs of a successor before a region takes it in.
const WARM: u32 = 4;
/// Basic blocks of a region.
const MAX_BLOCKS: usize = 24;
/// Instructions of a region.
const MAX_INSTRUCTIONS: usize = 256;

/// The region of `head` alone, each of its accesses with a check of its own.
pub(super) fn per_access(cpu: &mut Cpu, head: &Block) -> Option<Region> {
    gather(cpu, head, true)
}

/// Gathers the region that begins at `head`; `None`: nothing of it can be translated.
pub(super) fn discover(cpu: &mut Cpu, head: &Block) -> Option<Region> {
    gather(cpu, head, false)
}

fn gather(cpu: &mut Cpu, head: &Block, per_access: bool) -> Option<Region> {
    let page = head.key.gpa() & !PAGE_MASK;
    let mut code = vec![0; PAGE_BYTES as usize];
    cpu.core.mmu.ram.read(Gpa(page), &mut code).ok()?;
    let alone = per_access || head.second_page.is_some();
    if let Some(second) = head.second_page {
        let mut rest = [0; 15];
        cpu.core.mmu.ram.read(Gpa(second), &mut rest).ok()?;
        code.extend(rest);
    }
    let mut region = Region {
        insns: Vec::with_capacity(64),
        blocks: Vec::with_capacity(16),
        vectors: false,
        per_access,
        second_page: head.second_page,
        dependencies: Vec::new(),
    };
    take(cpu, &mut region, head.key, head.len, &code).then_some(())?;
    let mut next = 0;
    while !alone && next < region.blocks.len() {
        for to in region.successors(next).into_iter().flatten() {
            if region.at(to).is_none()
                && region.blocks.len() < MAX_BLOCKS
                && region.insns.len() < MAX_INSTRUCTIONS
                && let Some((key, len)) = eligible(cpu, page, to)
            {
                take(cpu, &mut region, key, len, &code);
            }
        }
        next += 1;
    }
    count_edges(&mut region);
    if !cpu.translator.options().exact_flags {
        liveness(&mut region, &code);
    }
    recover::note(&mut region);
    region.vectors =
        region.insns.iter().any(|g| g.usage.vector && !matches!(g.class, Class::Other));
    Some(region)
}

/// The block at page + `to`, if it has run often enough and is not translated yet: its key and
/// bytes.
fn eligible(cpu: &Cpu, page: u64, to: i32) -> Option<(Key, u16)> {
    let offset = u64::try_from(to).ok().filter(|o| *o <= PAGE_MASK)?;
    let block = cpu.core.mmu.blocks.get(Key::new(page | offset, cpu.core.mode_key))?;
    let heat = block.translation.heat.get();
    let warm = heat >= WARM.min(cpu.hot) && heat != u32::MAX;
    let free = block.second_page.is_none() && super::run::translation_of(cpu, block).is_none();
    let number = cpu.translator.member.number();
    let found = || cpu.translator.cache.find(block.key, number);
    (warm && free && found().is_none()).then_some((block.key, block.len))
}

/// Decodes the block of `key`, `len` bytes, into the region; false if not even its first
/// instruction is the translator's.
fn take(cpu: &mut Cpu, region: &mut Region, key: Key, len: u16, code: &[u8]) -> bool {
    let start = (key.gpa() & PAGE_MASK) as usize;
    let Some(bytes) = code.get(start..start + usize::from(len)) else { return false };
    let first = region.insns.len();
    let options = cpu.core.features.decoder_options;
    // Addresses are counted from the page's start.
    let mut decoder = Decoder::with_ip(64, bytes, start as u64, options);
    while decoder.can_decode() {
        let position = decoder.position();
        let i = decoder.decode();
        let class = if reaches(&i) {
            class_in(&cpu.core, &i, cpu.translator.compared)
        } else {
            Class::Other
        };
        let other = matches!(class, Class::Other);
        if other && region.insns.len() == first {
            return false;
        }
        let mut copy = [0; 15];
        let len = i.len().min(15);
        copy[..len].copy_from_slice(&bytes[position..position + len]);
        let usage = flow::usage(&mut cpu.translator.factory, &i, class);
        let delta = (start + position) as i32;
        let moves = Moves::of(&i, class, &usage);
        region.insns.push(GuestInsn {
            i,
            class,
            usage,
            bytes: copy,
            delta,
            live_after: true,
            moves,
            recipe: None,
        });
        if other {
            break;
        }
    }
    region.blocks.push(BasicBlock {
        key,
        start: start as i32,
        end: (start + usize::from(len)) as i32,
        first,
        count: region.insns.len() - first,
        predecessors: 0,
        loop_head: false,
        live_in: true,
    });
    true
}

/// Whether a branch's target is near enough to be told from the page's start.
fn reaches(i: &Instruction) -> bool {
    i.op0_kind() != OpKind::NearBranch64 || i32::try_from(i.near_branch_target() as i64).is_ok()
}

fn count_edges(region: &mut Region) {
    for from in 0..region.blocks.len() {
        for to in region.successors(from).into_iter().flatten() {
            if let Some(n) = region.at(to) {
                let backwards = to <= region.last(from).delta;
                region.blocks[n].predecessors += 1;
                region.blocks[n].loop_head |= backwards;
            }
        }
    }
}

/// Fills in where status flags are needed: backwards through each block, until nothing changes
/// between blocks.
fn liveness(region: &mut Region, code: &[u8]) {
    region.blocks.iter_mut().for_each(|b| b.live_in = false);
    let mut dependencies = Vec::new();
    let outside: Vec<bool> = (0..region.blocks.len())
        .map(|b| live_outside(region, b, code, &mut dependencies))
        .collect();
    region.dependencies = dependencies;
    loop {
        let mut changed = false;
        for b in (0..region.blocks.len()).rev() {
            let inside = region.successors(b).into_iter().flatten();
            let live_out = outside[b]
                || inside.filter_map(|to| region.at(to)).any(|n| region.blocks[n].live_in);
            let live = through(region, b, live_out);
            changed |= live != region.blocks[b].live_in;
            region.blocks[b].live_in = live;
        }
        if !changed {
            return;
        }
    }
}

/// Whether some successor of `block` outside the region may need flags. Where none does, the code
/// that shows it is added to `dependencies`.
fn live_outside(
    region: &Region,
    block: usize,
    code: &[u8],
    dependencies: &mut Vec<CodeDependency>,
) -> bool {
    let last = region.last(block);
    let page = &code[..PAGE_BYTES as usize];
    let mut needed = |to: i32| {
        let Ok(offset) = usize::try_from(to) else { return true };
        let Some(bytes) = page.get(offset..) else { return true };
        let Some(len) = flow::replaced_within(&bytes[..bytes.len().min(64)]) else { return true };
        dependencies.push(CodeDependency { offset: offset as u16, len: len as u16 });
        false
    };
    match last.class {
        Class::Call => needed(last.target()),
        class if class.leaves() && !matches!(class, Class::Jump | Class::Jcc(_)) => true,
        _ => region
            .successors(block)
            .into_iter()
            .flatten()
            .any(|to| region.at(to).is_none() && needed(to)),
    }
}

/// Liveness through `block`: what is needed before it, given what is needed behind.
fn through(region: &mut Region, block: usize, mut live: bool) -> bool {
    let b = &region.blocks[block];
    for g in region.insns[b.first..b.first + b.count].iter_mut().rev() {
        g.live_after = live;
        live = match g.usage.flags {
            _ if matches!(g.class, Class::Other) => true,
            FlagUse::Reads => true,
            FlagUse::Replaces => false,
            FlagUse::Changes | FlagUse::Leaves => live,
        };
    }
    live
}
