//! Running translations: entry, what each exit means, and links.
#![allow(unsafe_code)] // enters translated code; see docs/UNSAFE.md

use super::context::{FAULTED, NOT_ENTERED, PASSED};
use super::generation::Options;
use super::recipe::Recipe;
use super::scratch::bits;
use super::site::ExitSite;
use super::site::FaultMapEntry;
use super::thread;
use super::translator::{CachedExit, Translator};
use super::{context, cross_page, gate, stack_page};
use crate::block::Entries;
use crate::core::Block;
use crate::cpu::Cpu;
use crate::tlb::PAGE_MASK;
use iced_x86::{Decoder, Mnemonic};
use std::cell::Cell;
use x86::addr::Gpa;
use x86::state::{Mode, gpr};

/// What the run loop does next after translated code exited. RIP is set.
pub(crate) enum ExitReason {
    /// Look for the next block; it may be linked from this site.
    Next(Option<u32>),
    /// The next instruction is the interpreter's; the block there is known from the site's last
    /// exit, or should be noted for the next.
    Interpret(Result<*const Block, Option<u32>>),
    /// The check at this site needs the next block's per-access translation.
    PerAccess(u32),
}

/// Exits that are remembered, each at a place of its own as far as there are so many.
const CACHED_EXITS: usize = 1 << 12;

/// Notes that the exit at `site` leads to `block`, the one at RIP.
pub(crate) fn cache_exit(cpu: &mut Cpu, site: u32, block: *const Block) {
    let Some(generation) = cpu.translator.generation() else { return };
    let (delta, undone, recipe) = match generation.sites.get(site).map(|site| site.exit) {
        Some(ExitSite::Interpret { delta, undone, saved: false, shadow: false, recipe }) => {
            (delta, undone, recipe)
        }
        Some(ExitSite::Link { delta, .. }) => (delta, 0, None),
        _ => return,
    };
    if cpu.cached_exits.is_empty() {
        cpu.cached_exits = (0..CACHED_EXITS).map(|_| CachedExit::NONE).collect();
    }
    let epoch = cpu.core.mmu.blocks.epoch;
    cpu.cached_exits[site as usize % CACHED_EXITS] =
        CachedExit { site, block, epoch, delta, undone, recipe };
}

/// Where translated code is entered, with RIP as the state has it.
#[derive(Clone, Copy)]
pub(crate) struct Entry(u64);

/// Makes ready to run translated code on this thread. To be called when [`crate::interp::run`]
/// begins.
pub(crate) fn attach(cpu: &mut Cpu) {
    if cpu.hot == u32::MAX {
        return;
    }
    if let Err(error) = thread::prepare() {
        tracing::warn!(%error, "no signal stack for translated code: interpreting");
        cpu.hot = u32::MAX;
        cpu.core.above.alone = |_, _| false;
        return;
    }
    let this = std::ptr::from_mut(cpu);
    cpu.jit.cpu = this as u64;
    thread::set_gs(this.cast::<u8>());
    if !cpu.translator.member.resume() {
        renew(cpu);
    }
}

/// The processor runs no translated code until [`attach`]: others need not wait for it.
pub(crate) fn detach(cpu: &mut Cpu) {
    cpu.translator.member.park();
}

/// Moves to the current generation of translations, if this processor has another. True if it had.
#[inline]
pub(super) fn renew(cpu: &mut Cpu) -> bool {
    let old = !cpu.translator.member.is_current();
    if old {
        move_on(cpu);
    }
    old
}

/// Drops whatever this processor has of its generation, and takes the current one.
#[cold]
fn move_on(cpu: &mut Cpu) {
    cpu.core.mmu.blocks.forget_translations();
    cpu.cached_exits = Box::default();
    cpu.core.mmu.tlb.forget_targets();
    if cpu.translator.member.number() != 0 {
        cpu.translator.figures.dropped();
    }
    cpu.jit.set_code(0, 0);
    cpu.translator.member.renew();
    let Some(generation) = cpu.translator.generation() else { return };
    cpu.jit.enter = generation.area.address(generation.stubs.enter);
    cpu.jit.leave = generation.area.address(generation.stubs.fault);
    let (start, end) = generation.area.range();
    cpu.jit.set_code(start as u64, end as u64);
}

