//! Direct branches to other pages. Their links are a processor's own: each has a slot for every
//! branch in every view of its TLB, so that processors share the code and not the page tables.
//!
//! A link within a page is good for ever: code runs wherever its page is mapped. What lies at a
//! distance on another page depends on the page tables. So a cross-page branch jumps by a slot of
//! the view at hand ([`Context::slots`]), which is empty until the link is made, and again as soon
//! as an instruction translation that some link relies on leaves the view.
//!
//! - User code without a link goes by the target table. One in [`RELINK_COUNTDOWN`] such detours
//!   makes the link: a new process would else exit at each of its branches.
//! - Kernel code lies in all address spaces alike, and its translations hardly ever go: it exits,
//!   and the link is made.
//! - Either supposes that the code that jumps lies at one linear address of the view. A page that
//!   is entered at a second one (an *aliased* page) loses its links there, and uses the target
//!   table. Another address space has another view, or this one without its links: a program may
//!   lie elsewhere in each process.
//!
//! Links change no flags, since it is not known which the code on the other page needs. A branch
//! that has saved them, as calls have, may: it compares its slot, and where that is [`DIRECT`] it
//! goes by a direct jump, which all processors share. One that the host has not met before it
//! predicts by that; a distance it has to wait for.
//!
//! [`Context::slots`]: super::context::Context::slots

use super::asm::{ADDRESS, SECOND, THIRD};
use super::context::Context;
use super::emit::{Cold, Emitter};
use super::links::{CrossPageBranch, DIRECT, Detour, Way};
use super::offsets::{JIT, PAGE, SLOTS};
use super::site::{ExitSite, StubTarget};
use super::translator::Translator;
use crate::block::Entries;
use crate::cpu::Cpu;
use crate::tlb::PAGE_MASK;
use std::mem::offset_of;
use std::sync::atomic::AtomicU32;

const RELINK_LEFT: usize = JIT + offset_of!(Context, relink_countdown);
/// Detours until a processor's links to other pages are made anew.
pub(super) const RELINK_COUNTDOWN: i32 = 64;

impl Emitter<'_> {
    /// Leaves the region for page + `to`, which is another page. Flags are where they are; `live`:
    /// they may be needed there.
    pub(super) fn leave_page(&mut self, to: i32, live: bool) {
        let flags_saved = self.saved;
        self.asm.load(ADDRESS, PAGE);
        self.asm.lea(ADDRESS, ADDRESS, to & !(PAGE_MASK as i32));
        self.asm.store(PAGE, ADDRESS);
        self.asm.load(SECOND, SLOTS);
        let branch = self.cross_page.len();
        let way = if flags_saved {
            let slot = self.asm.compare_slot(SECOND, DIRECT as u8);
            self.slots.push((slot, branch as u32));
            let other = self.asm.jcc(5);
            Way::Jump { jump: self.asm.jmp_patchable(), other }
        } else {
            Way::Distance { place: self.by_distance(branch) }
        };
        self.cross_page.push(CrossPageBranch {
            detour: 0,
            table: 0,
            jump: match way {
                Way::Jump { jump, .. } => Some(jump as u32),
                Way::Distance { .. } => None,
            },
            target: AtomicU32::new(0),
            to,
            page: self.region.blocks[0].key.gpa() & !PAGE_MASK,
            vectors: self.region.vectors,
            flags_saved,
        });
        self.cold.push(Cold::Detour(Detour { branch, way, to, live, flags_saved }));
    }

    /// Jumps by the distance in the slot of `branch`. The view's slots are at SECOND. What is
    /// returned is to be resolved to where the distance is counted from.
    fn by_distance(&mut self, branch: usize) -> usize {
        let slot = self.asm.load_slot(SECOND, SECOND);
        self.slots.push((slot, branch as u32));
        let place = self.asm.lea_code(THIRD);
        self.asm.lea_scaled(SECOND, Some(SECOND), THIRD, 0, 0);
        self.asm.jmp_register(SECOND);
        place
    }

    /// What a cross-page branch does where it is not linked, in the cold part.
    pub(super) fn detour(&mut self, detour: &Detour) {
        let Detour { branch, way, to, live, flags_saved } = *detour;
        let delta = to & PAGE_MASK as i32;
        let user = self.region.blocks[0].key.is_user();
        let place = match way {
            Way::Distance { place } => place,
            Way::Jump { other, .. } => {
                self.asm.resolve_here(other);
                self.by_distance(branch)
            }
        };
        let detour = self.asm.here();
        self.asm.resolve(place, detour);
        if let Way::Jump { jump, .. } = way {
            self.asm.resolve(jump, detour);
        }
        self.saved = flags_saved;
        if !user {
            self.leave_to_page(branch, delta, flags_saved);
        }
        let table = self.asm.here();
        self.save_flags_if(live);
        let relink = user.then(|| {
            // sub dword gs:[RELINK_LEFT], 1
            self.asm.alu_gs_imm(5, RELINK_LEFT, 1);
            self.asm.jcc(8)
        });
        let saved = self.saved;
        self.by_table(delta);
        if let Some(place) = relink {
            self.asm.resolve_here(place);
            self.leave_to_page(branch, delta, saved);
        }
        let branch = &mut self.cross_page[branch];
        (branch.detour, branch.table) = (detour as u32, table as u32);
    }

    fn leave_to_page(&mut self, branch: usize, delta: i32, saved: bool) {
        let site = self.site(ExitSite::CrossPage { branch: branch as u32, delta, saved });
        self.leave_by(site, StubTarget::Leave);
    }
}

