//! Direct branches to another page, linked while the page tables stay the same.
//!
//! A link within a page is good for ever: code runs wherever its page is mapped. What lies at a
//! distance on another page depends on the page tables. So a cross-page link holds for one address
//! space, as long as the translations stay that were in use when it was made:
//!
//! - User code compares the address space's *generation* before each jump
//!   ([`Context::generation`]): a number that each address space has for itself and loses whenever
//!   an instruction translation that a link relies on leaves the TLB. If it differs, the target
//!   table serves, and one in [`RELINK_COUNTDOWN`] such detours makes the link anew.
//! - Kernel code lies in all address spaces alike, and its translations hardly ever go: it compares
//!   nothing, and all its links are dropped when one goes.
//! - Either supposes that the code that jumps lies at one linear address. A page that is mapped at
//!   a second one (an *aliased* page) loses its links, and uses the target table.
//!
//! Links change no flags, since it is not known which the code on the other page needs.
//!
//! [`Context::generation`]: super::context::Context::generation

use super::asm::{ADDRESS, NOP, RCX, SECOND};
use super::context::Context;
use super::emit::{Cold, Emitter, JIT, PAGE};
use super::links::CodePage;
use super::links::CrossPageBranch;
use super::links::Detour;
use super::links::GenerationCheck;
use super::links::NEVER;
use super::site::{ExitSite, StubTarget};
use super::translator::{Translator, patch_rel32};
use crate::core::Block;
use crate::cpu::Cpu;
use crate::tlb::PAGE_MASK;
use std::mem::offset_of;

const GENERATION: usize = JIT + offset_of!(Context, generation);
const RELINK_LEFT: usize = JIT + offset_of!(Context, relink_countdown);
/// Detours until a processor's links to other pages are made anew.
const RELINK_COUNTDOWN: i32 = 64;

impl Emitter<'_> {
    /// Leaves the region for page + `to`, which is another page. Flags are where they are; `live`:
    /// they may be needed there.
    pub(super) fn leave_page(&mut self, to: i32, live: bool) {
        let flags_saved = self.saved;
        let (generation, detour) = match self.region.blocks[0].key.is_user() {
            true if live && !flags_saved => self.check_generation_keeping_flags(),
            true => self.check_generation(),
            false => (None, self.asm.jmp()),
        };
        self.asm.load(ADDRESS, PAGE);
        self.asm.lea(ADDRESS, ADDRESS, to & !(PAGE_MASK as i32));
        self.asm.store(PAGE, ADDRESS);
        let jump = self.asm.jmp();
        self.cross_page.push(CrossPageBranch {
            detour: detour as u32,
            exit: 0,
            table: 0,
            jump: jump as u32,
            generation,
            region: 0,
            page: self.region.blocks[0].key.gpa() & !PAGE_MASK,
            vectors: self.region.vectors,
            flags_saved,
            listed: false,
        });
        let branch = self.cross_page.len() - 1;
        self.cold.push(Cold::Detour(Detour { branch, to, live, flags_saved }));
    }

    /// Compares the generation, with none yet: where to put it, and the jump that is taken if it
    /// differs. Changes flags.
    fn check_generation(&mut self) -> (Option<GenerationCheck>, usize) {
        // cmp dword gs:[GENERATION], NEVER
        self.asm.alu_gs_imm(7, GENERATION, NEVER);
        let place = self.asm.here() as u32 - 4;
        (Some(GenerationCheck { place, negative: false }), self.asm.jcc(5))
    }

    /// As [`Emitter::check_generation`]; flags untouched.
    fn check_generation_keeping_flags(&mut self) -> (Option<GenerationCheck>, usize) {
        self.asm.mov(SECOND, RCX);
        self.asm.load32(RCX, GENERATION);
        self.asm.lea32_far(RCX, RCX, NEVER.wrapping_neg() as i32);
        let place = self.asm.here() as u32 - 4;
        let same = self.asm.jrcxz();
        self.asm.mov(RCX, SECOND);
        let detour = self.asm.jmp();
        self.asm.short_here(same);
        self.asm.mov(RCX, SECOND);
        (Some(GenerationCheck { place, negative: true }), detour)
    }

    /// What a cross-page branch does where it is not linked, in the cold part.
    pub(super) fn detour(&mut self, detour: &Detour) {
        let Detour { branch, to, live, flags_saved } = *detour;
        let number = (self.options.first_cross_page + branch) as u32;
        let exit = self.asm.here();
        self.asm.resolve(self.cross_page[branch].detour as usize, exit);
        self.leave_to_page(number, to, flags_saved);
        let table = self.asm.here();
        self.saved = flags_saved;
        self.save_flags_if(live);
        let relink = self.cross_page[branch].generation.is_some().then(|| {
            // sub dword gs:[RELINK_LEFT], 1
            self.asm.alu_gs_imm(5, RELINK_LEFT, 1);
            self.asm.jcc(8)
        });
        let saved = self.saved;
        self.by_table(to);
        match relink {
            Some(place) if saved == flags_saved => self.asm.resolve(place, exit),
            Some(place) => {
                self.asm.resolve_here(place);
                self.leave_to_page(number, to, saved);
            }
            None => {}
        }
        (self.cross_page[branch].exit, self.cross_page[branch].table) = (exit as u32, table as u32);
    }

    fn leave_to_page(&mut self, number: u32, delta: i32, saved: bool) {
        let site = self.site(ExitSite::CrossPage { branch: number, delta, saved });
        self.leave_by(site, StubTarget::Leave);
    }
}

