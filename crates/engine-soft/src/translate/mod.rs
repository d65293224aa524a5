//! T1, the same-ISA translator: guest code of 64-bit mode as host code, run on the host's own
//! registers.
//!
//! When a block is hot ([`HOT`] runs in the interpreter) it is translated together with what it
//! leads to on its page ([`region`]): unprivileged instructions are copied, memory operands go
//! through an inline TLB check ([`address`]), everything else leaves to the interpreter, which is
//! complete and the reference. Direct branches are linked, to another page only as long as it is
//! known to be the same ([`cross_page`]), returns and indirect ones go through a table from guest
//! to host addresses. On a TLB miss, translated code calls [`fill`] and retries. A host fault in
//! translated code (a misaligned SSE operand, #DE, #XM) leaves at the guest instruction where it
//! happened, and the interpreter decides what it means. Signals to the processor stop translated
//! code by a signal of the host's ([`interrupt`]).

mod address;
mod asm;
mod bit;
mod branch;
pub(crate) mod context;
mod cross_page;
mod emit;
mod encode;
mod figures;
mod fill;
mod flow;
pub(crate) mod interrupt;
mod invalidate;
mod listing;
pub(crate) mod lockstep;
mod recover;
mod region;
mod run;
mod scratch;
mod spill;
mod stack;
pub(crate) mod stack_page;
mod string;
mod stubs;
mod system;
mod thread;

pub(crate) use run::{
    CachedExit, Entry, ExitReason, attach, cache_exit, entry_at_rip, entry_beside, entry_of,
    forget, link,
};

use crate::block::{Block, Entries, Key};
use crate::cpu::Cpu;
use crate::thunk::area::CodeArea;
use emit::{ExitSite, FaultMapEntry, Options, StubTarget, Translation};
use flow::{Class, Units};
use iced_x86::InstructionInfoFactory;
use std::collections::HashMap;
use std::io;
use std::time::Instant;
use x86::state::Mode;

/// Runs of a block in the interpreter before it is translated.
pub(crate) const HOT: u32 = 24;

/// The code cache of one virtual processor.
pub(crate) struct Translator {
    /// Dropped before the area: as soon as that is unmapped another thread may have code there.
    registration: Option<crate::thunk::guard::TranslatedRegistration>,
    area: CodeArea,
    stubs: Option<stubs::Stubs>,
    /// The stubs of regions, by the registers they spill.
    region_stubs: HashMap<u16, stubs::RegionStubs>,
    regions: Vec<RegionRecord>,
    sites: Vec<ExitSite>,
    /// What a fault means from each offset in the area on, ascending.
    fault_map: Vec<FaultMapEntry>,
    factory: InstructionInfoFactory,
    avx: bool,
    bmi2: bool,
    cross_page: cross_page::CrossPageLinks,
    /// Translations of dead blocks, which others may still jump to.
    retired: HashMap<Key, Vec<Entries>>,
    /// Count instructions in translated code.
    pub(crate) counting: bool,
    /// Translated code polls.
    pub(crate) polls: bool,
    /// Where each translation lies, ascending: offset and length.
    extents: Vec<(u32, u32)>,
    /// The interpreter runs the same code for comparison: both must read the same time.
    pub(crate) compared: bool,
    figures: figures::Figures,
    /// The status flags with which a per-access translation was entered, unless they were lost.
    noted: Option<u16>,
    /// The last exit recovered flags that a check had overwritten.
    pub(crate) recovered: bool,
    /// Counters for `--stats`.
    pub(crate) blocks: u64,
    pub(crate) links: u64,
    pub(crate) exits: u64,
    pub(crate) faults: u64,
}

