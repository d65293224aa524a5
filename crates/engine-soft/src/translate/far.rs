//! Direct branches to another page, linked while it is known what that page is.
//!
//! On one page code can be linked for good: it runs wherever its page is mapped. What lies so many
//! bytes off on another page is a matter of the page tables. Such a link holds for one address
//! space, as long as it keeps the translations that were in use when it was made:
//!
//! - User code asks before each jump whether that is the address space at hand, by a number
//!   ([`Context::ticket`]) that each has for itself and changes whenever an instruction translation
//!   leaves it. If it is not, the table of targets serves, and one in [`PATIENCE`] such detours has
//!   the link made anew.
//! - Kernel code lies in all address spaces alike, and its translations hardly ever go: it does not
//!   ask, and all its links are severed when one goes.
//! - Either supposes that the code that jumps lies at one linear address. A page that is met at a
//!   second one loses its links, and makes do with the table of targets.
//!
//! Flags pass unharmed, since what the code on the other page needs of them is not known.
//!
//! [`Context::ticket`]: super::context::Context::ticket

use super::asm::{ADDRESS, NOP, RCX, SECOND};
use super::context::Context;
use super::emit::{Cold, Emitter, JIT, Out, PAGE, Site};
use super::{Translator, patch_rel32};
use crate::block::{Block, Table};
use crate::cpu::Cpu;
use crate::tlb::PAGE_MASK;
use std::mem::offset_of;

const TICKET: usize = JIT + offset_of!(Context, ticket);
const PATIENCE_LEFT: usize = JIT + offset_of!(Context, patience);
/// Detours by which a processor's links to elsewhere are followed up.
const PATIENCE: i32 = 64;
/// No address space's ticket.
const NEVER: u32 = u32::MAX;

/// A branch to another page: offsets in the code area.
#[derive(Clone, Copy)]
pub(super) struct Far {
    /// The rel32 of the jump that is taken where the link does not hold. Code that does not ask has
    /// it in the way, and a NOP instead while there is a link.
    detour: u32,
    /// Where the detour leaves, to be linked.
    exit: u32,
    /// Where the detour goes by the table of targets.
    table: u32,
    /// The rel32 of the jump to the linked code.
    jump: u32,
    /// The number that is asked for; code that asks has it.
    ticket: Option<Ticket>,
    /// The translation it is in.
    region: u32,
    /// Guest-physical page of the branch.
    page: u64,
    /// The vector registers are in the host's.
    vectors: bool,
    /// Status flags were put by.
    aside: bool,
    /// Its page has it among those that were linked.
    listed: bool,
}

impl Far {
    /// Its translation has number `region` and begins at `base`.
    pub(super) fn place(&mut self, region: u32, base: u32) {
        self.region = region;
        for place in [&mut self.detour, &mut self.exit, &mut self.table, &mut self.jump] {
            *place += base;
        }
        if let Some(ticket) = &mut self.ticket {
            ticket.place += base;
        }
    }
}

/// A number of 32 bits in the code.
#[derive(Clone, Copy)]
struct Ticket {
    place: u32,
    /// It is what is added.
    negative: bool,
}

impl Ticket {
    fn bytes(self, number: u32) -> [u8; 4] {
        if self.negative { number.wrapping_neg() } else { number }.to_le_bytes()
    }
}

/// Where the code pages are that were entered, and the links between them.
#[derive(Default)]
pub(super) struct FarLinks {
    pub(super) branches: Vec<Far>,
    pages: Table<u64, CodePage>,
    /// Branches of kernel code that are linked.
    kernel: Vec<u32>,
}

/// A guest-physical page with translated code.
struct CodePage {
    /// Where it was entered; `None`: at several linear addresses.
    at: Option<u64>,
    /// Branches on it that were linked.
    linked: Vec<u32>,
}

impl FarLinks {
    pub(super) fn clear(&mut self) {
        self.branches.clear();
        self.pages.clear();
        self.kernel.clear();
    }
}

