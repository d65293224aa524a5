//! Invalidates translations whose guest code was written to.
//!
//! Other translations may still jump to an invalidated one, from anywhere. Each of its entries
//! becomes a jump to a stub that exits to the dispatcher, and to the new translation once the block
//! is translated anew.

use super::asm::{ADDRESS, Asm};
use super::site::ExitSite;
use super::translator::{Full, Translator, patch, patch_rel32};
use crate::block::{Entries, Key};
use crate::cpu::Cpu;
use crate::tlb::PAGE_MASK;
use std::cell::Cell;

/// Invalidated translations of a block whose entries are redirected to its new one. Those before
/// them exit for good.
const RETIRED: usize = 4;

/// Redirects the entries of all regions that the block cache has given up.
///
/// # Errors
/// There is no room for the stubs.
#[cold]
pub(super) fn invalidate(cpu: &mut Cpu) -> Result<(), Full> {
    while let Some(number) = cpu.core.mmu.blocks.invalidated_regions.pop() {
        invalidate_region(cpu, number)?;
    }
    Ok(())
}

fn invalidate_region(cpu: &mut Cpu, number: u32) -> Result<(), Full> {
    let Some(region) = cpu.translator.regions.get_mut(number as usize) else { return Ok(()) };
    if std::mem::replace(&mut region.dead, true) {
        return Ok(());
    }
    for (key, entries) in std::mem::take(&mut region.entries) {
        retire(cpu, key, entries)?;
    }
    Ok(())
}

/// Redirects every entry of an invalidated translation to a stub that exits to the dispatcher;
/// [`relink`] later points it at the new one.
fn retire(cpu: &mut Cpu, key: Key, entries: Entries) -> Result<(), Full> {
    let delta = (key.gpa() & PAGE_MASK) as i32;
    let stub = exit_stub(&mut cpu.translator, delta, false)?;
    for entry in [entries.body, entries.near] {
        redirect(&mut cpu.translator, entry, stub);
    }
    // Cross-page jumps arrive here too, with the page base stored and flags saved; the near entry
    // does not reload flags, so this stub must.
    let stub = exit_stub(&mut cpu.translator, delta, true)?;
    redirect(&mut cpu.translator, entries.flags_saved, stub);
    if let Some(block) = cpu.core.mmu.blocks.get(key) {
        let dead = |cell: &Cell<Option<Entries>>| {
            cell.get().is_some_and(|h| h.region == entries.region) && cell.take().is_some()
        };
        dead(&block.translation.per_access);
        if dead(&block.translation.shared) {
            block.translation.heat.set(cpu.hot);
        }
    }
    let retired = cpu.translator.retired.entry(key).or_default();
    if retired.len() == RETIRED {
        // Jumps to the oldest one go on exiting.
        retired.remove(0);
    }
    retired.push(entries);
    Ok(())
}

/// Makes a stub that exits at page + `delta`, at the boundary; status flags are in `Context::flags`
/// if `saved`, else in RFLAGS.
fn exit_stub(translator: &mut Translator, delta: i32, saved: bool) -> Result<u32, Full> {
    let leave = translator.stubs().ok_or(Full)?.boundary.leave;
    let site = ExitSite::Dead { delta, saved };
    let mut asm = Asm::default();
    asm.load_immediate32(ADDRESS, translator.sites.len() as u32);
    let place = asm.jmp();
    let base = translator.area.next(asm.code.len()).ok_or(Full)?;
    patch(&mut asm.code, place, base, leave);
    translator.area.push(&asm.code).ok_or(Full)?;
    translator.figures.placed(&[], &[site]);
    translator.sites.push(site);
    Ok(base as u32)
}

/// Puts a jump to `to` at `entry`.
fn redirect(translator: &mut Translator, entry: u32, to: u32) {
    translator.area.patch(entry as usize, &[0xe9]);
    patch_rel32(translator, entry + 1, to);
}

/// Points the entries of the block's invalidated translations at `entries`, its new one.
pub(super) fn relink(translator: &mut Translator, key: Key, entries: Entries) {
    for dead in translator.retired.get(&key).cloned().unwrap_or_default() {
        redirect(translator, dead.body, entries.body);
        redirect(translator, dead.near, entries.near);
        redirect(translator, dead.flags_saved, entries.flags_saved);
    }
}
