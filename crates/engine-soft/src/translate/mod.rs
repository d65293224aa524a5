//! T1, the same-ISA translator: guest code of 64-bit mode as host code, run on the host's own
//! registers.
//!
//! When a block is hot ([`HOT`] runs in the interpreter) it is translated together with what it
//! leads to on its page ([`region`]): unprivileged instructions are copied, memory operands go
//! through an inline TLB check ([`address`]), everything else leaves to the interpreter, which is
//! complete and the reference. Direct branches are linked, to another page only as long as it is
//! known to be the same ([`far`]), returns and indirect ones go through a table from guest to host
//! addresses. A missed check is made good by a call ([`fill`]). A host fault in translated code (a
//! misaligned SSE operand, #DE, #XM) leaves at the guest instruction where it happened, and the
//! interpreter decides what it means. What is raised from outside stops translated code by a signal
//! of the host's ([`interrupt`]).

mod address;
mod asm;
mod bit;
mod branch;
pub(crate) mod context;
mod emit;
mod encode;
mod far;
mod figures;
mod fill;
mod flow;
mod glue;
mod graves;
mod homes;
pub(crate) mod interrupt;
mod listing;
pub(crate) mod lockstep;
mod recover;
mod region;
mod run;
mod scratch;
mod stack;
pub(crate) mod stack_page;
mod string;
mod system;
mod thread;

pub(crate) use run::{
    Entry, Known, Left, attach, entry_at_rip, entry_beside, entry_of, forget, link, note,
};

