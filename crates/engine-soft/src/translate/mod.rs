//! T1, the same-ISA translator: guest blocks of 64-bit mode as host code, run on the host's own registers.
//!
//! A hot block ([`HOT`] runs in the interpreter) is translated ([`emit`]): unprivileged instructions are copied, memory operands go through an
//! inline TLB check, everything else leaves to the interpreter, which is complete and the reference. Blocks on one page are linked by direct
//! jumps, all others through a table from guest to host addresses. A host fault in translated code (a misaligned SSE operand, #DE, #XM, the
//! poll word made unreadable) leaves at the guest instruction where it happened, and the interpreter decides what it means.
#![allow(unsafe_code)] // enters and patches generated code; see docs/UNSAFE.md

mod asm;
pub(crate) mod context;
mod emit;
mod figures;
mod flow;
mod glue;
mod listing;
pub(crate) mod lockstep;
mod run;
mod thread;

pub(crate) use run::{Left, forget, link};

use crate::block::{Block, Host, Key};
use crate::cpu::Cpu;
use crate::thunk::area::CodeArea;
use crate::tlb::PAGE_MASK;
use emit::{Guest, Site, Start, Translation};
use flow::Class;
use iced_x86::{Decoder, InstructionInfoFactory, OpKind};
use std::collections::HashMap;
use std::io;
use std::time::Instant;
use x86::state::Mode;

/// Runs of a block in the interpreter before it is translated.
pub(crate) const HOT: u32 = 24;

/// The code cache of one virtual processor.
pub(crate) struct Translator {
    area: CodeArea,
    glue: Option<glue::Glue>,
    sites: Vec<Site>,
    /// What a fault means from each offset in the area on, ascending.
    starts: Vec<Start>,
    factory: InstructionInfoFactory,
    avx: bool,
    /// Translations of dead blocks, which others may still jump to.
    graves: HashMap<Key, Vec<Host>>,
    /// The poll word of the processor's signals.
    poll: u64,
    registration: Option<crate::thunk::guard::TranslatedRegistration>,
    /// Where each translation lies, ascending: offset and length.
    extents: Vec<(u32, u32)>,
    /// The interpreter runs the same code for comparison: both must read the same time.
    pub(crate) compared: bool,
    figures: figures::Figures,
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
        Ok(Self {
            area: CodeArea::new_translated(capacity)?,
            glue: None,
            sites: Vec::new(),
            starts: Vec::new(),
            factory: InstructionInfoFactory::new(),
            avx: crate::thunk::HostFeatures::probe().has(crate::thunk::Feature::Avx),
            graves: HashMap::new(),
            poll: 0,
            registration: None,
            extents: Vec::new(),
            compared: false,
            figures: figures::Figures::default(),
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

    /// The figures for `--stats`.
    pub(crate) fn statistics(&self) -> vcpu::Translator {
        let (start, end) = self.area.range();
        vcpu::Translator {
            code_used: self.area.used() as u64,
            code_capacity: (end - start) as u64,
            ..self.figures.statistics()
        }
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
        self.sites.clear();
        self.starts.clear();
        self.registration = None;
        self.extents.clear();
        self.graves.clear();
        self.figures.dropped();
    }
}

/// Translates `block`, if it can be; tells whether the cache is full.
pub(crate) fn translate(cpu: &mut Cpu, block: &Block) -> Result<(), Full> {
    block.host.heat.set(u32::MAX);
    if cpu.mode != Mode::Long64 || block.second_page.is_some() {
        return Ok(());
    }
    let began = Instant::now();
    let Some((guest, translation)) = prepare(cpu, block) else { return Ok(()) };
    place(cpu, block, &guest, translation)?;
    cpu.translator.figures.translated(guest.len(), began.elapsed());
    Ok(())
}

/// Whether the translator leaves `instruction` to the interpreter: such a one stands alone in its block where there is a translator.
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
        Class::Rdtsc if cpu.translator.compared => Class::Other,
        _ => class,
    }
}

/// There is no room: [`forget`] everything.
pub(crate) struct Full;

fn prepare(cpu: &mut Cpu, block: &Block) -> Option<(Vec<Guest>, Translation)> {
    let gpa = block.key.gpa();
    let mut code = vec![0; usize::from(block.len)];
    cpu.mmu.ram.read(gpa, &mut code).ok()?;
    let start = (gpa & PAGE_MASK) as i32;
    let mut list = decode(cpu, &code, start)?;
    let end = start + i32::from(block.len);
    liveness(cpu, &mut list, gpa & !PAGE_MASK, end);
    let translation = emit::translate(&list, start, end, cpu.translator.sites.len())?;
    Some((list, translation))
}

