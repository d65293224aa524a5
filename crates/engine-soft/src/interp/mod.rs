//! The interpreter: decoded blocks, one function per operation.
//!
//! [`run`] is the loop of one virtual processor: take stock of events ([`events`]), find the block at RIP, run its ops, follow the link to
//! the next. The function table is in [`crate::decode`]; here each group of instructions has its file.
#![allow(unsafe_code)] // walks decoded blocks by pointer; see docs/UNSAFE.md

pub(crate) mod arith;
pub(crate) mod bits;
pub(crate) mod control;
pub(crate) mod data;
mod events;
mod fetch;
pub(crate) mod fpu;
pub(crate) mod legacy;
pub(crate) mod stack;
pub(crate) mod string;
pub(crate) mod system;

use crate::block::Block;
use crate::cpu::Cpu;
use crate::op::Step;
use vcpu::{Budget, Exit};
use x86::state::gpr;

/// How a block ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Go on: the link to try, if any.
    On(Option<usize>),
    /// Take stock of mode and events first.
    Stock,
}

/// Runs until something needs the machine.
pub(crate) fn run(cpu: &mut Cpu, budget: Budget) -> Exit {
    let limit = cpu.instructions.saturating_add(budget.instructions);
    cpu.trace = tracing::enabled!(target: "cpu", tracing::Level::TRACE);
    cpu.refresh();
    loop {
        match events::take_stock(cpu, limit) {
            events::Stock::Exit(exit) => return exit,
            events::Stock::Again => {}
            events::Stock::Step => events::single_step(cpu),
            events::Stock::Run => run_blocks(cpu, limit),
        }
    }
}

/// Runs blocks until there is something to take stock of.
fn run_blocks(cpu: &mut Cpu, limit: u64) {
    cpu.mid_repeat = false;
    let Some(mut block) = fetch::block_at_rip(cpu, false) else { return };
    loop {
        let epoch = cpu.mmu.blocks.epoch;
        // SAFETY: `block` was just found, or linked in the current epoch: alive, and freed only by `bury` in `fetch`.
        let current = unsafe { &*block };
        let end = run_block(cpu, current);
        let End::On(link) = end else { return };
        let news = cpu.signals.bits() != 0 || cpu.attention || cpu.mmu.behind();
        if news || cpu.instructions >= limit {
            return;
        }
        let next = match link {
            Some(slot) if cpu.mmu.blocks.epoch == epoch => follow(cpu, current, slot, epoch),
            _ => fetch::block_at_rip(cpu, false),
        };
        match next {
            Some(found) => block = found,
            None => return,
        }
    }
}

/// The successor of `current` by link `slot`; makes the link if it is sound.
#[inline(always)]
fn follow(cpu: &mut Cpu, current: &Block, slot: usize, epoch: u64) -> Option<*const Block> {
    if current.link_epoch[slot].get() == epoch {
        return Some(current.links[slot].get());
    }
    let next = fetch::block_at_rip(cpu, false)?;
    // No block has died since `current` was entered: it is still there, and so is `next`.
    // SAFETY: `next` was just found.
    let plain = unsafe { (*next).second_page.is_none() };
    if current.linkable[slot] && plain && cpu.mmu.blocks.epoch == epoch {
        current.links[slot].set(next);
        current.link_epoch[slot].set(epoch);
    }
    Some(next)
}

/// Runs the ops of one block.
#[inline(always)]
fn run_block(cpu: &mut Cpu, block: &Block) -> End {
    cpu.stats.blocks += 1;
    cpu.state.gpr[gpr::BLOCK_IP] = cpu.state.rip;
    let first = block.ops.as_ptr();
    let mut op = first;
    let step = loop {
        // SAFETY: every block's last op leaves it, so `op` stays within `ops`.
        let current = unsafe { &*op };
        let step = (current.run.get())(cpu, current);
        if step != Step::Next {
            break step;
        }
        // SAFETY: as above.
        op = unsafe { op.add(1) };
    };
    // SAFETY: both point into `ops`.
    let index = unsafe { op.offset_from(first) } as u64;
    let completed = match step {
        Step::Fault | Step::FaultHere | Step::Again => index,
        _ => (index + 1).min(u64::from(block.instructions)),
    };
    cpu.instructions += completed;
    match step {
        Step::Taken => End::On(Some(0)),
        Step::Through => End::On(Some(1)),
        Step::Jump | Step::Again | Step::Next => End::On(None),
        Step::Sync => {
            cpu.refresh();
            if cpu.attention { End::Stock } else { End::On(None) }
        }
        Step::FaultHere => {
            events::fault_here(cpu);
            End::Stock
        }
        Step::Fault => {
            // SAFETY: as above.
            events::fault(cpu, unsafe { &*op });
            End::Stock
        }
    }
}
