//! Translation of a region: guest instructions to host code, with every exit recorded.
//!
//! Conventions. At a region's boundary the host's registers hold the guest's, RSP included, but for
//! R9 to R11, which are in the state; within it the three registers it uses least are (see
//! `super::scratch`). Status flags are in RFLAGS at every boundary, or provably dead. `BLOCK_IP`'s
//! slot holds the linear address of the page the code runs on, so that a region runs wherever its
//! page is mapped. Before its address check has passed, an instruction changes nothing of the
//! guest's: any fault or miss leaves to the interpreter at that instruction.

use super::address::{Access, Check, access_of, expression_of};
use super::asm::{ADDRESS, Asm, RAX};
use super::encode::{self, Memory, Operands};
use super::flow::{Class, FlagUse};
use super::insn::{GuestInsn, PAGE_BYTES};
use super::links::CrossPageBranch;
use super::links::Detour;
use super::offsets::{PAGE, SCRATCH, TMP_FLAGS, spill_slot};
use super::recipe::Recipe;
use super::region::{BasicBlock, Region};
use super::scratch::bits;
use super::scratch::last;
use super::scratch::{Held, Scratch};
use super::site::ExitSite;
use super::site::FaultMapEntry;
use super::site::StubTarget;
use super::site::Translation;
use crate::block::Key;
use crate::cpu::Cpu;
use crate::tlb::{FETCH_ENTRIES, FetchEntry};
use std::mem::{offset_of, size_of};
use x86::regs::Rflags;

/// log2 of an instruction entry's size.
const FETCH_SHIFT: u8 = size_of::<FetchEntry>().trailing_zeros() as u8;

/// What an address check must spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// Status flags are needed behind it.
    Flags,
}

/// What is done where the address is not on the page at hand.
#[derive(Clone, Copy)]
pub(super) struct Elsewhere {
    pub(super) from: usize,
    pub(super) retry: usize,
    pub(super) done: usize,
    pub(super) site: usize,
    pub(super) address: u8,
    pub(super) check: Check,
}

/// A cold piece of code, emitted behind the hot one.
pub(super) enum Cold {
    /// Leaves by `site`.
    Exit { from: usize, site: usize, out: StubTarget },
    /// A branch out of the region that was taken.
    Branch { from: usize, to: i32, n: usize, polls: bool },
    /// An address through RSP is not on the page at hand.
    StackElsewhere(Elsewhere),
    /// A cross-page branch where it is not linked.
    Detour(Detour),
}

/// See the module.
pub(super) struct Emitter<'a> {
    pub(super) asm: Asm,
    pub(super) region: &'a Region,
    pub(super) spilled: u16,
    pub(super) scratch: Scratch,
    /// Flags are in `Context::flags` rather than in RFLAGS.
    pub(super) saved: bool,
    /// The block under way.
    pub(super) current: usize,
    pub(super) options: Options,
    pub(super) sites: Vec<ExitSite>,
    pub(super) cross_page: Vec<CrossPageBranch>,
    pub(super) cold: Vec<Cold>,
    pub(super) jumps: Vec<(usize, StubTarget)>,
    pub(super) site_numbers: Vec<usize>,
    pub(super) slots: Vec<(usize, u32)>,
    pub(super) fault_map: Vec<FaultMapEntry>,
    /// Where each block's code begins.
    pub(super) labels: Vec<Option<usize>>,
    /// Jumps to blocks within: place of rel32, block.
    pub(super) inner: Vec<(usize, usize)>,
    /// What the only predecessor of a block leaves in the scratch registers.
    pub(super) inherited: Vec<Option<Scratch>>,
    pub(super) entries: Vec<(Key, crate::block::Entries)>,
    /// The instruction under way.
    at: usize,
}

/// What a translation depends on beside the guest's code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) wanted: super::generation::Options,
    /// The host has BMI2.
    pub(super) bmi2: bool,
}