fn decode(cpu: &mut Cpu, code: &[u8], start: i32) -> Option<Vec<Guest>> {
    let mut decoder = Decoder::with_ip(64, code, start as u64, cpu.features.decoder_options);
    let mut list = Vec::new();
    while decoder.can_decode() {
        let position = decoder.position();
        let i = decoder.decode();
        let mut bytes = [0; 15];
        bytes.get_mut(..i.len())?.copy_from_slice(code.get(position..position + i.len())?);
        let class = class_in(cpu, &i);
        let usage = flow::usage(&mut cpu.translator.factory, &i);
        let delta = start + position as i32;
        let other = matches!(class, Class::Other);
        list.push(Guest { i, class, usage, bytes, delta, live_after: true });
        if other {
            break;
        }
    }
    match list.first() {
        None => None,
        Some(first) if matches!(first.class, Class::Other) => None,
        _ => Some(list),
    }
}

/// Fills in where status flags are needed.
fn liveness(cpu: &Cpu, list: &mut [Guest], page: u64, end: i32) {
    let Some(last) = list.last() else { return };
    let dead_at = |delta: i32| {
        let Ok(offset @ 0..4096) = u64::try_from(delta) else { return false };
        let mut bytes = [0; 64];
        let len = bytes.len().min((PAGE_MASK + 1 - offset) as usize);
        cpu.mmu.ram.read(page + offset, &mut bytes[..len]).is_ok()
            && flow::replaced_soon(&bytes[..len])
    };
    let target = |g: &Guest| match g.i.op0_kind() {
        OpKind::NearBranch64 => g.i.near_branch_target() as i32,
        _ => -1,
    };
    let mut live = match last.class {
        Class::Jump | Class::Call => !dead_at(target(last)),
        Class::Jcc(_) => !(dead_at(target(last)) && dead_at(last.delta + last.i.len() as i32)),
        Class::Return(_)
        | Class::JumpRegister
        | Class::JumpMemory
        | Class::CallRegister
        | Class::CallMemory
        | Class::Other => true,
        _ => !dead_at(end),
    };
    for g in list.iter_mut().rev() {
        g.live_after = live;
        live = match flow::flag_use(&g.i) {
            _ if matches!(g.class, Class::Other) => true,
            flow::FlagUse::Reads => true,
            flow::FlagUse::Replaces => false,
            flow::FlagUse::Changes | flow::FlagUse::Leaves => live,
        };
    }
}

fn place(cpu: &mut Cpu, block: &Block, guest: &[Guest], mut t: Translation) -> Result<(), Full> {
    let translator = &mut cpu.translator;
    let glue = translator.glue().ok_or(Full)?;
    let Some(base) = translator.area.next(t.code.len()) else { return Err(Full) };
    for place in &t.leaves {
        patch(&mut t.code, *place, base, glue.leave);
    }
    for place in &t.loads {
        patch(&mut t.code, *place, base, glue.load_vectors);
    }
    for site in &mut t.sites {
        if let Site::Link { place, .. } = site {
            *place += base as u32;
        }
    }
    translator.area.push(&t.code).ok_or(Full)?;
    translator.extents.push((base as u32, t.code.len() as u32));
    if tracing::enabled!(target: "blocks", tracing::Level::TRACE) {
        let host = translator.area.address(base);
        listing::trace(guest, cpu.state.rip, block.key, &t, host);
    }
    translator.figures.placed(guest, &t.sites);
    translator.sites.append(&mut t.sites);
    let moved = t.starts.iter().map(|s| Start { offset: s.offset + base as u32, ..*s });
    translator.starts.extend(moved);
    translator.blocks += 1;
    let at = |offset: usize| (base + offset) as u32;
    let host = Host { far: at(t.far), near: at(t.near), body: at(t.body), stub: at(t.stub) };
    run::revive(translator, block.key, host);
    block.host.code.set(Some(host));
    Ok(())
}

/// Resolves the rel32 at `place` of code that will stand at `base` to `target`, both offsets in the area.
fn patch(code: &mut [u8], place: usize, base: usize, target: usize) {
    let rel = target as i64 - (base + place + 4) as i64;
    code[place..place + 4].copy_from_slice(&(rel as i32).to_le_bytes());
}