/// The translation in `cell`, if it is still good.
#[inline]
pub(super) fn alive(cpu: &Cpu, cell: &Cell<Option<Entries>>) -> Option<Entries> {
    let entries = cell.get()?;
    if cpu.translator.alive(entries.region) {
        return Some(entries);
    }
    cell.set(None);
    None
}

/// The translation of `block`, if it is known and still good.
#[inline(always)]
pub(crate) fn translation_of(cpu: &Cpu, block: &Block) -> Option<Entries> {
    block.translation.shared.get()?;
    let entries = alive(cpu, &block.translation.shared);
    if entries.is_none() {
        block.translation.heat.set(cpu.hot);
    }
    entries
}

/// The translation at RIP, if the table of targets knows it.
#[inline(always)]
pub(crate) fn entry_at_rip(cpu: &Cpu) -> Option<Entry> {
    if cpu.core.mode != Mode::Long64 {
        return None;
    }
    cpu.core.mmu.tlb.target(cpu.core.fetch_view, cpu.core.state.rip).map(Entry)
}

/// The host address of `offset` in the code of this processor's generation.
fn address(cpu: &Cpu, offset: u32) -> u64 {
    cpu.jit.code_start() + u64::from(offset)
}

/// The translation `entries` of `block`, at RIP, which the table of targets will know from now on.
pub(crate) fn entry_of(cpu: &mut Cpu, block: &Block, entries: Entries) -> Entry {
    cross_page::note_mapping(cpu, block.key.gpa(), cpu.core.state.rip);
    let address = address(cpu, entries.cross_page);
    if cpu.core.mmu.tlb.fill_target(cpu.core.fetch_view, cpu.core.state.rip, address) {
        prefill_targets(cpu, block);
    }
    Entry(address)
}

/// Enters all translations of `block`'s page, at RIP, into the target table, which has just met
/// that page: a new process fills the table page by page rather than branch by branch.
fn prefill_targets(cpu: &mut Cpu, block: &Block) {
    let page = cpu.core.state.rip & !PAGE_MASK;
    let number = cpu.translator.member.number();
    for (offset, entries) in cpu.translator.cache.beside(block.key, number) {
        let address = address(cpu, entries.cross_page);
        cpu.core.mmu.tlb.fill_target(cpu.core.fetch_view, page | offset, address);
    }
}

/// The translation `entries` of `block`, at RIP, which is not to be found by others.
pub(crate) fn entry_beside(cpu: &mut Cpu, block: &Block, entries: Entries) -> Entry {
    cross_page::note_mapping(cpu, block.key.gpa(), cpu.core.state.rip);
    cpu.core.state.gpr[gpr::BLOCK_IP] = cpu.core.state.rip & !PAGE_MASK;
    Entry(address(cpu, entries.near))
}

/// Runs translated code until it leaves.
#[inline(always)]
pub(crate) fn enter(cpu: &mut Cpu, entry: Entry) -> ExitReason {
    let translator = &cpu.translator;
    if (translator.version != translator.cache.version()
        || translator.cache.is_behind(cpu.core.mmu.seen()))
        && renewed_or_caught_up(cpu)
    {
        return ExitReason::Interpret(Err(None));
    }
    let options = cpu.translator.options();
    if cpu.limited && !options.bounded
        || cpu.stopping && !options.polls
        || cpu.core.time.is_some() && !options.exact_flags
    {
        // It would not stop in time, or show other flags.
        return ExitReason::Interpret(Err(None));
    }
    cpu.jit.open(cpu.stopping);
    if cpu.core.signals.bits() != 0 {
        // The signal may have been raised before the byte was cleared.
        return ExitReason::Interpret(Err(None));
    }
    if cpu.core.refreshed {
        gate::prepare(cpu);
    }
    (cpu.jit.targets, cpu.jit.slots) = cpu.core.mmu.tlb.branch_tables(cpu.core.fetch_view);
    stack_page::revalidate(cpu);
    go(cpu, entry);
    left(cpu)
}

