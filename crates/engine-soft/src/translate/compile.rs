//! From a hot block to a translation in the code cache.

use super::discover;
use super::emit::{self, Options, Translation};
use super::region::Region;
use super::site::{ExitSite, FaultMapEntry, StubTarget};
use super::translator::{Full, RegionRecord, Translator, patch};
use super::{invalidate, listing, scratch, spill};
use crate::block::{Entries, Key};
use crate::core::Block;
use crate::cpu::Cpu;
use crate::tlb::PAGE_MASK;
use std::time::Instant;
use x86::state::Mode;

/// Translates `block`, if it can be. Returns whether the cache is full.
pub(crate) fn translate(cpu: &mut Cpu, block: &Block) -> Result<(), Full> {
    block.translation.heat.set(u32::MAX);
    if cpu.core.mode != Mode::Long64 {
        return Ok(());
    }
    let Some(mut region) = discover::discover(cpu, block) else { return Ok(()) };
    make(cpu, &mut region)
}

/// The per-access translation of `block`, made if there is none; noted at the `site` whose check
/// sent us here. `None`: it cannot be had.
pub(crate) fn per_access(cpu: &mut Cpu, block: &Block, site: u32) -> Result<Option<Entries>, Full> {
    if block.translation.per_access.get().is_none() {
        let Some(mut region) = discover::per_access(cpu, block) else { return Ok(None) };
        make(cpu, &mut region)?;
    }
    let made = block.translation.per_access.get();
    let alive = made.is_some_and(|entries| cpu.translator.alive(entries.region));
    if let Some(ExitSite::Check { per_access, spilled, .. }) =
        cpu.translator.sites.get_mut(site as usize)
        && *spilled == scratch::STANDARD
        && alive
    {
        *per_access = made;
    }
    Ok(made)
}

fn make(cpu: &mut Cpu, region: &mut Region) -> Result<(), Full> {
    let options = Options {
        first_site: cpu.translator.sites.len(),
        first_cross_page: cpu.translator.cross_page.branches.len(),
        polls: cpu.translator.polls,
        counting: cpu.translator.counting,
        bounded: cpu.translator.bounded,
        bmi2: cpu.translator.bmi2,
    };
    let began = Instant::now();
    let spilled = if cpu.hot == 0 { spill::any(region) } else { spill::choose(region) };
    let translation = loop {
        match emit::translate(region, spilled, options) {
            Ok(translation) => break translation,
            Err(n) if region.leave(n) => {}
            Err(_) => return Ok(()),
        }
    };
    place(cpu, region, translation)?;
    cpu.translator.figures.translated(region.insns.len(), began.elapsed());
    Ok(())
}

/// Puts a translation into the area and tells the blocks it was made of.
fn place(cpu: &mut Cpu, region: &Region, mut t: Translation) -> Result<(), Full> {
    let translator = &mut cpu.translator;
    let base = resolve(translator, &mut t)?;
    let number = translator.regions.len() as u32;
    t.cross_page.iter_mut().for_each(|branch| branch.place(number, base as u32));
    translator.cross_page.branches.append(&mut t.cross_page);
    translator.area.push(&t.code).ok_or(Full)?;
    translator.extents.push((base as u32, t.code.len() as u32));
    if tracing::enabled!(target: "blocks", tracing::Level::TRACE) {
        let host = translator.area.address(base);
        listing::trace(&region.insns, cpu.core.state.rip, region.blocks[0].key, &t, host);
    }
    translator.figures.placed(&region.insns, &t.sites);
    translator.sites.append(&mut t.sites);
    let moved = t.fault_map.iter().map(|s| FaultMapEntry { offset: s.offset + base as u32, ..*s });
    translator.fault_map.extend(moved);
    translator.blocks += region.blocks.len() as u64;
    let entries: Vec<(Key, Entries)> = t
        .entries
        .iter()
        .map(|(key, entries)| (*key, entries.placed(base as u32, number)))
        .collect();
    if !region.per_access {
        for (key, entries) in &entries {
            invalidate::relink(translator, *key, *entries);
        }
    }
    translator.regions.push(RegionRecord { entries: entries.clone(), dead: false });
    publish(cpu, region, number, &entries);
    Ok(())
}

/// Resolves what in `t` depends on where it will stand: that offset in the area.
fn resolve(translator: &mut Translator, t: &mut Translation) -> Result<usize, Full> {
    let stubs = translator.stubs().ok_or(Full)?;
    let inside = translator.region_stubs(t.spilled).ok_or(Full)?;
    let base = translator.area.next(t.code.len()).ok_or(Full)?;
    for (place, out) in &t.jumps {
        let target = match out {
            StubTarget::Leave => stubs.boundary.leave,
            StubTarget::LeaveRegion => inside.leave,
            StubTarget::Fill(register) => inside.fill[usize::from(*register)],
            StubTarget::LoadVectors => stubs.load_vectors,
        };
        patch(&mut t.code, *place, base, target);
    }
    for site in &mut t.sites {
        match site {
            ExitSite::Link { place, .. } => *place += base as u32,
            ExitSite::Check { retry, .. } => *retry += base as u32,
            ExitSite::Target { .. }
            | ExitSite::Dead { .. }
            | ExitSite::CrossPage { .. }
            | ExitSite::Interpret { .. } => {}
        }
    }
    Ok(base)
}

/// Tells the block cache what region `number` depends on, and its blocks where to enter it.
fn publish(cpu: &mut Cpu, region: &Region, number: u32, entries: &[(Key, Entries)]) {
    let page = region.blocks[0].key.gpa() & !PAGE_MASK;
    for dependency in &region.dependencies {
        cpu.core.mmu.blocks.depend(
            page + u64::from(dependency.offset),
            dependency.len.into(),
            number,
        );
    }
    for b in &region.blocks {
        let Some(block) = cpu.core.mmu.blocks.get(b.key) else { continue };
        let translation = &block.translation;
        translation.regions.borrow_mut().push(number);
        if let Some((_, entries)) = entries.iter().find(|(key, _)| *key == b.key) {
            let cell =
                if region.per_access { &translation.per_access } else { &translation.shared };
            cell.set(Some(*entries));
        }
    }
}
