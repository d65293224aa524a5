//! Control flow: the order of a region's blocks, edges between them, entries from outside, exits,
//! and the poll.
//!
//! Every loop contains a return, an indirect branch, or a direct branch to a lower address. These
//! poll in lockstep, and each block's head counts down where the processor runs with a limit in
//! instructions (`super::count`). Otherwise a signal interrupts translated code
//! (`super::interrupt`).

use super::address::{Access, Expression};
use super::asm::Place;
use super::asm::{ADDRESS, RAX, RCX, RSP, SECOND, THIRD};
use super::emit::{Cold, Emitter, Need};
use super::flow::Class;
use super::insn::PAGE_BYTES;
use super::offsets::{ENTERED, LOOKED_UP, PAGE, POLL, TARGETS, TMP_FLAGS, VECTORS_OUT, spill_slot};
use super::scratch::bits;
use super::scratch::{STANDARD, Scratch};
use super::site::{ExitSite, FaultMapEntry, StubTarget};
use super::targets::{TARGET_MASK, TARGET_SCALE};
use crate::block::Entries;
use crate::tlb::PAGE_MASK;

impl Emitter<'_> {
    /// Entry of the head, right before its code.
    pub(super) fn head_entry(&mut self) {
        let entry = self.entry(0);
        self.entries.push((self.region.blocks[0].key, entry));
    }

    /// Entries of all blocks that need one.
    pub(super) fn outer_entries(&mut self, order: &[usize]) {
        for &b in order {
            if b != 0 && !self.region.inherits(b) {
                let entry = self.entry(b);
                let jump = self.asm.jmp();
                self.inner.push((jump, b));
                self.entries.push((self.region.blocks[b].key, entry));
            }
        }
    }

    /// Emits an entry for `block`: cross-page, flags saved, near, vectors loaded; code that
    /// goes on follows.
    fn entry(&mut self, block: usize) -> Entries {
        let b = &self.region.blocks[block];
        let start = b.start;
        let at = |e: &Self| e.asm.here() as u32;
        // Cross-page: the target's RIP is in ADDRESS.
        let cross_page = at(self);
        self.asm.lea(ADDRESS, ADDRESS, -start);
        self.asm.store(PAGE, ADDRESS);
        // Once this is invalidated, a jump to the dispatcher stands at each of the other entries.
        let flags_saved = self.asm.patch_point() as u32;
        if b.live_in {
            self.asm.mov(SECOND, RAX);
            self.asm.load_word(RAX, TMP_FLAGS);
            self.asm.flags_from_ax();
            self.asm.mov(RAX, SECOND);
        }
        let near = self.asm.patch_point() as u32;
        let body = if self.region.vectors {
            self.require_vectors();
            self.asm.patch_point() as u32
        } else {
            near
        };
        if !self.region.per_access {
            self.tally(ENTERED, SECOND);
        }
        for r in bits(self.spilled & !STANDARD) {
            self.asm.store(spill_slot(r), r);
        }
        for r in bits(STANDARD & !self.spilled) {
            self.asm.load(r, spill_slot(r));
        }
        Entries { cross_page, flags_saved, near, body, dead_saved: 0, dead: 0, region: 0 }
    }

    /// What each entry becomes once this is invalidated: an exit to the dispatcher.
    pub(super) fn dead_entries(&mut self) {
        for n in 0..self.entries.len() {
            let delta = (self.entries[n].0.gpa() & PAGE_MASK) as i32;
            let dead = self.asm.here() as u32;
            self.saved = false;
            self.save_flags(SECOND);
            let dead_saved = self.asm.here() as u32;
            let site = self.site(ExitSite::Dead { delta });
            self.leave_by(site, StubTarget::Leave);
            let entries = &mut self.entries[n].1;
            (entries.dead, entries.dead_saved) = (dead, dead_saved);
        }
    }

    /// Loads the vector registers if they are not in the host's, without touching flags.
    fn require_vectors(&mut self) {
        self.asm.mov(ADDRESS, RCX);
        self.asm.load_byte(RCX, VECTORS_OUT);
        let ready = self.asm.jrcxz();
        self.asm.mov(RCX, ADDRESS);
        // LEA ADDRESS, [RIP + 5]: the address behind the jump.
        self.asm.bytes(&[0x4c, 0x8d, 0x05 | (ADDRESS & 7) << 3, 5, 0, 0, 0]);
        let jump = self.asm.jmp();
        self.jumps.push((jump, StubTarget::LoadVectors));
        // The loader comes back here with RCX intact in itself: keep both paths equal.
        self.asm.mov(ADDRESS, RCX);
        self.asm.short_here(ready);
        self.asm.mov(RCX, ADDRESS);
    }

    fn pass_scratch_state(&mut self, to: usize) {
        if self.region.inherits(to) && self.labels[to].is_none() {
            let mut left: Scratch = self.scratch;
            left.unpin();
            self.inherited[to] = Some(left);
        }
    }

    /// Makes the registers what they are at a region's boundary; a `target` comes along in ADDRESS,
    /// where to write in THIRD.
    pub(super) fn boundary(&mut self, target: Option<u8>, place: Option<u8>) {
        for r in bits(STANDARD & !self.spilled) {
            self.asm.store(spill_slot(r), r);
        }
        match (target, place) {
            (Some(THIRD), Some(ADDRESS)) => self.asm.xchg(ADDRESS, THIRD),
            (Some(THIRD), place) => {
                self.carry(THIRD, ADDRESS);
                place.inspect(|&place| self.carry(place, THIRD));
            }
            (target, place) => {
                place.inspect(|&place| self.carry(place, THIRD));
                target.inspect(|&target| self.carry(target, ADDRESS));
            }
        }
        for r in bits(self.spilled & !STANDARD) {
            self.asm.load(r, spill_slot(r));
        }
        if self.spilled != STANDARD
            && let Some(last) = self.fault_map.last().copied()
        {
            let offset = self.asm.here() as u32;
            self.fault_map.push(FaultMapEntry {
                offset,
                spilled: STANDARD,
                boundary: false,
                ..last
            });
        }
    }

    fn carry(&mut self, from: u8, to: u8) {
        if from != to {
            self.asm.mov(to, from);
        }
    }

    /// Stops here if the machine wants the processor, where translated code polls at all.
    fn poll(&mut self) -> Option<()> {
        if self.options.wanted.polls { self.poll_now() } else { Some(()) }
    }

    /// Stops here if the machine wants the processor: faults on purpose, and the fault is at this
    /// instruction.
    pub(super) fn poll_now(&mut self) -> Option<()> {
        let host = self.scratch.take()?;
        self.asm.load(host, POLL);
        self.asm.load32_at(host, host, 0);
        self.scratch.give(host);
        Some(())
    }

    /// Goes to page + `to` at the end of the current block. `from` is the branch that goes there;
    /// `None`: control falls through, or the branch has polled.
    pub(super) fn edge(&mut self, to: i32, from: Option<usize>, next: Option<usize>) -> Option<()> {
        if from.is_some_and(|n| to <= self.region.insns[n].delta) {
            self.poll()?;
        }
        let Some(b) = self.region.at(to) else {
            let b = self.block();
            let live = self.region.insns[b.first + b.count - 1].live_after;
            self.boundary(None, None);
            self.out(to, live);
            return Some(());
        };
        self.pass_scratch_state(b);
        if next != Some(b) || self.labels[b].is_some() {
            let place = self.asm.jmp();
            self.inner.push((place, b));
        }
        Some(())
    }

    /// Brings flags back into RFLAGS before control goes to page + `to`, if they are `needed`;
    /// another page takes them as they are.
    pub(super) fn materialize_flags_for(&mut self, to: i32, needed: bool) {
        if on_page(to) {
            self.materialize_flags(needed);
        }
    }

    /// Leaves the region for page + `to`.
    fn out(&mut self, to: i32, live: bool) {
        if on_page(to) {
            let place = self.asm.jmp_patchable();
            self.link(place, to);
            return;
        }
        if self.region.per_access {
            self.save_flags_if(live);
            self.by_table(to);
        } else {
            self.leave_page(to, live);
        }
    }

    /// Goes to page + `to` by the table of targets. Status flags are saved or dead.
    pub(super) fn by_table(&mut self, to: i32) {
        self.asm.load(ADDRESS, PAGE);
        self.asm.lea(ADDRESS, ADDRESS, to);
        let site = self.site(ExitSite::Target { delta: to, saved: self.saved });
        self.dispatch(0, site);
    }

    fn link(&mut self, place: usize, to: i32) {
        let vectors = self.region.vectors;
        let site = self.site(ExitSite::Link { place: place as u32, delta: to, vectors });
        self.cold.push(Cold::Exit { from: place, site, out: StubTarget::Leave });
    }

    /// The site for a target that the table does not know: the interpreter finds it.
    fn interpreted(&mut self, n: usize) -> usize {
        let (delta, undone) = (self.region.insns[n].delta, self.rest(n));
        let shadow = self.shadow(n);
        let saved = self.saved;
        self.site(ExitSite::Interpret { delta, undone, saved, shadow, recipe: self.recipe(n) })
    }

    /// The entry of the table of targets for the guest address in ADDRESS to SECOND; leaves by
    /// `site` if it is another's. Status flags are saved or dead.
    fn look_up(&mut self, site: usize) {
        self.tally(LOOKED_UP, SECOND);
        self.asm.scaled32(SECOND, ADDRESS, TARGET_SCALE);
        self.asm.and32(SECOND, TARGET_MASK as i32);
        self.asm.add_gs(SECOND, TARGETS);
        self.asm.cmp_at(ADDRESS, SECOND, 0);
        let miss = self.asm.jcc(5);
        self.cold.push(Cold::Exit { from: miss, site, out: StubTarget::Leave });
    }

    /// Jumps to the guest address in ADDRESS if the table of targets knows it, after releasing
    /// `pop` bytes of stack; else leaves by `site`. Status flags are saved or dead.
    fn dispatch(&mut self, pop: i32, site: usize) {
        self.look_up(site);
        if pop != 0 {
            self.asm.lea(RSP, RSP, pop);
        }
        self.asm.jmp_at(SECOND, 8);
    }

    /// Saves flags for an entry that takes them so, if they are `live`. At the boundary: any
    /// scratch register will do.
    pub(super) fn save_flags_if(&mut self, live: bool) {
        if live {
            self.save_flags(SECOND);
        }
    }

    /// Translates the branch `n`, which ends the current block.
    pub(super) fn branch(&mut self, n: usize, next: Option<usize>) -> Option<()> {
        let g = &self.region.insns[n];
        match g.class {
            Class::Jump => {
                self.materialize_flags_for(g.target(), g.live_after);
                self.edge(g.target(), Some(n), next)
            }
            Class::Jcc(cc) => self.jcc(n, cc, next),
            Class::Call => self.call(n),
            Class::Return(bytes) => self.ret(n, bytes),
            Class::Syscall | Class::Sysret => self.gate(n),
            _ => self.indirect(n),
        }
    }

    fn jcc(&mut self, n: usize, cc: u8, next: Option<usize>) -> Option<()> {
        let g = &self.region.insns[n];
        self.materialize_flags(true);
        let (to, through) = (g.target(), g.next());
        if to <= g.delta && on_page(to) {
            // Polls whether it is taken or not, which is cheaper than a detour.
            self.poll()?;
        }
        let taken = self.region.at(to);
        if taken.is_some() && taken == next && self.region.at(through) != next {
            // The taken side comes next: turn the condition round.
            self.pass_scratch_state(taken?);
            let place = self.asm.jcc(cc ^ 1);
            match self.region.at(through) {
                Some(b) => {
                    self.pass_scratch_state(b);
                    self.inner.push((place, b));
                }
                None => self.cold.push(Cold::Branch { from: place, to: through, n, polls: false }),
            }
            return Some(());
        }
        if taken.is_none() && on_page(to) && self.spilled == STANDARD {
            let place = self.asm.jcc_patchable(cc);
            self.link(place, to);
            return self.edge(through, None, next);
        }
        let place = self.asm.jcc(cc);
        match taken {
            Some(b) => {
                self.pass_scratch_state(b);
                self.inner.push((place, b));
            }
            None => self.cold.push(Cold::Branch {
                from: place,
                to,
                n,
                polls: to <= g.delta && !on_page(to),
            }),
        }
        self.edge(through, None, next)
    }

    /// A branch out of the region that was taken, in the cold part.
    pub(super) fn cold_branch(&mut self, from: usize, to: i32, n: usize, polls: bool) {
        self.asm.resolve_here(from);
        self.current = self.region.block_of(n).unwrap_or(self.current);
        self.scratch = Scratch::new(self.spilled);
        self.saved = false;
        self.map_faults(n, 1);
        if polls {
            self.poll();
        }
        let live = self.region.insns[n].live_after;
        self.boundary(None, None);
        self.out(to, live);
    }

    /// Where a return address goes, checked.
    fn return_place(&mut self, n: usize) -> Option<Place> {
        let need = if self.region.insns[n].live_after { Need::Flags } else { Need::Nothing };
        self.reach(n, Access::word(Expression::STACK, -8, true), need)
    }

    /// Writes the return address; RSP stays.
    fn write_return(&mut self, n: usize) -> Option<()> {
        let g = &self.region.insns[n];
        let place = self.return_place(n)?;
        let value = self.scratch.take()?;
        self.asm.load(value, PAGE);
        self.asm.lea(value, value, g.next());
        self.asm.store_place(&place, value);
        self.scratch.unpin();
        Some(())
    }

    fn call(&mut self, n: usize) -> Option<()> {
        let g = &self.region.insns[n];
        if g.target() <= g.delta {
            self.poll()?;
        }
        self.write_return(n)?;
        self.materialize_flags_for(g.target(), g.live_after);
        self.asm.lea(RSP, RSP, -8);
        self.boundary(None, None);
        self.out(g.target(), g.live_after);
        Some(())
    }

    fn ret(&mut self, n: usize, bytes: u16) -> Option<()> {
        let g = &self.region.insns[n];
        self.poll()?;
        let need = if g.live_after { Need::Flags } else { Need::Nothing };
        let access = Access::word(Expression::STACK, 0, false);
        let place = self.reach(n, access, need)?;
        let value = self.scratch.take()?;
        self.asm.load_place(value, &place);
        self.boundary(Some(value), None);
        self.save_flags_if(g.live_after);
        let site = self.interpreted(n);
        self.dispatch(8 + i32::from(bytes), site);
        Some(())
    }

    fn indirect(&mut self, n: usize) -> Option<()> {
        let g = &self.region.insns[n];
        self.poll()?;
        let value = if matches!(g.class, Class::JumpMemory | Class::CallMemory) {
            let (at, displacement) = super::address::expression_of(&g.i, true)?;
            let need = if g.live_after { Need::Flags } else { Need::Nothing };
            let access = Access::word(at, displacement, false);
            let place = self.reach(n, access, need)?;
            let value = self.scratch.take()?;
            self.asm.load_place(value, &place);
            value
        } else {
            self.value(g.i.op0_register().number() as u8)?
        };
        if g.class.calls() {
            // Of what is pinned only this is still needed, if it is a scratch register at all.
            self.scratch.unpin();
            let _ = self.scratch.take_host(value);
            return self.indirect_call(n, value);
        }
        self.boundary(Some(value), None);
        self.save_flags_if(g.live_after);
        let site = self.interpreted(n);
        self.dispatch(0, site);
        Some(())
    }

    /// Calls the guest address in `target`. An address that the table of targets does not know may
    /// be none at all: the interpreter begins anew, so that nothing may have been written before.
    fn indirect_call(&mut self, n: usize, target: u8) -> Option<()> {
        let g = &self.region.insns[n];
        let place = self.return_place(n)?;
        self.boundary(Some(target), Some(place.base));
        self.save_flags_if(g.live_after);
        let site = self.interpreted(n);
        self.look_up(site);
        self.asm.load(ADDRESS, PAGE);
        self.asm.lea(ADDRESS, ADDRESS, g.next());
        self.asm.store_place(&Place { base: THIRD, ..place }, ADDRESS);
        self.asm.load_at(ADDRESS, SECOND, 0);
        self.asm.lea(RSP, RSP, -8);
        self.asm.jmp_at(SECOND, 8);
        Some(())
    }
}

fn on_page(delta: i32) -> bool {
    (0..PAGE_BYTES).contains(&delta)
}