impl Translator {
    /// A cache of `capacity` bytes of host code.
    ///
    /// # Errors
    /// The host denies executable memory.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        let host = crate::thunk::HostFeatures::probe();
        Ok(Self {
            area: CodeArea::new_translated(capacity)?,
            stubs: None,
            region_stubs: HashMap::new(),
            regions: Vec::new(),
            sites: Vec::new(),
            fault_map: Vec::new(),
            factory: InstructionInfoFactory::new(),
            avx: host.has(crate::thunk::Feature::Avx),
            bmi2: host.has(crate::thunk::Feature::Bmi2),
            cross_page: cross_page::CrossPageLinks::default(),
            retired: HashMap::new(),
            counting: false,
            polls: false,
            registration: None,
            extents: Vec::new(),
            compared: false,
            figures: figures::Figures::default(),
            noted: None,
            recovered: false,
            blocks: 0,
            links: 0,
            exits: 0,
            faults: 0,
        })
    }

    /// The code that enters and leaves translations, made on first use.
    fn stubs(&mut self) -> Option<stubs::Stubs> {
        if self.stubs.is_none() {
            self.stubs = stubs::make(&mut self.area, self.avx);
        }
        self.stubs
    }

    /// Whether the translation with number `region` is still good.
    fn alive(&self, region: u32) -> bool {
        self.regions.get(region as usize).is_some_and(|region| !region.dead)
    }

    /// The stub for regions that spill `spilled`.
    fn region_stubs(&mut self, spilled: u16) -> Option<stubs::RegionStubs> {
        if let Some(known) = self.region_stubs.get(&spilled) {
            return Some(*known);
        }
        let made = if spilled == scratch::STANDARD {
            self.stubs()?.boundary
        } else {
            stubs::for_region(&mut self.area, spilled, self.avx)?
        };
        self.region_stubs.insert(spilled, made);
        Some(made)
    }

    /// The figures for `--stats`.
    pub(crate) fn statistics(&self, counted: &context::Context) -> vcpu::Translator {
        let (start, end) = self.area.range();
        vcpu::Translator {
            looked_up: counted.looked_up,
            entered: counted.entered,
            code_used: self.area.used() as u64,
            code_capacity: (end - start) as u64,
            ..self.figures.statistics()
        }
    }

    /// Whether a guest instruction begins at `offset`, so that its state is whole there.
    fn begins_instruction(&self, offset: u32) -> bool {
        let last = self.fault_map.partition_point(|s| s.offset <= offset).checked_sub(1);
        last.is_some_and(|n| self.fault_map[n].offset == offset && self.fault_map[n].boundary)
    }

    /// Offset and length of the translation that `offset` lies in.
    fn extent(&self, offset: u32) -> Option<(u32, u32)> {
        let last = self.extents.partition_point(|e| e.0 <= offset).checked_sub(1)?;
        self.extents.get(last).copied().filter(|e| offset < e.0 + e.1)
    }

    /// Forgets every translation. No block may refer to one any more.
    pub(crate) fn reset(&mut self) {
        self.area.clear();
        self.stubs = None;
        self.region_stubs.clear();
        self.regions.clear();
        self.sites.clear();
        self.fault_map.clear();
        self.registration = None;
        self.cross_page.clear();
        self.retired.clear();
        self.extents.clear();
        self.figures.dropped();
    }
}

/// Has translated code poll, and count its instructions, from now on: it is to stop now and then.
pub(crate) fn limit(cpu: &mut Cpu) {
    count(cpu);
    if !cpu.translator.polls {
        cpu.translator.polls = true;
        forget(cpu);
    }
}

/// Has translated code count its instructions from now on.
pub(crate) fn count(cpu: &mut Cpu) {
    if !cpu.translator.counting {
        cpu.translator.counting = true;
        forget(cpu);
    }
}

/// A region that was translated.
pub(crate) struct RegionRecord {
    entries: Vec<(Key, Entries)>,
    dead: bool,
}

/// Translates `block`, if it can be. Returns whether the cache is full.
pub(crate) fn translate(cpu: &mut Cpu, block: &Block) -> Result<(), Full> {
    block.translation.heat.set(u32::MAX);
    if cpu.mode != Mode::Long64 {
        return Ok(());
    }
    let Some(mut region) = region::discover(cpu, block) else { return Ok(()) };
    make(cpu, &mut region)
}

