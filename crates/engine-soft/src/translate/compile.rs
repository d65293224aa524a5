//! From a hot block to a translation in the code cache.

use super::cache::{Begun, Ticket, Wanted};
use super::discover;
use super::emit::{self, Options};
use super::region::Region;
use super::site::ExitSite;
use super::{listing, run, spill};
use crate::block::Entries;
use crate::core::Block;
use crate::cpu::Cpu;
use std::time::Instant;
use x86::state::Mode;

/// The translation of `block` that another processor has made, or this one for another view of it.
pub(crate) fn known(cpu: &mut Cpu, block: &Block) -> Option<Entries> {
    if cpu.core.mode != Mode::Long64 {
        return None;
    }
    run::renew(cpu);
    let found = cpu.translator.cache.find(block.key, cpu.translator.member.number());
    found.inspect(|entries| adopt(block, *entries))
}

/// Translates `block`, if it can be and nobody else is at it.
pub(crate) fn translate(cpu: &mut Cpu, block: &Block) -> Option<Entries> {
    if cpu.core.mode != Mode::Long64 {
        block.translation.heat.set(u32::MAX);
        return None;
    }
    run::renew(cpu);
    let wanted = Wanted { key: block.key, per_access: false, second_page: block.second_page };
    let cache = cpu.translator.cache.clone();
    match cache.begin(wanted, cpu.translator.asker(cpu.core.mmu.behind())) {
        Begun::Later => None,
        Begun::Known(entries) => {
            adopt(block, entries);
            Some(entries)
        }
        Begun::Now(ticket) => {
            block.translation.heat.set(u32::MAX);
            let mut region = discover::discover(cpu, block)?;
            let entries = make(cpu, &mut region, ticket);
            match entries {
                Ok(Some(entries)) => adopt(block, entries),
                // It cannot be translated.
                Ok(None) => {}
                Err(NotNow) => block.translation.heat.set(cpu.hot),
            }
            entries.ok().flatten()
        }
    }
}

/// `block` is translated.
fn adopt(block: &Block, entries: Entries) {
    block.translation.heat.set(u32::MAX);
    block.translation.shared.set(Some(entries));
}

/// The per-access translation of `block`, made if there is none; noted at the `site` whose check
/// sent us here. `None`: it cannot be had.
pub(crate) fn per_access(cpu: &mut Cpu, block: &Block, site: u32) -> Option<Entries> {
    if run::renew(cpu) {
        return None;
    }
    let made = run::alive(cpu, &block.translation.per_access);
    let entries = made.or_else(|| make_per_access(cpu, block))?;
    block.translation.per_access.set(Some(entries));
    let site = cpu.translator.generation().and_then(|generation| generation.sites.get(site));
    if let Some(site) = site
        && let ExitSite::Check { saved, .. } = site.exit
    {
        // Status flags are to be found where the check has left them.
        let entry = if saved { entries.flags_saved } else { entries.near };
        site.set_per_access(entries.region, entry);
    }
    Some(entries)
}

fn make_per_access(cpu: &mut Cpu, block: &Block) -> Option<Entries> {
    let wanted = Wanted { key: block.key, per_access: true, second_page: block.second_page };
    let cache = cpu.translator.cache.clone();
    match cache.begin(wanted, cpu.translator.asker(cpu.core.mmu.behind())) {
        Begun::Later => None,
        Begun::Known(entries) => Some(entries),
        Begun::Now(ticket) => {
            let mut region = discover::per_access(cpu, block)?;
            make(cpu, &mut region, ticket).ok().flatten()
        }
    }
}

/// There is no room for it, or its code has changed meanwhile.
struct NotNow;

fn make(cpu: &mut Cpu, region: &mut Region, ticket: Ticket<'_>) -> Result<Option<Entries>, NotNow> {
    let options = Options { wanted: cpu.translator.options(), bmi2: cpu.translator.bmi2 };
    let began = Instant::now();
    let spilled = if cpu.hot == 0 { spill::any(region) } else { spill::choose(region) };
    let translation = loop {
        match emit::translate(region, spilled, options) {
            Ok(translation) => break translation,
            Err(n) if region.leave(n) => {}
            Err(_) => return Ok(None),
        }
    };
    if tracing::enabled!(target: "blocks", tracing::Level::TRACE) {
        listing::trace(&region.insns, cpu.core.state.rip, region.blocks[0].key, &translation);
    }
    let entries = ticket.publish(region, translation).ok_or(NotNow)?;
    cpu.translator.blocks += region.blocks.len() as u64;
    cpu.translator.figures.translated(region.insns.len(), began.elapsed());
    Ok(Some(entries))
}
