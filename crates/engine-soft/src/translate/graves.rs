//! The death of translations whose guest code was written to.
//!
//! Others may still jump to a dead translation, from anywhere. Each of its entries becomes a jump:
//! to a piece of code that leaves there, and once the block is translated anew, to that.

use super::asm::{ADDRESS, Asm};
use super::emit::Site;
use super::{Full, Translator, patch, patch_rel32};
use crate::block::{Host, Key};
use crate::cpu::Cpu;
use crate::tlb::PAGE_MASK;
use std::cell::Cell;

/// Dead predecessors of a block that are led on to it.
const GRAVES: usize = 4;

/// Makes the translations of dead blocks leave at once.
///
/// # Errors
/// There is no room for the code that leaves.
#[cold]
pub(super) fn bury(cpu: &mut Cpu) -> Result<(), Full> {
    while let Some(number) = cpu.mmu.blocks.dead_code.pop() {
        bury_region(cpu, number)?;
    }
    Ok(())
}

fn bury_region(cpu: &mut Cpu, number: u32) -> Result<(), Full> {
    let Some(region) = cpu.translator.regions.get_mut(number as usize) else { return Ok(()) };
    if std::mem::replace(&mut region.dead, true) {
        return Ok(());
    }
    for (key, host) in std::mem::take(&mut region.entries) {
        retire(cpu, key, host)?;
    }
    Ok(())
}

/// The entry `host` for `key` leads nowhere any more: whoever goes there leaves, until there is
/// another.
fn retire(cpu: &mut Cpu, key: Key, host: Host) -> Result<(), Full> {
    let delta = (key.gpa() & PAGE_MASK) as i32;
    let stub = leaving(&mut cpu.translator, delta, false)?;
    for entry in [host.body, host.near] {
        redirect(&mut cpu.translator, entry, stub);
    }
    // Whoever comes from afar passes here, too, having told its page. Flags were put by, and an
    // entry that takes none does not bring them.
    let stub = leaving(&mut cpu.translator, delta, true)?;
    redirect(&mut cpu.translator, host.aside, stub);
    if let Some(block) = cpu.mmu.blocks.get(key) {
        let dead = |cell: &Cell<Option<Host>>| {
            cell.get().is_some_and(|h| h.region == host.region) && cell.take().is_some()
        };
        dead(&block.host.narrow);
        if dead(&block.host.code) {
            block.host.heat.set(cpu.hot);
        }
    }
    let graves = cpu.translator.graves.entry(key).or_default();
    if graves.len() == GRAVES {
        // Whoever still jumps there leaves.
        graves.remove(0);
    }
    graves.push(host);
    Ok(())
}

/// Makes code that leaves at page + `delta`, at the boundary; status flags are in `Context::flags`
/// if `saved`, else in RFLAGS.
fn leaving(translator: &mut Translator, delta: i32, saved: bool) -> Result<u32, Full> {
    let leave = translator.glue().ok_or(Full)?.boundary.leave;
    let site = Site::Dead { delta, saved };
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

/// A block was translated anew: whoever still jumps to its dead predecessors gets here.
pub(super) fn revive(translator: &mut Translator, key: Key, host: Host) {
    for dead in translator.graves.get(&key).cloned().unwrap_or_default() {
        redirect(translator, dead.body, host.body);
        redirect(translator, dead.near, host.near);
        redirect(translator, dead.aside, host.aside);
    }
}