/// Translated code of the guest-physical page at `gpa` is about to be entered at linear address
/// `la`. To be called at every way in from here: others are made where this one led.
#[inline]
pub(super) fn note_mapping(translator: &mut Translator, gpa: u64, la: u64) {
    let (gpa, la) = (gpa & !PAGE_MASK, la & !PAGE_MASK);
    let new = || CodePage { at: Some(la), linked: Vec::new() };
    let page = translator.cross_page.pages.entry(gpa).or_insert_with(new);
    if page.at != Some(la) && page.at.is_some() {
        mark_aliased(translator, gpa);
    }
}

/// The page at `gpa` is mapped at a second linear address: what lies so many bytes off is not known
/// any more.
#[cold]
fn mark_aliased(translator: &mut Translator, gpa: u64) {
    let Some(page) = translator.cross_page.pages.get_mut(&gpa) else { return };
    page.at = None;
    for number in std::mem::take(&mut page.linked) {
        let branch = translator.cross_page.branches[number as usize];
        unlink(translator, &branch, branch.table);
    }
}

/// The branch goes to `detour` from now on.
fn unlink(translator: &mut Translator, branch: &CrossPageBranch, detour: u32) {
    if !translator.alive(branch.region) {
        // Jumps elsewhere may have been put in its place.
        return;
    }
    match branch.generation {
        Some(generation) => put_generation(translator, generation, NEVER),
        None => translator.area.patch(branch.detour as usize - 1, &[0xe9]),
    }
    patch_rel32(translator, branch.detour, detour);
}

fn put_generation(translator: &mut Translator, generation: GenerationCheck, number: u32) {
    translator.area.patch(generation.place as usize, &generation.bytes(number));
}

/// Links cross-page branch `number` to `next`, which was found `delta` bytes from the branch's
/// page, at RIP.
pub(super) fn link(cpu: &mut Cpu, number: u32, delta: i32, next: &Block) {
    cpu.jit.relink_countdown = RELINK_COUNTDOWN;
    let Some(entries) = next.translation.shared.get() else { return };
    let Some(branch) = cpu.translator.cross_page.branches.get(number as usize).copied() else {
        return;
    };
    if !cpu.translator.alive(branch.region) {
        return;
    }
    let la = cpu.core.state.rip;
    note_mapping(&mut cpu.translator, next.key.gpa(), la);
    let from = la.wrapping_sub(i64::from(delta) as u64);
    let Some(page) = cpu.translator.cross_page.pages.get_mut(&branch.page) else { return };
    if page.at != Some(from) {
        unlink(&mut cpu.translator, &branch, branch.table);
        return;
    }
    let entry = cpu.translator.area.address(entries.cross_page as usize);
    let Some(generation) = cpu.core.mmu.tlb.link_target(cpu.core.fetch_view, la, entry) else {
        return;
    };
    if !branch.listed {
        page.linked.push(number);
        cpu.translator.cross_page.branches[number as usize].listed = true;
    }
    let to = match (branch.flags_saved, branch.vectors) {
        (true, _) => entries.flags_saved,
        // Where the vector registers are loaded the entry need not look.
        (false, true) => entries.body,
        (false, false) => entries.near,
    };
    patch_rel32(&mut cpu.translator, branch.jump, to);
    match branch.generation {
        Some(place) => {
            put_generation(&mut cpu.translator, place, generation);
            patch_rel32(&mut cpu.translator, branch.detour, branch.table);
        }
        None => {
            cpu.translator.area.patch(branch.detour as usize - 1, &NOP);
            cpu.translator.cross_page.kernel.push(number);
        }
    }
    cpu.translator.links += 1;
}

/// Drops the links of kernel code if a translation of its pages has gone. To be called before
/// translated code runs.
#[inline(always)]
pub(super) fn drop_stale_links(cpu: &mut Cpu) {
    cpu.jit.generation = cpu.core.mmu.tlb.generation(cpu.core.fetch_view);
    if cpu.core.mmu.tlb.kernel_changed() {
        drop_kernel_links(cpu);
    }
}

#[cold]
fn drop_kernel_links(cpu: &mut Cpu) {
    cpu.core.mmu.tlb.kernel_links_dropped();
    for number in std::mem::take(&mut cpu.translator.cross_page.kernel) {
        let branch = cpu.translator.cross_page.branches[number as usize];
        // A page that is aliased has lost its links already.
        if cpu.translator.cross_page.pages.get(&branch.page).is_some_and(|page| page.at.is_some()) {
            unlink(&mut cpu.translator, &branch, branch.exit);
        }
    }
}