use crate::block::{Block, Host, Key};
use crate::cpu::Cpu;
use crate::thunk::area::CodeArea;
use emit::{Options, Out, Site, Start, Translation};
use flow::Class;
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
    glue: Option<glue::Glue>,
    /// Glue by the registers homed.
    insides: HashMap<u16, glue::Inside>,
    regions: Vec<Made>,
    sites: Vec<Site>,
    /// What a fault means from each offset in the area on, ascending.
    starts: Vec<Start>,
    factory: InstructionInfoFactory,
    avx: bool,
    bmi2: bool,
    far: far::FarLinks,
    /// Translations of dead blocks, which others may still jump to.
    graves: HashMap<Key, Vec<Host>>,
    /// Count instructions in translated code.
    pub(crate) counting: bool,
    /// Translated code polls.
    pub(crate) polls: bool,
    /// Where each translation lies, ascending: offset and length.
    extents: Vec<(u32, u32)>,
    /// The interpreter runs the same code for comparison: both must read the same time.
    pub(crate) compared: bool,
    figures: figures::Figures,
    /// The status flags with which a narrow translation was entered, unless they were lost.
    noted: Option<u16>,
    /// At the last exit flags that a check had overwritten were had again.
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
            glue: None,
            insides: HashMap::new(),
            regions: Vec::new(),
            sites: Vec::new(),
            starts: Vec::new(),
            factory: InstructionInfoFactory::new(),
            avx: host.has(crate::thunk::Feature::Avx),
            bmi2: host.has(crate::thunk::Feature::Bmi2),
            far: far::FarLinks::default(),
            graves: HashMap::new(),
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
    fn glue(&mut self) -> Option<glue::Glue> {
        if self.glue.is_none() {
            self.glue = glue::make(&mut self.area, self.avx);
        }
        self.glue
    }

    /// Whether the translation with number `region` is still good.
    fn alive(&self, region: u32) -> bool {
        self.regions.get(region as usize).is_some_and(|region| !region.dead)
    }

    /// The glue for regions that home `homed`.
    fn inside(&mut self, homed: u16) -> Option<glue::Inside> {
        if let Some(known) = self.insides.get(&homed) {
            return Some(*known);
        }
        let made = if homed == scratch::STANDARD {
            self.glue()?.boundary
        } else {
            glue::inside(&mut self.area, homed, self.avx)?
        };
        self.insides.insert(homed, made);
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
        let last = self.starts.partition_point(|s| s.offset <= offset).checked_sub(1);
        last.is_some_and(|n| self.starts[n].offset == offset && self.starts[n].boundary)
    }

    /// Offset and length of the translation that `offset` lies in.
    fn extent(&self, offset: u32) -> Option<(u32, u32)> {
        let last = self.extents.partition_point(|e| e.0 <= offset).checked_sub(1)?;
        self.extents.get(last).copied().filter(|e| offset < e.0 + e.1)
    }

    /// Forgets every translation. No block may refer to one any more.
    pub(crate) fn reset(&mut self) {
        self.area.clear();
        self.glue = None;
        self.insides.clear();
        self.regions.clear();
        self.sites.clear();
        self.starts.clear();
        self.registration = None;
        self.far.clear();
        self.graves.clear();
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
pub(crate) struct Made {
    entries: Vec<(Key, Host)>,
    dead: bool,
}

/// Translates `block`, if it can be; tells whether the cache is full.
pub(crate) fn translate(cpu: &mut Cpu, block: &Block) -> Result<(), Full> {
    block.host.heat.set(u32::MAX);
    if cpu.mode != Mode::Long64 {
        return Ok(());
    }
    let Some(mut region) = region::discover(cpu, block) else { return Ok(()) };
    make(cpu, &mut region)
}

/// The narrow translation of `block`, made if there is none; noted at the `site` whose check sent
/// us here. `None`: it cannot be had.
pub(crate) fn narrow(cpu: &mut Cpu, block: &Block, site: u32) -> Result<Option<Host>, Full> {
    if block.host.narrow.get().is_none() {
        let Some(mut region) = region::narrow(cpu, block) else { return Ok(None) };
        make(cpu, &mut region)?;
    }
    let made = block.host.narrow.get();
    let alive = made.is_some_and(|host| cpu.translator.alive(host.region));
    if let Some(Site::Check { narrow, homed, .. }) = cpu.translator.sites.get_mut(site as usize)
        && *homed == scratch::STANDARD
        && alive
    {
        *narrow = made;
    }
    Ok(made)
}

fn make(cpu: &mut Cpu, region: &mut region::Region) -> Result<(), Full> {
    let options = Options {
        first_site: cpu.translator.sites.len(),
        first_far: cpu.translator.far.branches.len(),
        polls: cpu.translator.polls,
        counting: cpu.translator.counting,
        bmi2: cpu.translator.bmi2,
    };
    let began = Instant::now();
    let homed = if cpu.hot == 0 { homes::any(region) } else { homes::choose(region) };
    let translation = loop {
        match emit::translate(region, homed, options) {
            Ok(translation) => break translation,
            Err(n) if region.leave(n) => {}
            Err(_) => return Ok(()),
        }
    };
    place(cpu, region, translation)?;
    cpu.translator.figures.translated(region.guests.len(), began.elapsed());
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
    let class = flow::class_of(i, on(crate::cpu::SSE_ON), on(crate::cpu::AVX_ON));
    match class {
        Class::Swapgs | Class::Cli | Class::Sti | Class::Rdtsc if on(crate::cpu::USER) => {
            Class::Other
        }
        // Selectors are everybody's to read, control registers are not.
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
    let glue = translator.glue().ok_or(Full)?;
    let inside = translator.inside(t.homed).ok_or(Full)?;
    let Some(base) = translator.area.next(t.code.len()) else { return Err(Full) };
    for (place, out) in &t.jumps {
        let target = match out {
            Out::Leave => glue.boundary.leave,
            Out::LeaveInside => inside.leave,
            Out::Fill(register) => inside.fill[usize::from(*register)],
            Out::LoadVectors => glue.load_vectors,
        };
        patch(&mut t.code, *place, base, target);
    }
    for site in &mut t.sites {
        match site {
            Site::Link { place, .. } => *place += base as u32,
            Site::Check { retry, .. } => *retry += base as u32,
            Site::Target { .. } | Site::Dead { .. } | Site::Far { .. } | Site::Interpret { .. } => {
            }
        }
    }
    let number = translator.regions.len() as u32;
    t.fars.iter_mut().for_each(|far| far.place(number, base as u32));
    translator.far.branches.append(&mut t.fars);
    translator.area.push(&t.code).ok_or(Full)?;
    translator.extents.push((base as u32, t.code.len() as u32));
    if tracing::enabled!(target: "blocks", tracing::Level::TRACE) {
        let host = translator.area.address(base);
        listing::trace(&region.guests, cpu.state.rip, region.blocks[0].key, &t, host);
    }
    translator.figures.placed(&region.guests, &t.sites);
    translator.sites.append(&mut t.sites);
    let moved = t.starts.iter().map(|s| Start { offset: s.offset + base as u32, ..*s });
    translator.starts.extend(moved);
    translator.blocks += region.blocks.len() as u64;
    let at = |offset: u32| base as u32 + offset;
    let entries: Vec<(Key, Host)> = t
        .entries
        .iter()
        .map(|(key, h)| {
            let (far, aside, near, body) = (at(h.far), at(h.aside), at(h.near), at(h.body));
            (*key, Host { far, aside, near, body, region: number })
        })
        .collect();
    if !region.narrow {
        for (key, host) in &entries {
            graves::revive(translator, *key, *host);
        }
    }
    translator.regions.push(Made { entries: entries.clone(), dead: false });
    let page = region.blocks[0].key.gpa() & !crate::tlb::PAGE_MASK;
    for peek in &region.peeks {
        cpu.mmu.blocks.peek(page + u64::from(peek.offset), peek.len.into(), number);
    }
    for b in &region.blocks {
        let Some(block) = cpu.mmu.blocks.get(b.key) else { continue };
        block.host.regions.borrow_mut().push(number);
        if let Some((_, host)) = entries.iter().find(|(key, _)| *key == b.key) {
            let cell = if region.narrow { &block.host.narrow } else { &block.host.code };
            cell.set(Some(*host));
        }
    }
    Ok(())
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