/// The per-access translation of `block`, made if there is none; noted at the `site` whose check
/// sent us here. `None`: it cannot be had.
pub(crate) fn per_access(cpu: &mut Cpu, block: &Block, site: u32) -> Result<Option<Entries>, Full> {
    if block.translation.per_access.get().is_none() {
        let Some(mut region) = region::per_access(cpu, block) else { return Ok(None) };
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

fn make(cpu: &mut Cpu, region: &mut region::Region) -> Result<(), Full> {
    let options = Options {
        first_site: cpu.translator.sites.len(),
        first_cross_page: cpu.translator.cross_page.branches.len(),
        polls: cpu.translator.polls,
        counting: cpu.translator.counting,
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

/// Whether the translator leaves `instruction` to the interpreter: such a one stands alone in its
/// block where there is a translator.
pub(crate) fn leaves_alone(cpu: &Cpu, instruction: &iced_x86::Instruction) -> bool {
    cpu.hot != u32::MAX
        && cpu.mode == Mode::Long64
        && matches!(class_in(cpu, instruction), Class::Other)
}

fn class_in(cpu: &Cpu, i: &iced_x86::Instruction) -> Class {
    let on = |bit: u8| cpu.mode_key & bit != 0;
    if i.is_invalid() || !cpu.features.allows(i) {
        return Class::Other;
    }
    let class =
        flow::class_of(i, Units { sse: on(crate::cpu::SSE_ON), avx: on(crate::cpu::AVX_ON) });
    match class {
        Class::Swapgs | Class::Cli | Class::Sti | Class::Rdtsc if on(crate::cpu::USER) => {
            Class::Other
        }
        // Any level may read selectors; control registers need level 0.
        Class::ReadState(_) if on(crate::cpu::USER) && i.op1_register().is_cr() => Class::Other,
        // Lockstep's log has no room for what they write.
        Class::Repeat(_) if cpu.translator.compared => Class::Other,
        // Time passes, and PUSHF shows flags that have no defined value.
        Class::Rdtsc | Class::PushFlags if cpu.translator.compared => Class::Other,
        _ => class,
    }
}

/// There is no room: [`forget`] everything.
pub(crate) struct Full;

/// Puts a translation into the area and tells the blocks it was made of.
fn place(cpu: &mut Cpu, region: &region::Region, mut t: Translation) -> Result<(), Full> {
    let translator = &mut cpu.translator;
    let base = resolve(translator, &mut t)?;
    let number = translator.regions.len() as u32;
    t.cross_page.iter_mut().for_each(|branch| branch.place(number, base as u32));
    translator.cross_page.branches.append(&mut t.cross_page);
    translator.area.push(&t.code).ok_or(Full)?;
    translator.extents.push((base as u32, t.code.len() as u32));
    if tracing::enabled!(target: "blocks", tracing::Level::TRACE) {
        let host = translator.area.address(base);
        listing::trace(&region.insns, cpu.state.rip, region.blocks[0].key, &t, host);
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
fn publish(cpu: &mut Cpu, region: &region::Region, number: u32, entries: &[(Key, Entries)]) {
    let page = region.blocks[0].key.gpa() & !crate::tlb::PAGE_MASK;
    for dependency in &region.dependencies {
        cpu.mmu.blocks.depend(page + u64::from(dependency.offset), dependency.len.into(), number);
    }
    for b in &region.blocks {
        let Some(block) = cpu.mmu.blocks.get(b.key) else { continue };
        let translation = &block.translation;
        translation.regions.borrow_mut().push(number);
        if let Some((_, entries)) = entries.iter().find(|(key, _)| *key == b.key) {
            let cell =
                if region.per_access { &translation.per_access } else { &translation.shared };
            cell.set(Some(*entries));
        }
    }
}

/// Resolves the rel32 at `place` of the code area to `to`.
fn patch_rel32(translator: &mut Translator, place: u32, to: u32) {
    let rel = i64::from(to) - (i64::from(place) + 4);
    translator.area.patch(place as usize, &(rel as i32).to_le_bytes());
}

/// Resolves the rel32 at `place` of code that will stand at `base` to `target`, both offsets in the
/// area.
fn patch(code: &mut [u8], place: usize, base: usize, target: usize) {
    let rel = target as i64 - (base + place + 4) as i64;
    code[place..place + 4].copy_from_slice(&(rel as i32).to_le_bytes());
}