/// Takes note of translations that have come and gone. True if this processor has moved to another
/// generation: entries from before are none.
#[cold]
fn renewed_or_caught_up(cpu: &mut Cpu) -> bool {
    if cpu.translator.cache.is_behind(cpu.core.mmu.seen()) {
        cpu.translator.cache.catch_up();
    }
    let version = cpu.translator.cache.version();
    if version == cpu.translator.version {
        return false; // nothing came of what was written
    }
    cpu.translator.version = version;
    // Code that was written before that is what this processor of the host's runs now.
    thread::serialize();
    renew(cpu)
}

/// From the entry stub's entry to its exit.
#[inline(always)]
fn go(cpu: &mut Cpu, entry: Entry) {
    let left = cpu.last_start.saturating_sub(cpu.core.instructions);
    cpu.granted = left.min(context::MOST_LEFT) as i64;
    cpu.jit.left = cpu.granted;
    cpu.jit.exit = NOT_ENTERED;
    // SAFETY: `enter` is the entry stub; the translation it runs touches only the processor that GS
    // points to (see `attach`), and guest RAM through TLB entries. The stub returns with the
    // stack as it was and changes any register.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "push rbp",
            "call {enter}",
            "pop rbp",
            "pop rbx",
            enter = in(reg) cpu.jit.enter,
            in("rdi") entry.0,
            // Not used there: tells the compiler that this processor is what the code changes.
            in("rsi") std::ptr::from_mut(cpu),
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
            clobber_abi("sysv64"),
        );
    }
}

fn left(cpu: &mut Cpu) -> ExitReason {
    let page = cpu.core.state.gpr[gpr::BLOCK_IP];
    cpu.translator.exits += 1;
    cpu.translator.recovered = false;
    let exit = cpu.jit.exit;
    if let Some(known) = cpu.cached_exits.get(exit as usize % CACHED_EXITS)
        && known.site == exit
        && known.epoch == cpu.core.mmu.blocks.epoch
    {
        // No block has died: the one on this page is still there.
        let &CachedExit { block, delta, undone, recipe, .. } = known;
        cpu.core.state.rip = page.wrapping_add(i64::from(delta) as u64);
        flags_at(cpu, false, recipe);
        account_exit(cpu, undone);
        count_exit(cpu, exit);
        return ExitReason::Interpret(Ok(block));
    }
    left_anew(cpu, page, exit)
}

/// Counts the exit for `--stats`.
#[inline]
fn count_exit(cpu: &mut Cpu, exit: u32) {
    let Translator { member, figures, .. } = &mut cpu.translator;
    if let Some(generation) = member.held() {
        figures.exit(exit, &generation.sites);
    }
}

/// What exit number `exit` means.
fn site(cpu: &Cpu, exit: u32) -> Option<ExitSite> {
    cpu.translator.generation()?.sites.get(exit).map(|site| site.exit)
}

