//! The tiers, and the dispatcher between them: the loop of one virtual processor.
//!
//! [`run`] polls events ([`events`]), finds the block at RIP, has the highest tier that has it run
//! it, and follows the link to the next. The interpreter can run every block; the translator takes
//! hot ones from it and hands back what it does not perform. A further tier would be asked first.
#![allow(unsafe_code)] // walks decoded blocks by pointer; see docs/UNSAFE.md

use crate::core::{Block, Core};
use crate::cpu::Cpu;
use crate::decode::MAX_OPS;
use crate::interp::fetch::{self, Extent};
use crate::interp::{deliver, events};
use crate::op::Step;
use crate::translate::lockstep::{self, Lockstep};
use crate::translate::{self, HOT};
use vcpu::{Exit, Slice};
use x86::state::gpr;

/// Who runs guest code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// T0: the interpreter alone, the reference.
    #[default]
    Interpret,
    /// T1: hot code of 64-bit mode is translated, the interpreter does the rest.
    Translate,
    /// T1 held against T0 at every entry into translated code; the first difference ends the run.
    Lockstep,
}

impl Tier {
    /// Each tier.
    pub const ALL: [Self; 3] = [Self::Interpret, Self::Translate, Self::Lockstep];

    /// Its short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interpret => "interp",
            Self::Translate => "translate",
            Self::Lockstep => "lockstep",
        }
    }

    /// What it is, in a line for a user who is to choose.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Interpret => "The interpreter alone: the reference",
            Self::Translate => "Hot code as host code, the interpreter for the rest",
            Self::Lockstep => {
                "Translated code held against the interpreter: the first difference ends the run"
            }
        }
    }

    /// Runs of a block before translation; `u32::MAX`: never.
    pub(crate) const fn hot(self) -> u32 {
        match self {
            Self::Interpret => u32::MAX,
            Self::Translate => HOT,
            // More is compared the sooner it is translated.
            Self::Lockstep => HOT / 8,
        }
    }
}

/// How a block ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Go on: the link to try, if any.
    On(Option<usize>),
    /// Look at mode and events first.
    Events,
}

/// So many events in a row without an instruction completed count as one, so that a budget bounds
/// even handlers that fault at once.
const FRUITLESS: u32 = 64;

/// Runs until something needs the machine.
pub(crate) fn run(cpu: &mut Cpu, mut lockstep: Option<&mut Lockstep>, slice: Slice) -> Exit {
    let limit = cpu.core.instructions.saturating_add(slice.instructions);
    cpu.core.trace = tracing::enabled!(target: "cpu", tracing::Level::TRACE);
    cpu.core.refresh();
    cpu.core.take_time();
    // Blocks begin up to here, and so end before the limit. The rest is single-stepped.
    cpu.last_start = limit.saturating_sub(MAX_OPS as u64);
    cpu.limited = limit != u64::MAX;
    if cpu.limited && cpu.hot != u32::MAX {
        translate::bound(cpu);
    }
    translate::attach(cpu);
    let mut fruitless = 0;
    loop {
        let before = cpu.core.instructions;
        cpu.core.mmu.blocks.free_dead();
        match events::poll_events(&mut cpu.core, limit) {
            events::Pending::Exit(exit) => return exit,
            events::Pending::Again => {}
            events::Pending::Step => events::single_step(&mut cpu.core),
            events::Pending::Run => run_blocks(cpu, &mut lockstep),
        }
        fruitless = if cpu.core.instructions == before { fruitless + 1 } else { 0 };
        if fruitless == FRUITLESS {
            cpu.core.instructions += 1;
            fruitless = 0;
        }
    }
}

/// Runs blocks until there is something to look at.
fn run_blocks(cpu: &mut Cpu, lockstep: &mut Option<&mut Lockstep>) {
    cpu.core.mid_repeat = false;
    let mut ahead = None;
    while let Some(next) = run_next(cpu, lockstep, ahead) {
        ahead = next;
    }
}