/// Translates `region`.
///
/// # Errors
/// The number of an instruction that finds no scratch register, or no encoding: to be left to the
/// interpreter.
pub(super) fn translate(
    region: &Region,
    spilled: u16,
    options: Options,
) -> Result<Translation, usize> {
    let (blocks, insns) = (region.blocks.len(), region.insns.len());
    // Room for what most regions need: growing costs more than a good part of the emitting.
    let some = insns + 4 * blocks;
    let mut e = Emitter {
        asm: Asm::with_capacity(64 * some),
        region,
        spilled,
        scratch: Scratch::new(spilled),
        saved: false,
        current: 0,
        options,
        sites: Vec::with_capacity(some),
        cross_page: Vec::new(),
        cold: Vec::with_capacity(some),
        jumps: Vec::with_capacity(some),
        site_numbers: Vec::with_capacity(some),
        slots: Vec::new(),
        fault_map: Vec::with_capacity(3 * some),
        labels: vec![None; blocks],
        inner: Vec::with_capacity(2 * blocks),
        inherited: vec![None; blocks],
        entries: Vec::with_capacity(blocks),
        at: 0,
    };
    e.run().ok_or(e.at)?;
    Ok(Translation {
        code: e.asm.code,
        entries: e.entries,
        spilled,
        sites: e.sites,
        cross_page: e.cross_page,
        jumps: e.jumps,
        site_numbers: e.site_numbers,
        slots: e.slots,
        fault_map: e.fault_map,
    })
}