fn left_anew(cpu: &mut Cpu, page: u64, exit: u32) -> ExitReason {
    if exit == FAULTED {
        return faulted(cpu, page);
    }
    if exit == PASSED {
        cpu.core.state.flags.arith = cpu.jit.flags;
        account_exit(cpu, 0);
        return ExitReason::Next(None);
    }
    count_exit(cpu, exit);
    match site(cpu, exit) {
        Some(ExitSite::Link { delta, .. }) => {
            cpu.core.state.rip = page.wrapping_add(i64::from(delta) as u64);
            account_exit(cpu, 0);
            ExitReason::Next(Some(exit))
        }
        Some(ExitSite::Dead { delta }) => {
            cpu.core.state.rip = page.wrapping_add(i64::from(delta) as u64);
            cpu.core.state.flags.arith = cpu.jit.flags;
            account_exit(cpu, 0);
            ExitReason::Next(None)
        }
        Some(
            site @ (ExitSite::Target { delta, saved } | ExitSite::CrossPage { delta, saved, .. }),
        ) => {
            cpu.core.state.rip = page.wrapping_add(i64::from(delta) as u64);
            if saved {
                cpu.core.state.flags.arith = cpu.jit.flags;
            }
            account_exit(cpu, 0);
            ExitReason::Next(matches!(site, ExitSite::CrossPage { .. }).then_some(exit))
        }
        Some(ExitSite::Interpret { delta, undone, saved, shadow, recipe }) => {
            before_instruction(cpu, page, &Boundary { delta, undone, saved, shadow, recipe });
            let stays = (0..=PAGE_MASK as i32).contains(&delta);
            ExitReason::Interpret(Err(stays.then_some(exit)))
        }
        Some(ExitSite::Check { delta, undone, saved, shadow, recipe, .. }) => {
            before_instruction(cpu, page, &Boundary { delta, undone, saved, shadow, recipe });
            if std::mem::take(&mut cpu.jit.per_access) {
                let exact = saved || cpu.translator.recovered;
                cpu.translator.noted = exact.then_some(cpu.core.state.flags.arith);
                ExitReason::PerAccess(exit)
            } else {
                ExitReason::Interpret(Err(None))
            }
        }
        None => ExitReason::Interpret(Err(None)),
    }
}

/// A host fault in translated code: the state before the instruction that faulted, by the fault
/// map.
fn faulted(cpu: &mut Cpu, page: u64) -> ExitReason {
    cpu.translator.faults += 1;
    let told = cpu.stopping || cpu.jit.left < 0 || cpu.core.signals.bits() != 0;
    cpu.translator.figures.fault(told);
    let offset = cpu.jit.fault_pc.wrapping_sub(cpu.jit.code_start()) as u32;
    let generation = cpu.translator.generation();
    let region = generation.and_then(|generation| generation.region_at(offset));
    let Some(start) = region.and_then(|region| region.fault(offset)) else {
        return ExitReason::Interpret(Err(None));
    };
    for r in bits(!start.spilled) {
        cpu.core.state.gpr[usize::from(r)] = cpu.jit.raw[usize::from(r)];
    }
    let FaultMapEntry { delta, rest, saved, shadow, recipe, .. } = start;
    before_instruction(cpu, page, &Boundary { delta, undone: rest, saved, shadow, recipe });
    ExitReason::Interpret(Err(None))
}

/// Where translated code was left, before an instruction that is `delta` bytes from its page.
struct Boundary {
    delta: i32,
    /// Instructions counted that have not run.
    undone: u16,
    /// Status flags are in `Context::flags`.
    saved: bool,
    /// The instruction before was STI.
    shadow: bool,
    recipe: Option<Recipe>,
}

/// Completes the state at `at`: RIP, status flags, the shadow of STI, the counters.
#[inline(always)]
fn before_instruction(cpu: &mut Cpu, page: u64, at: &Boundary) {
    cpu.core.state.rip = page.wrapping_add(i64::from(at.delta) as u64);
    flags_at(cpu, at.saved, at.recipe);
    if at.shadow {
        cast_shadow(cpu);
    }
    account_exit(cpu, at.undone);
}

/// Puts status flags into the state, which has what was in RFLAGS: the saved ones if `saved`, else
/// what `recipe` makes of the registers.
#[inline(always)]
fn flags_at(cpu: &mut Cpu, saved: bool, recipe: Option<Recipe>) {
    if saved {
        cpu.core.state.flags.arith = cpu.jit.flags;
    } else if let Some(flags) =
        recipe.and_then(|recipe| recipe.flags(&cpu.core.state.gpr, cpu.translator.noted))
    {
        cpu.core.state.flags.arith = flags;
        cpu.translator.recovered = true;
    }
}

/// The instruction before was STI: no interrupt comes before the next one is done (SDM vol. 2,
/// STI), or HLT would miss what it waits for.
#[cold]
fn cast_shadow(cpu: &mut Cpu) {
    cpu.core.state.blocking.sti = true;
    cpu.core.refresh();
}