/// Runs translated code, or one block in the interpreter: `ahead`, or the one at RIP. Tells what
/// comes next if that is known already; `None`: poll events.
#[inline(always)]
fn run_next(
    cpu: &mut Cpu,
    lockstep: &mut Option<&mut Lockstep>,
    ahead: Option<*const Block>,
) -> Option<Option<*const Block>> {
    // While something is raised that cannot be delivered yet, translated code would stop at every
    // poll.
    let translating = cpu.hot != u32::MAX && cpu.core.signals.bits() == 0;
    if translating
        && ahead.is_none()
        && let Some(entry) = translate::entry_at_rip(cpu)
    {
        return run_translated(cpu, lockstep, entry);
    }
    let block = match ahead {
        Some(block) => block,
        None => {
            cpu.core.mmu.blocks.free_dead();
            fetch::block_at_rip(&mut cpu.core, Extent::Run)?
        }
    };
    // SAFETY: `block` was found by this turn of the loop, or linked in the current epoch. It may
    // die while it runs. `free_dead` frees it, which runs before the next block is looked for or
    // where translated code is entered: `current` is not used after either.
    let current = unsafe { &*block };
    if translating
        && let Some(host) = translate::translation_of(cpu, current).or_else(|| warm(cpu, current))
    {
        let entry = translate::entry_of(cpu, current, host);
        return run_translated(cpu, lockstep, entry);
    }
    let epoch = cpu.core.mmu.blocks.epoch;
    let End::On(link) = run_block(&mut cpu.core, current) else { return None };
    if has_events(cpu) {
        return None;
    }
    match link {
        Some(slot) if cpu.core.mmu.blocks.epoch == epoch => {
            follow(cpu, current, slot, epoch).map(Some)
        }
        _ => Some(None),
    }
}

/// Whether there is something to look at.
#[inline(always)]
fn has_events(cpu: &Cpu) -> bool {
    cpu.core.signals.bits() != 0
        || cpu.core.attention
        || cpu.core.mmu.behind()
        || cpu.core.instructions >= cpu.last_start
}

/// Runs translated code from `entry` on, and the instruction that it leaves to the interpreter.
#[inline(always)]
fn run_translated(
    cpu: &mut Cpu,
    lockstep: &mut Option<&mut Lockstep>,
    entry: translate::Entry,
) -> Option<Option<*const Block>> {
    cpu.core.mmu.blocks.free_dead();
    let mut left = lockstep::enter(lockstep, cpu, entry);
    while let translate::ExitReason::PerAccess(site) = left {
        if has_events(cpu) {
            return None;
        }
        left = run_per_access(cpu, lockstep, site)?;
    }
    if has_events(cpu) {
        return None;
    }
    match left {
        translate::ExitReason::Next(site) => {
            // Look it up in the block cache, not the target table, which may still name the
            // invalidated translation that just exited here.
            let next = fetch::block_at_rip(&mut cpu.core, Extent::Run)?;
            if let Some(site) = site {
                // SAFETY: the lookup found `next` alive; `free_dead` has not run since.
                translate::link(cpu, site, unsafe { &*next });
            }
            Some(Some(next))
        }
        translate::ExitReason::Interpret(known) => {
            let block = match known {
                Ok(block) => block,
                Err(site) => look_up(cpu, site)?,
            };
            // SAFETY: the block was alive when it was found, or no block has died since;
            // `free_dead` has not run since.
            let end = run_block(&mut cpu.core, unsafe { &*block });
            (end != End::Events && !has_events(cpu)).then_some(None)
        }
        translate::ExitReason::PerAccess(_) => Some(None),
    }
}

/// Runs the per-access translation of the block at RIP, which the check at `site` asks for.
#[cold]
fn run_per_access(
    cpu: &mut Cpu,
    lockstep: &mut Option<&mut Lockstep>,
    site: u32,
) -> Option<translate::ExitReason> {
    let block = fetch::block_at_rip(&mut cpu.core, Extent::Run)?;
    // SAFETY: the lookup found `block` alive; `free_dead` has not run since.
    let block = unsafe { &*block };
    Some(match translate::per_access(cpu, block, site) {
        Some(host) => {
            let entry = translate::entry_beside(cpu, block, host);
            lockstep::enter(lockstep, cpu, entry)
        }
        None => translate::ExitReason::Interpret(Err(None)),
    })
}

