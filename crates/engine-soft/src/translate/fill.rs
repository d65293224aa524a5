//! On a TLB miss, translated code calls in here: the page walk, and back to the check.
#![allow(unsafe_code)] // takes the processor that the stub passes; see docs/UNSAFE.md

use super::address::{Check, Expression, NONE, PAGE_BASE};
use super::site::ExitSite;
use crate::cpu::Cpu;
use crate::mmu::Target;
use crate::tlb::PAGE_MASK;
use x86::bus::AccessKind;
use x86::state::gpr;

/// What becomes of a missed check.
pub(super) enum Filled {
    /// The translation is in the TLB now.
    Retry,
    /// The range lies on two pages, or part of it may not be touched yet: each access by itself.
    PerAccess,
    /// The interpreter has to do it.
    Interpret,
}

/// Called by the stub, all guest registers in the state: where in host code to go on, or 0 to leave
/// by the site.
pub(super) extern "sysv64" fn fill(cpu: *mut Cpu) -> u64 {
    // SAFETY: the stub passes the processor that GS points to, which `enter` lent to translated
    // code; nothing else refers to it now.
    let cpu = unsafe { &mut *cpu };
    let exit = cpu.jit.exit;
    let Some(generation) = cpu.translator.generation() else { return 0 };
    let Some(site) = generation.sites.get(exit) else { return 0 };
    let ExitSite::Check { check, retry, .. } = site.exit else { return 0 };
    let retry = generation.area.address(retry as usize);
    match attempt(cpu, &check) {
        Filled::Retry => retry,
        Filled::PerAccess => beside(cpu, exit).unwrap_or_else(|| {
            cpu.jit.per_access = true;
            0
        }),
        Filled::Interpret => 0,
    }
}

/// Where to go on in the per-access translation that the site of the missed check knows, if it is
/// good. The interpreter knows what follows an STI.
fn beside(cpu: &mut Cpu, exit: u32) -> Option<u64> {
    let generation = cpu.translator.generation()?;
    let site = generation.sites.get(exit)?;
    let ExitSite::Check { saved, shadow: false, undone, recipe, .. } = site.exit else {
        return None;
    };
    let entry = generation.per_access(site)?;
    let stub = generation.area.address(generation.stubs.beside);
    cpu.translator.noted = match saved {
        true => Some(cpu.jit.flags),
        false => recipe.and_then(|it| it.flags(&cpu.core.state.gpr, cpu.translator.noted)),
    };
    // It counts from its own beginning.
    cpu.jit.left = cpu.jit.left.saturating_add(i64::from(undone));
    cpu.jit.beside = entry;
    Some(stub)
}

fn attempt(cpu: &mut Cpu, check: &Check) -> Filled {
    let seen = cpu.core.mmu.seen();
    let filled = attempt_here(cpu, check);
    // What was taken note of meanwhile may concern the very code that asks.
    if cpu.core.mmu.seen() == seen && !cpu.core.mmu.behind() { filled } else { Filled::Interpret }
}

fn attempt_here(cpu: &mut Cpu, check: &Check) -> Filled {
    let origin = linear(cpu, &check.at);
    let first = origin.wrapping_add(i64::from(check.low) as u64);
    let last = first.wrapping_add(i64::from(check.length) as u64 - 1);
    if (first ^ last) & !PAGE_MASK != 0 {
        return if check.shared { Filled::PerAccess } else { Filled::Interpret };
    }
    let la = origin.wrapping_add(i64::from(check.displacement) as u64);
    if la & (u64::from(check.alignment) - 1) != 0 {
        // It faults on that, and the page must not be marked written.
        return Filled::Interpret;
    }
    let kind = if check.access_write { AccessKind::Write } else { AccessKind::Read };
    let privilege = cpu.core.privilege();
    // An absent page is found so again by the interpreter, which leaves exactly.
    cpu.core.mmu.begin();
    match cpu.core.mmu.translate(la, kind, privilege) {
        Ok(Target::Ram { .. }) => {}
        Ok(Target::Device { .. }) | Err(_) => return Filled::Interpret,
    }
    let (read, write) = cpu.core.tags(la);
    let page = la & !PAGE_MASK;
    if (if check.write { write } else { read }) == page {
        Filled::Retry
    } else if check.shared && read == page {
        Filled::PerAccess
    } else {
        Filled::Interpret
    }
}

/// The value of `at`, its registers in the state.
fn linear(cpu: &Cpu, at: &Expression) -> u64 {
    let register = |r: u8| match r {
        NONE => 0,
        PAGE_BASE => cpu.core.state.gpr[gpr::BLOCK_IP],
        r => cpu.core.state.gpr[usize::from(r & 15)],
    };
    let segment = match at.segment {
        0 => 0,
        n => cpu.core.state.seg[usize::from(n) % 6].base,
    };
    register(at.base).wrapping_add(register(at.index) << at.scale).wrapping_add(segment)
}