/// Translated code of the guest-physical page at `gpa` is about to be entered at linear address
/// `la`, in the view at hand. To be called at every way in from here: others are made where this
/// one led.
#[inline]
pub(super) fn note_mapping(cpu: &mut Cpu, gpa: u64, la: u64) {
    let (gpa, la) = (gpa & !PAGE_MASK, la & !PAGE_MASK);
    if cpu.core.mmu.tlb.targets(cpu.core.fetch_view).enter_page(gpa, la) {
        mark_aliased(cpu, gpa);
    }
}

/// The page at `gpa` is mapped at a second linear address in this view: what lies so many bytes off
/// is not known any more.
#[cold]
fn mark_aliased(cpu: &mut Cpu, gpa: u64) {
    let Some(generation) = cpu.translator.generation() else { return };
    let by_table = |number| {
        let branch = generation.branches.get(number)?;
        (branch.page == gpa).then(|| branch.distance(branch.table))
    };
    cpu.core.mmu.tlb.targets(cpu.core.fetch_view).replace_slots(by_table);
}

/// Links cross-page branch `number` to `entries`, of the block at RIP, which lies at
/// guest-physical address `gpa`.
pub(super) fn link(cpu: &mut Cpu, number: u32, gpa: u64, entries: Entries) {
    let la = cpu.core.state.rip;
    note_mapping(cpu, gpa, la);
    let Translator { member, links, .. } = &mut cpu.translator;
    let Some(generation) = member.held() else { return };
    let Some(branch) = generation.branches.get(number) else { return };
    let entry = generation.area.address(entries.cross_page as usize);
    let from = la.wrapping_sub(i64::from(branch.to) as u64);
    let view = cpu.core.fetch_view;
    let tlb = &mut cpu.core.mmu.tlb;
    let Some(at) = tlb.targets(view).entered_at(branch.page) else { return };
    if at != Some(from) {
        // By the table, which one that goes there without a link does by itself.
        tlb.targets(view).set_slot(number, branch.distance(branch.table));
        return;
    }
    if !tlb.link_target(view, la, entry) {
        return;
    }
    let to = match (branch.flags_saved, branch.vectors) {
        (true, _) => entries.flags_saved,
        // Where the vector registers are loaded the entry need not look.
        (false, true) => entries.body,
        (false, false) => entries.near,
    };
    tlb.targets(view).set_slot(number, branch.link(to, &generation.area));
    *links += 1;
}