/// The block at RIP, which the exit at `site` leads to.
fn look_up(cpu: &mut Cpu, site: Option<u32>) -> Option<*const Block> {
    let block = fetch::block_at_rip(&mut cpu.core, Extent::Run)?;
    // SAFETY: the lookup found `block` alive; `free_dead` has not run since.
    let plain = unsafe { (*block).second_page.is_none() };
    if let Some(site) = site.filter(|_| plain) {
        translate::cache_exit(cpu, site, block);
    }
    Some(block)
}

/// Counts a run of `block`, and translates it when it has become hot; or finds its translation.
fn warm(cpu: &mut Cpu, block: &Block) -> Option<crate::block::Entries> {
    let heat = block.translation.heat.get();
    if heat == u32::MAX {
        return None;
    }
    if heat >= cpu.hot {
        return translate::translate(cpu, block);
    }
    block.translation.heat.set(heat + 1);
    // What another processor has translated serves this one at once.
    if heat == 0 { translate::known(cpu, block) } else { None }
}

/// The successor of `current` by link `slot`; makes the link if it is sound.
#[inline(always)]
fn follow(cpu: &mut Cpu, current: &Block, slot: usize, epoch: u64) -> Option<*const Block> {
    if current.link_epoch[slot].get() == epoch {
        return Some(current.links[slot].get());
    }
    let next = fetch::block_at_rip(&mut cpu.core, Extent::Run)?;
    // SAFETY: the lookup found `next` alive. `current` is still allocated even if decoding `next`
    // has killed it: `free_dead` has not run.
    let plain = unsafe { (*next).second_page.is_none() };
    if current.linkable[slot] && plain && cpu.core.mmu.blocks.epoch == epoch {
        current.links[slot].set(next);
        current.link_epoch[slot].set(epoch);
    }
    Some(next)
}

/// Runs the ops of one block.
#[inline(always)]
fn run_block(core: &mut Core, block: &Block) -> End {
    if core.time.is_some() { run_timed(core, block) } else { run_ops::<false>(core, block) }
}

/// Out of line: a deterministic machine's alone.
#[cold]
#[inline(never)]
fn run_timed(core: &mut Core, block: &Block) -> End {
    run_ops::<true>(core, block)
}

/// As [`run_block`]; if `TIMED`, the machine knows the time at each op.
#[inline(always)]
fn run_ops<const TIMED: bool>(core: &mut Core, block: &Block) -> End {
    core.stats.blocks += 1;
    core.mmu.begin();
    core.state.gpr[gpr::BLOCK_IP] = core.state.rip;
    let first = block.ops.as_ptr();
    let mut op = first;
    let mut ahead = 0;
    let step = loop {
        if TIMED {
            core.tell_time(ahead);
            ahead += 1;
        }
        // SAFETY: every block's last op leaves it, so `op` stays within `ops`.
        let current = unsafe { &*op };
        let step = (current.run.get())(core, current);
        if step != Step::Next {
            break step;
        }
        // SAFETY: this op did not leave the block, so it is not the last: the next lies in `ops`,
        // too.
        op = unsafe { op.add(1) };
    };
    // SAFETY: `op` and `first` both point into the ops of this block, which the run loop keeps.
    let index = unsafe { op.offset_from(first) } as u64;
    let completed = match step {
        Step::Fault | Step::FaultHere | Step::Again => index,
        _ => (index + 1).min(u64::from(block.instructions)),
    };
    core.instructions += completed;
    match step {
        Step::Taken => End::On(Some(0)),
        Step::Through => End::On(Some(1)),
        Step::Jump | Step::Again | Step::Next => End::On(None),
        Step::Sync => {
            core.refresh();
            if core.attention { End::Events } else { End::On(None) }
        }
        Step::FaultHere => {
            deliver::fault_here(core);
            End::Events
        }
        Step::Fault => {
            // SAFETY: `op` points into the ops of this block; a fault frees no block, only the run
            // loop does.
            deliver::fault(core, unsafe { &*op });
            End::Events
        }
    }
}