/// Adds what ran to the counters.
fn account_exit(cpu: &mut Cpu, undone: u16) {
    let ran = (cpu.granted.abs_diff(cpu.jit.left)).saturating_sub(u64::from(undone));
    cpu.core.instructions += ran;
    cpu.translator.instructions += ran;
}

/// Links the exit at `exit` to `next`, which has been found to be its successor.
pub(crate) fn link(cpu: &mut Cpu, exit: u32, next: &Block) {
    let Some(site) = site(cpu, exit) else { return };
    if let ExitSite::CrossPage { branch, .. } = site {
        cpu.jit.relink_countdown = cross_page::RELINK_COUNTDOWN;
        if let Some(entries) = translation_of(cpu, next) {
            cross_page::link(cpu, branch, next.key.gpa(), entries);
        }
        return;
    }
    let Some(entries) = translation_of(cpu, next) else {
        if next.translation.heat.get() == u32::MAX && next.second_page.is_none() {
            // It is not going to be translated as long as it lives.
            cache_exit(cpu, exit, next);
            if cpu.translator.figures.is_unlinked(exit)
                && let Some(mnemonic) = first_of(cpu, next)
            {
                cpu.translator.figures.interprets(exit, mnemonic);
            }
        }
        return;
    };
    if let ExitSite::Link { place, vectors, .. } = site
        && let Some(generation) = cpu.translator.generation()
    {
        // Where the vector registers are loaded the entry need not look.
        let to = if vectors { entries.body } else { entries.near };
        generation.area.patch_rel32(place, to);
        cpu.translator.links += 1;
    }
}

/// What `block`, of 64-bit code, begins with.
fn first_of(cpu: &Cpu, block: &Block) -> Option<Mnemonic> {
    let gpa = block.key.gpa();
    let mut bytes = [0; 15];
    let bytes = &mut bytes[..usize::from(block.len).min(15)];
    cpu.core.mmu.ram.read(Gpa(gpa), bytes).ok()?;
    let options = cpu.core.features.decoder_options;
    Some(Decoder::with_ip(64, bytes, 0, options).decode().mnemonic())
}

/// Has translated code stop when it has run as many instructions as it may, from now on.
pub(crate) fn bound(cpu: &Cpu) {
    cpu.translator.demand(Options { counting: true, bounded: true, ..Options::default() });
}

/// Has translated code be the same for a clock of instructions as the interpreter, from now on.
pub(crate) fn keep_time(cpu: &Cpu) {
    let (counting, bounded, exact_flags) = (true, true, true);
    cpu.translator.demand(Options { counting, bounded, exact_flags, ..Options::default() });
}

/// Has translated code poll, and count its instructions, from now on: it is to stop now and then.
pub(crate) fn poll(cpu: &Cpu) {
    cpu.translator.demand(Options { polls: true, counting: true, ..Options::default() });
}

/// Has translated code count its instructions from now on.
pub(crate) fn count(cpu: &Cpu) {
    cpu.translator.demand(Options { counting: true, ..Options::default() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CODE_CACHE, SoftVcpu, Tier};
    use memory::GuestRam;
    use x86::cpuid::CpuModel;

    #[test]
    fn what_is_raised_on_the_way_in_is_seen_there() {
        let ram = GuestRam::new(&[(Gpa(0), 0x1000)]).expect("some memory");
        let mut vcpu =
            SoftVcpu::with_tier(ram, CpuModel::gemello_v2(), Tier::Translate, CODE_CACHE)
                .expect("an engine");
        let cpu = &mut *vcpu.cpu;
        attach(cpu);
        // The exit as a translation: it takes the register that the entry puts RIP in for the
        // number of a site.
        let generation = cpu.translator.generation().expect("it runs");
        let entry = Entry(generation.area.address(generation.stubs.boundary.leave));
        cpu.core.state.rip = 0x1234;
        for (stop, exit) in [(0, 0x1234), (1, NOT_ENTERED)] {
            // What a signal's handler does that finds the thread between the last look at the
            // signals and the entry.
            cpu.jit.stop = stop;
            go(cpu, entry);
            assert_eq!(cpu.jit.exit, exit);
        }
    }
}
