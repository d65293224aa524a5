//! Direct branches to other pages. Their links are a processor's own: each has a slot for every
//! branch in every view of its TLB, so that processors share the code and not the page tables.
//!
//! A link within a page is good for ever: code runs wherever its page is mapped. What lies at a
//! distance on another page depends on the page tables. So a cross-page branch looks into its slot
//! of the view at hand ([`Context::slots`]), which says whether the link holds there: from when it
//! is made until an instruction translation that some link relies on leaves the view.
//!
//! - A link leads to one block for all processors: one whose page tables have another there does
//!   not use it.
//! - A branch whose link does not hold goes by the target table. One in [`RELINK_COUNTDOWN`] such
//!   detours makes the link: a new process would else exit at each of its branches.
//! - A link supposes that the code that jumps lies at one linear address. A page that is mapped at
//!   a second one (an *aliased* page) loses its links, and uses the target table.
//!
//! Links change no flags, since it is not known which the code on the other page needs.
//!
//! [`Context::slots`]: super::context::Context::slots

use super::asm::{ADDRESS, RCX, SECOND};
use super::context::Context;
use super::emit::{Cold, Emitter, JIT, PAGE, SLOTS};
use super::links::{CodePage, CrossPageBranch, Detour};
use super::site::{ExitSite, StubTarget};
use super::translator::Translator;
use crate::block::{Entries, Key};
use crate::cpu::Cpu;
use crate::tlb::PAGE_MASK;
use std::collections::HashSet;
use std::mem::offset_of;
use std::sync::OnceLock;

const RELINK_LEFT: usize = JIT + offset_of!(Context, relink_countdown);
/// Detours until one of a processor's links to other pages is made.
pub(super) const RELINK_COUNTDOWN: i32 = 32;

impl Emitter<'_> {
    /// Leaves the region for page + `to`, which is another page. Flags are where they are; `live`:
    /// they may be needed there.
    pub(super) fn leave_page(&mut self, to: i32, live: bool) {
        let flags_saved = self.saved;
        let keep = live && !flags_saved;
        self.asm.load(SECOND, SLOTS);
        let unlinked;
        if keep {
            self.asm.mov(ADDRESS, RCX);
            let slot = self.asm.load_slot(RCX, SECOND);
            self.slots.push(slot);
            unlinked = self.asm.jrcxz();
            self.asm.mov(RCX, ADDRESS);
        } else {
            let slot = self.asm.test_slot(SECOND);
            self.slots.push(slot);
            unlinked = self.asm.jcc(4);
        }
        self.asm.load(ADDRESS, PAGE);
        self.asm.lea(ADDRESS, ADDRESS, to & !(PAGE_MASK as i32));
        self.asm.store(PAGE, ADDRESS);
        let jump = self.asm.jmp_patchable();
        let from = if keep {
            self.asm.short_here(unlinked);
            self.asm.mov(RCX, ADDRESS);
            self.asm.jmp()
        } else {
            unlinked
        };
        self.cross_page.push(CrossPageBranch {
            jump: jump as u32,
            target: OnceLock::new(),
            to,
            page: self.region.blocks[0].key.gpa() & !PAGE_MASK,
            vectors: self.region.vectors,
            flags_saved,
        });
        let branch = self.cross_page.len() - 1;
        self.cold.push(Cold::Detour(Detour { branch, from, to, live, flags_saved }));
    }

    /// What a cross-page branch does where it is not linked, in the cold part.
    pub(super) fn detour(&mut self, detour: &Detour) {
        let Detour { branch, from, to, live, flags_saved } = *detour;
        self.asm.resolve_here(from);
        self.saved = flags_saved;
        self.save_flags_if(live);
        // sub dword gs:[RELINK_LEFT], 1
        self.asm.alu_gs_imm(5, RELINK_LEFT, 1);
        let relink = self.asm.jcc(8);
        let saved = self.saved;
        self.by_table(to);
        self.asm.resolve_here(relink);
        let site = self.site(ExitSite::CrossPage { branch: branch as u32, delta: to, saved });
        self.leave_by(site, StubTarget::Leave);
    }
}

/// Translated code of the guest-physical page at `gpa` is about to be entered at linear address
/// `la`. To be called at every way in from here: others are made where this one led.
#[inline]
pub(super) fn note_mapping(cpu: &mut Cpu, gpa: u64, la: u64) {
    let (gpa, la) = (gpa & !PAGE_MASK, la & !PAGE_MASK);
    let new = || CodePage { at: Some(la), linked: HashSet::new() };
    let page = cpu.translator.code_pages.entry(gpa).or_insert_with(new);
    if page.at != Some(la) && page.at.is_some() {
        mark_aliased(cpu, gpa);
    }
}

/// The page at `gpa` is mapped at a second linear address: what lies so many bytes off is not known
/// any more.
#[cold]
fn mark_aliased(cpu: &mut Cpu, gpa: u64) {
    let Some(page) = cpu.translator.code_pages.get_mut(&gpa) else { return };
    page.at = None;
    for number in std::mem::take(&mut page.linked) {
        cpu.core.mmu.tlb.clear_slot(number);
    }
}

/// Links cross-page branch `number` to `entries`, of the block for `key` at RIP.
pub(super) fn link(cpu: &mut Cpu, number: u32, key: Key, entries: Entries) {
    let la = cpu.core.state.rip;
    note_mapping(cpu, key.gpa(), la);
    let view = cpu.core.fetch_view;
    let Translator { member, code_pages, links, .. } = &mut cpu.translator;
    let Some(generation) = member.held() else { return };
    let Some(branch) = generation.branches.get(number) else { return };
    let from = la.wrapping_sub(i64::from(branch.to) as u64);
    let Some(page) = code_pages.get_mut(&branch.page) else { return };
    if page.at != Some(from) || *branch.target.get_or_init(|| key) != key {
        return;
    }
    let entry = generation.area.address(entries.cross_page as usize);
    let tlb = &mut cpu.core.mmu.tlb;
    if !tlb.link_target(view, la, entry) {
        return;
    }
    let to = match (branch.flags_saved, branch.vectors) {
        (true, _) => entries.flags_saved,
        // Where the vector registers are loaded the entry need not look.
        (false, true) => entries.body,
        (false, false) => entries.near,
    };
    // Whoever uses the link may: it leads to the same block as before.
    generation.area.patch_rel32(branch.jump, to);
    tlb.set_slot(view, number);
    page.linked.insert(number);
    *links += 1;
}