impl Emitter<'_> {
    /// Leaves the region for page + `to`, which is another page. Flags are where they are; `live`:
    /// they may be needed there.
    pub(super) fn far(&mut self, to: i32, live: bool) {
        let aside = self.saved;
        let (ticket, detour) = match self.region.blocks[0].key.is_user() {
            true if live && !aside => self.ask_beside_flags(),
            true => self.ask(),
            false => (None, self.asm.jmp()),
        };
        self.asm.load(ADDRESS, PAGE);
        self.asm.lea(ADDRESS, ADDRESS, to & !(PAGE_MASK as i32));
        self.asm.store(PAGE, ADDRESS);
        let jump = self.asm.jmp();
        self.fars.push(Far {
            detour: detour as u32,
            exit: 0,
            table: 0,
            jump: jump as u32,
            ticket,
            region: 0,
            page: self.region.blocks[0].key.gpa() & !PAGE_MASK,
            vectors: self.region.vectors,
            aside,
            listed: false,
        });
        self.cold.push(Cold::Detour { far: self.fars.len() - 1, to, live, aside });
    }

    /// Asks for a ticket, none yet: where to put it, and the jump that is taken if it is another.
    /// Changes flags.
    fn ask(&mut self) -> (Option<Ticket>, usize) {
        // cmp dword gs:[TICKET], NEVER
        self.asm.alu_gs_imm(7, TICKET, NEVER);
        let place = self.asm.here() as u32 - 4;
        (Some(Ticket { place, negative: false }), self.asm.jcc(5))
    }

    /// As [`Emitter::ask`]; flags untouched.
    fn ask_beside_flags(&mut self) -> (Option<Ticket>, usize) {
        self.asm.mov(SECOND, RCX);
        self.asm.load32(RCX, TICKET);
        self.asm.lea32_far(RCX, RCX, NEVER.wrapping_neg() as i32);
        let place = self.asm.here() as u32 - 4;
        let same = self.asm.jrcxz();
        self.asm.mov(RCX, SECOND);
        let detour = self.asm.jmp();
        self.asm.short_here(same);
        self.asm.mov(RCX, SECOND);
        (Some(Ticket { place, negative: true }), detour)
    }

    /// What becomes of far branch number `far` where it is not linked, in the cold part.
    pub(super) fn detour(&mut self, far: usize, to: i32, live: bool, aside: bool) {
        let number = (self.options.first_far + far) as u32;
        let exit = self.asm.here();
        self.asm.resolve(self.fars[far].detour as usize, exit);
        self.leave_far(number, to, aside);
        let table = self.asm.here();
        self.saved = aside;
        self.flags_for_far(live);
        let impatient = self.fars[far].ticket.is_some().then(|| {
            // sub dword gs:[PATIENCE_LEFT], 1
            self.asm.alu_gs_imm(5, PATIENCE_LEFT, 1);
            self.asm.jcc(8)
        });
        let saved = self.saved;
        self.by_table(to);
        match impatient {
            Some(place) if saved == aside => self.asm.resolve(place, exit),
            Some(place) => {
                self.asm.resolve_here(place);
                self.leave_far(number, to, saved);
            }
            None => {}
        }
        (self.fars[far].exit, self.fars[far].table) = (exit as u32, table as u32);
    }

    fn leave_far(&mut self, far: u32, delta: i32, saved: bool) {
        let site = self.site(Site::Far { far, delta, saved });
        self.leave_by(site, Out::Leave);
    }
}

/// Translated code of the guest-physical page at `gpa` is about to be entered at linear address
/// `la`. To be called at every way in from here: others are made where this one led.
#[inline]
pub(super) fn arrive(translator: &mut Translator, gpa: u64, la: u64) {
    let (gpa, la) = (gpa & !PAGE_MASK, la & !PAGE_MASK);
    let new = || CodePage { at: Some(la), linked: Vec::new() };
    let page = translator.far.pages.entry(gpa).or_insert_with(new);
    if page.at != Some(la) && page.at.is_some() {
        roam(translator, gpa);
    }
}