impl Emitter<'_> {
    fn run(&mut self) -> Option<()> {
        let order = super::region::layout(self.region);
        for (k, &b) in order.iter().enumerate() {
            self.emit_block(b, order.get(k + 1).copied())?;
        }
        self.outer_entries(&order);
        // Cold pieces may make more of them.
        while !self.cold.is_empty() {
            for cold in std::mem::take(&mut self.cold) {
                self.cold_piece(&cold)?;
            }
        }
        for (place, block) in std::mem::take(&mut self.inner) {
            self.asm.resolve(place, self.labels[block]?);
        }
        self.dead_entries();
        Some(())
    }

    pub(super) fn block(&self) -> &BasicBlock {
        &self.region.blocks[self.current]
    }

    fn emit_block(&mut self, b: usize, next: Option<usize>) -> Option<()> {
        self.current = b;
        self.saved = false;
        self.scratch = self.inherited[b].take().unwrap_or_else(|| Scratch::new(self.spilled));
        self.scratch.unpin();
        if b == 0 {
            self.head_entry();
        }
        self.labels[b] = Some(self.asm.here());
        let (first, count) = (self.block().first, self.block().count);
        if self.options.wanted.counting {
            self.map_faults(first, count as u16);
            self.moved();
            self.count(count)?;
        }
        if let Some(second) = self.region.second_page {
            self.map_faults(first, count as u16);
            self.same_second_page(first, second)?;
        }
        let mut open = true;
        for n in first..first + count {
            let rest = (first + count - n) as u16;
            self.at = n;
            self.map_faults(n, rest);
            open = self.instruction(n, next)?;
            self.scratch.unpin();
            if !open {
                break;
            }
        }
        if open {
            let end = self.block().end;
            self.materialize_flags_for(end, true);
            self.edge(end, None, next)?;
        }
        Some(())
    }

    /// From here on faults are instruction `n`'s, and flags where they are now.
    pub(super) fn map_faults(&mut self, n: usize, rest: u16) {
        let (offset, delta) = (self.asm.here() as u32, self.region.insns[n].delta);
        let (spilled, saved, shadow) = (self.spilled, self.saved, self.shadow(n));
        let recipe = self.recipe(n);
        self.fault_map.push(FaultMapEntry {
            offset,
            delta,
            rest,
            spilled,
            saved,
            shadow,
            recipe,
            boundary: true,
        });
    }

    /// Flags or spilled registers have moved: notes it for faults behind this point.
    pub(super) fn moved(&mut self) {
        if let Some(last) = self.fault_map.last().copied() {
            let offset = self.asm.here() as u32;
            let (saved, spilled) = (self.saved, self.spilled);
            self.fault_map.push(FaultMapEntry { offset, saved, spilled, boundary: false, ..last });
        }
    }

    pub(super) fn flags_moved(&mut self, saved: bool) {
        self.saved = saved;
        self.moved();
    }

    pub(super) fn site(&mut self, site: ExitSite) -> usize {
        self.sites.push(site);
        self.sites.len() - 1
    }

    /// Instructions from `n` to its block's end.
    pub(super) fn rest(&self, n: usize) -> u16 {
        let b = self.block();
        (b.first + b.count).saturating_sub(n) as u16
    }

    /// Whether instruction `n` comes right behind an STI.
    pub(super) fn shadow(&self, n: usize) -> bool {
        n > self.block().first && matches!(self.region.insns[n - 1].class, Class::Sti)
    }

    /// How to recover flags before instruction `n`, where they are not saved though a check may
    /// overwrite them.
    pub(super) fn recipe(&self, n: usize) -> Option<Recipe> {
        let g = &self.region.insns[n];
        g.recipe.filter(|_| Self::need_before(g) == Need::Nothing)
    }

    /// The site that calls `fill` for a missed `check` of instruction `n`, and retries at `retry`.
    pub(super) fn check_site(&mut self, n: usize, check: Check, retry: usize) -> usize {
        let (delta, undone, saved) = (self.region.insns[n].delta, self.rest(n), self.saved);
        self.site(ExitSite::Check {
            check,
            delta,
            undone,
            saved,
            shadow: self.shadow(n),
            recipe: self.recipe(n),
            retry: retry as u32,
        })
    }

    /// Leaves to the interpreter at instruction `n`, which ends the block here.
    fn interpret(&mut self, n: usize) {
        self.materialize_flags(true);
        let from = self.asm.jmp();
        self.interpret_from(from, n);
    }

    /// The jump at `from` leaves to the interpreter at instruction `n`.
    pub(super) fn interpret_from(&mut self, from: usize, n: usize) {
        let (delta, undone, saved) = (self.region.insns[n].delta, self.rest(n), self.saved);
        let site = self.site(ExitSite::Interpret {
            delta,
            undone,
            saved,
            shadow: self.shadow(n),
            recipe: self.recipe(n),
        });
        self.cold.push(Cold::Exit { from, site, out: StubTarget::LeaveRegion });
    }

    /// Makes sure that instruction `n`, which crosses the page's end, goes on where it did: by the
    /// instruction TLB.
    fn same_second_page(&mut self, n: usize, second: u64) -> Option<()> {
        let (page, entry) = (self.scratch.take()?, self.scratch.take()?);
        if Self::need_before(&self.region.insns[n]) == Need::Flags {
            self.save_flags(entry);
        }
        self.asm.load(page, PAGE);
        self.asm.lea(page, page, PAGE_BYTES);
        self.asm.mov(entry, page);
        self.asm.shr(entry, 12 - FETCH_SHIFT);
        self.asm.and32(entry, ((FETCH_ENTRIES - 1) << FETCH_SHIFT) as i32);
        self.asm.add_gs(entry, Cpu::FETCH_OFFSET);
        self.asm.cmp_at(page, entry, offset_of!(FetchEntry, tag) as i32);
        let other = self.asm.jcc(5);
        self.interpret_from(other, n);
        self.asm.load_immediate64(page, second);
        self.asm.cmp_at(page, entry, offset_of!(FetchEntry, gpa) as i32);
        let other = self.asm.jcc(5);
        self.interpret_from(other, n);
        self.scratch.unpin();
        Some(())
    }

    /// RAX is never spilled.
    fn restore_flags(&mut self) {
        let spare = self.scratch.take();
        match spare {
            Some(spare) => self.asm.mov(spare, RAX),
            None => self.asm.store(SCRATCH, RAX),
        }
        self.asm.load_word(RAX, TMP_FLAGS);
        self.asm.flags_from_ax();
        match spare {
            Some(spare) => {
                self.asm.mov(RAX, spare);
                self.scratch.give(spare);
            }
            None => self.asm.load(RAX, SCRATCH),
        }
    }

    /// Brings flags back into RFLAGS if they are `needed` there.
    pub(super) fn materialize_flags(&mut self, needed: bool) {
        if self.saved {
            if needed {
                self.restore_flags();
            }
            self.flags_moved(false);
        }
    }

    fn prepare_flags(&mut self, flag_use: FlagUse, live_after: bool) {
        match flag_use {
            FlagUse::Reads => self.materialize_flags(true),
            FlagUse::Changes => self.materialize_flags(live_after),
            FlagUse::Replaces => self.materialize_flags(false),
            FlagUse::Leaves => {}
        }
    }

    /// Translates instruction `n`; false if it ends the block.
    fn instruction(&mut self, n: usize, next: Option<usize>) -> Option<bool> {
        let region = self.region;
        let g = &region.insns[n];
        match g.class {
            Class::Nop => {}
            Class::Plain => self.plain(n)?,
            Class::Lea => self.lea(n)?,
            Class::Memory(operand) => {
                let Some(access) = access_of(&g.i, &operand) else {
                    self.interpret(n);
                    return Some(false);
                };
                if g.usage.high_byte {
                    self.interpret(n);
                    return Some(false);
                }
                self.memory(n, access)?;
            }
            Class::Bit(operand) => self.bit(n, access_of(&g.i, &operand)?)?,
            Class::PushRegister | Class::PushImmediate => self.push(n)?,
            Class::PushMemory => self.push_memory(n)?,
            Class::PushFlags => self.push_flags(n)?,
            Class::PopRegister => self.pop(n)?,
            Class::Leave => self.leave(n)?,
            // Whoever is waited for does not run meanwhile.
            Class::Pause if self.options.wanted.bounded => {}
            Class::Pause => self.pause(n)?,
            Class::Swapgs => self.swapgs()?,
            Class::Cli => self.clear_flag(n, Rflags::IF.bits() as u32)?,
            // What follows must be known to be able to say that it is in the shadow.
            Class::Sti if self.rest(n) == 1 => {
                self.interpret(n);
                return Some(false);
            }
            Class::Sti => self.sti(n)?,
            Class::Rdtsc => self.rdtsc(n)?,
            Class::Rdtscp => self.rdtscp(n)?,
            Class::Cld => self.clear_flag(n, Rflags::DF.bits() as u32)?,
            Class::ReadState(field) => self.read_state(n, field)?,
            Class::Repeat(repeat) => self.repeat(n, repeat)?,
            Class::Other => {
                self.interpret(n);
                return Some(false);
            }
            _ => {
                self.branch(n, next)?;
                return Some(false);
            }
        }
        self.note_writes(g);
        Some(true)
    }

    fn plain(&mut self, n: usize) -> Option<()> {
        let region = self.region;
        let g = &region.insns[n];
        self.prepare_flags(g.usage.flags, g.live_after);
        self.copied(g, None)
    }

    /// Emits `g` with its spilled registers in scratch registers, and its memory operand, if it has
    /// one, at `memory`.
    fn copied(&mut self, g: &GuestInsn, memory: Option<Memory>) -> Option<()> {
        let spilled = g.usage.registers & self.spilled;
        if spilled == 0 && memory.is_none() {
            self.asm.bytes(g.bytes());
            return Some(());
        }
        let mut registers: [u8; 16] = std::array::from_fn(|r| r as u8);
        for r in bits(spilled & g.usage.implicit) {
            self.visit(r, Some(r), g.usage.needed & 1 << r != 0)?;
        }
        for r in bits(spilled & !g.usage.implicit) {
            registers[usize::from(r)] = self.visit(r, None, g.usage.needed & 1 << r != 0)?;
        }
        let operands = Operands { registers, memory };
        if spilled == 0 && memory.is_none() {
            self.asm.bytes(g.bytes());
        } else {
            encode::rewrite(&g.i, g.bytes(), &operands, &mut self.asm.code)?;
        }
        for r in bits(spilled & g.usage.gpr_written) {
            let host = registers[usize::from(r)];
            self.asm.store(spill_slot(r), host);
            self.scratch.stale_guest(r, Some(host));
            self.scratch.hold(host, Held::Guest(r));
        }
        Some(())
    }

    /// A scratch register (`wanted`, if it must be that one) for spilled register `r`, with its
    /// value if that is `needed`.
    fn visit(&mut self, r: u8, wanted: Option<u8>, needed: bool) -> Option<u8> {
        if let Some(host) = self.scratch.find_guest(r) {
            if wanted.is_none_or(|w| w == host) {
                return Some(host);
            }
            self.scratch.give(host);
            self.scratch.hold(host, Held::Nothing);
        }
        let host = match wanted {
            Some(host) => {
                self.scratch.take_host(host)?;
                host
            }
            None => self.scratch.take()?,
        };
        if needed {
            self.asm.load(host, spill_slot(r));
            self.scratch.hold(host, Held::Guest(r));
        }
        Some(host)
    }

    /// The host register that holds guest register `r`.
    pub(super) fn value(&mut self, r: u8) -> Option<u8> {
        if self.spilled & 1 << r == 0 { Some(r) } else { self.visit(r, None, true) }
    }

    fn need_before(g: &GuestInsn) -> Need {
        let needed = match g.usage.flags {
            FlagUse::Reads => true,
            FlagUse::Replaces => false,
            FlagUse::Changes | FlagUse::Leaves => g.live_after,
        };
        if needed { Need::Flags } else { Need::Nothing }
    }

    pub(super) fn memory(&mut self, n: usize, access: Access) -> Option<()> {
        let region = self.region;
        let g = &region.insns[n];
        // What must be in a register of its own takes its place first.
        for r in bits(g.usage.registers & g.usage.implicit & self.spilled) {
            self.visit(r, Some(r), true)?;
        }
        let place = self.reach(n, access, Self::need_before(g))?;
        self.prepare_flags(g.usage.flags, g.live_after);
        let memory = Memory {
            base: Some(place.base),
            index: place.index,
            scale: 0,
            displacement: place.displacement,
        };
        self.copied(g, Some(memory))
    }

    fn lea(&mut self, n: usize) -> Option<()> {
        let region = self.region;
        let g = &region.insns[n];
        let i = &g.i;
        if !i.is_ip_rel_memory_operand() {
            let spilled = g.usage.registers & self.spilled;
            if spilled == 0 {
                self.asm.bytes(g.bytes());
                return Some(());
            }
            // The address size matters here, and the encoder drops it.
            let wide = |r: iced_x86::Register| r == iced_x86::Register::None || r.is_gpr64();
            if !wide(i.memory_base()) || !wide(i.memory_index()) {
                return None;
            }
            let (at, displacement) = expression_of(i, false)?;
            let mut bring = |r: u8| match r {
                super::address::NONE => Some(None),
                r => self.value(r).map(Some),
            };
            let (base, index) = (bring(at.base)?, bring(at.index)?);
            let memory = Memory { base, index, scale: at.scale, displacement };
            return self.copied(g, Some(memory));
        }
        if i.memory_base() != iced_x86::Register::RIP {
            return None;
        }
        let (_, displacement) = expression_of(i, false)?;
        let to = i.op0_register();
        let number = to.full_register().number() as u8;
        if to.size() == 2 {
            return None;
        }
        let host = if self.spilled & 1 << number == 0 { number } else { self.scratch.take()? };
        self.asm.load(host, PAGE);
        self.asm.lea(host, host, displacement);
        if to.size() == 4 {
            self.asm.mov32(host, host);
        }
        if self.spilled & 1 << number != 0 {
            self.asm.store(spill_slot(number), host);
            self.scratch.stale_guest(number, None);
        }
        Some(())
    }

    pub(super) fn live(&self, n: usize) -> Need {
        if self.region.insns[n].live_after { Need::Flags } else { Need::Nothing }
    }

    /// Leaves by `site`, through `out`.
    pub(super) fn leave_by(&mut self, site: usize, out: StubTarget) {
        let register = match out {
            StubTarget::LeaveRegion => last(self.spilled),
            StubTarget::Fill(register) => register,
            _ => ADDRESS,
        };
        self.asm.load_immediate32(register, site as u32);
        self.site_numbers.push(self.asm.here() - 4);
        let jump = self.asm.jmp();
        self.jumps.push((jump, out));
    }

    fn cold_piece(&mut self, cold: &Cold) -> Option<()> {
        match *cold {
            Cold::Exit { from, site, out } => {
                self.asm.resolve_here(from);
                self.leave_by(site, out);
            }
            Cold::Branch { from, to, n, polls } => self.cold_branch(from, to, n, polls),
            Cold::Detour(detour) => self.detour(&detour),
            Cold::StackElsewhere(elsewhere) => self.stack_elsewhere(&elsewhere)?,
        }
        Some(())
    }
}