/// The page at `gpa` has turned up at a second linear address: what lies so many bytes off is not
/// known any more.
#[cold]
fn roam(translator: &mut Translator, gpa: u64) {
    let Some(page) = translator.far.pages.get_mut(&gpa) else { return };
    page.at = None;
    for number in std::mem::take(&mut page.linked) {
        let far = translator.far.branches[number as usize];
        unlink(translator, &far, far.table);
    }
}

/// The branch goes to `detour` from now on.
fn unlink(translator: &mut Translator, far: &Far, detour: u32) {
    if !translator.alive(far.region) {
        // Jumps elsewhere may have been put in its place.
        return;
    }
    match far.ticket {
        Some(ticket) => put_ticket(translator, ticket, NEVER),
        None => translator.area.patch(far.detour as usize - 1, &[0xe9]),
    }
    patch_rel32(translator, far.detour, detour);
}

fn put_ticket(translator: &mut Translator, ticket: Ticket, number: u32) {
    translator.area.patch(ticket.place as usize, &ticket.bytes(number));
}

/// Links far branch `number` to `next`, which was found `delta` bytes from the branch's page, at
/// RIP.
pub(super) fn link(cpu: &mut Cpu, number: u32, delta: i32, next: &Block) {
    cpu.jit.patience = PATIENCE;
    let Some(host) = next.host.code.get() else { return };
    let Some(far) = cpu.translator.far.branches.get(number as usize).copied() else { return };
    if !cpu.translator.alive(far.region) {
        return;
    }
    let la = cpu.state.rip;
    arrive(&mut cpu.translator, next.key.gpa(), la);
    let from = la.wrapping_sub(i64::from(delta) as u64);
    let Some(page) = cpu.translator.far.pages.get_mut(&far.page) else { return };
    if page.at != Some(from) {
        unlink(&mut cpu.translator, &far, far.table);
        return;
    }
    let entry = cpu.translator.area.address(host.far as usize);
    let Some(ticket) = cpu.mmu.tlb.link_target(cpu.fetch_view, la, entry) else { return };
    if !far.listed {
        page.linked.push(number);
        cpu.translator.far.branches[number as usize].listed = true;
    }
    let to = match (far.aside, far.vectors) {
        (true, _) => host.aside,
        // Whoever has the vector registers loaded need not ask again.
        (false, true) => host.body,
        (false, false) => host.near,
    };
    patch_rel32(&mut cpu.translator, far.jump, to);
    match far.ticket {
        Some(place) => {
            put_ticket(&mut cpu.translator, place, ticket);
            patch_rel32(&mut cpu.translator, far.detour, far.table);
        }
        None => {
            cpu.translator.area.patch(far.detour as usize - 1, &NOP);
            cpu.translator.far.kernel.push(number);
        }
    }
    cpu.translator.links += 1;
}

/// Takes the links of kernel code away, if a translation of its pages has gone. To be called before
/// translated code runs.
#[inline(always)]
pub(super) fn settle(cpu: &mut Cpu) {
    cpu.jit.ticket = cpu.mmu.tlb.ticket(cpu.fetch_view);
    if cpu.mmu.tlb.kernel_changed() {
        sever(cpu);
    }
}

#[cold]
fn sever(cpu: &mut Cpu) {
    cpu.mmu.tlb.kernel_settled();
    for number in std::mem::take(&mut cpu.translator.far.kernel) {
        let far = cpu.translator.far.branches[number as usize];
        // A page that roams has lost its links already.
        if cpu.translator.far.pages.get(&far.page).is_some_and(|page| page.at.is_some()) {
            unlink(&mut cpu.translator, &far, far.exit);
        }
    }
}
