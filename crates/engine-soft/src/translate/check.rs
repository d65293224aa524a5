//! Memory operands: the inline TLB check, shared by accesses that lie close together.
//!
//! A *group* is a checked range of addresses around one expression, base + index << scale. A later
//! access by the same expression within the range needs no check. A constant added to the base only
//! moves the group. The check leaves the host address of the range's first byte in a scratch
//! register. If a range lies on two pages, a *per-access* translation takes over for the rest of
//! the block and checks each access by itself. All other translations have *shared* checks.

use super::address::{Access, Expression, Group, Moves, NONE, PAGE_BASE};
use super::asm::{Place, RAX, RSP};
use super::emit::{Cold, Emitter, Need};
use super::insn::{GuestInsn, PAGE_BYTES};
use super::offsets::{PAGE, TMP_FLAGS, VIEW, segment_base, spill_slot};
use super::scratch::Held;
use super::site::StubTarget;
use crate::tlb::{ENTRIES, Entry};
use std::mem::{offset_of, size_of};

/// The longest range that one check covers.
const REACH: i64 = 256;

/// log2 of an entry's size.
const ENTRY_SHIFT: u8 = size_of::<Entry>().trailing_zeros() as u8;

impl Emitter<'_> {
    /// The operand of `access` (of instruction `n`), checked: emits a check unless one that was
    /// made already covers it.
    pub(super) fn reach(&mut self, n: usize, access: Access, need: Need) -> Option<Place> {
        if let Some((host, group)) = self.scratch.find_group(|g| g.covers(&access)) {
            return group.place(host, &access);
        }
        let group = self.plan(n, access);
        let host = if group.at == Expression::STACK {
            self.check_stack(n, &group, &access, need)?
        } else {
            self.check(n, &group, &access, need)?
        };
        self.scratch.hold(host, Held::Group(group));
        group.place(host, &access)
    }

    /// How far a check for `access` of instruction `n` should reach, by what the rest of the block
    /// does.
    fn plan(&self, n: usize, access: Access) -> Group {
        let mut group = Group {
            at: access.at,
            low: i64::from(access.displacement),
            high: i64::from(access.displacement) + access.size,
            write: access.write,
            moved: 0,
            added: self.at_hand(&access.at),
        };
        if self.region.per_access {
            return group;
        }
        self.widen(&mut group, n, 0, true);
        group
    }

    /// Whether `at` is a register alone, and the host has it. RSP cannot be an index.
    fn at_hand(&self, at: &Expression) -> bool {
        let alone = at.segment == 0 && at.index == NONE && at.base < 16;
        alone && at.base != RSP && self.spilled & 1 << at.base == 0
    }

    /// Extends `group` by what its block does from instruction `n` on, the base having moved by
    /// `moved`, and by what blocks do that only come after. Those may not be reached, so that they
    /// have no say in whether writing must be allowed.
    fn widen(&self, group: &mut Group, n: usize, mut moved: i64, here: bool) {
        let at = group.at;
        let Some(b) = self.region.block_of(n) else { return };
        let block = &self.region.blocks[b];
        for g in &self.region.insns[n..block.first + block.count] {
            for other in g.moves.accesses.iter().flatten().filter(|a| a.at == at) {
                let low = i64::from(other.displacement) + moved;
                let (from, to) = (group.low.min(low), group.high.max(low + other.size));
                let fits = i32::try_from(from).is_ok() && i32::try_from(to).is_ok();
                if fits && to - from <= REACH && (here || group.write || !other.write) {
                    (group.low, group.high) = (from, to);
                    group.write |= other.write;
                }
            }
            match g.moves.step {
                Some((register, by)) if at.base == register && at.index == NONE => {
                    moved += i64::from(by);
                }
                _ if g.changes(&at) => return,
                _ => {}
            }
        }
        for to in self.region.successors(b).into_iter().flatten() {
            if let Some(next) = self.region.at(to)
                && self.region.inherits(next)
                && next != b
            {
                self.widen(group, self.region.blocks[next].first, moved, false);
            }
        }
    }

    /// Emits the check of `group`, and tells which register it leaves the host address of the
    /// range's first byte in; or, where the base is at hand, what leads from it to the host
    /// address: that is there three cycles sooner. Flags are saved if `need` says so.
    fn check(&mut self, n: usize, group: &Group, access: &Access, need: Need) -> Option<u8> {
        let address = self.scratch.take()?;
        let entry = self.scratch.take()?;
        if need == Need::Flags {
            self.save_flags(entry);
        }
        let retry = self.asm.here();
        let check = group.check(access)?;
        self.expression(address, Some(entry), &group.at, check.low)?;
        let first = if group.added && check.low == 0 { group.at.base } else { address };
        self.entry_for(entry, first);
        let tag = if group.write { offset_of!(Entry, wtag) } else { offset_of!(Entry, rtag) };
        let from = self.another_page(address, entry, tag, check.length);
        if group.added {
            self.asm.load_at(address, entry, Entry::ADDEND as i32);
        } else {
            self.asm.add_at(address, entry, Entry::HOST as i32);
        }
        self.scratch.give(entry);
        let site = self.check_site(n, check, retry);
        self.cold.push(Cold::Exit { from, site, out: StubTarget::Fill(address) });
        Some(address)
    }

    /// The TLB's entry for the linear address in `address` to `entry`. Changes flags.
    pub(super) fn entry_for(&mut self, entry: u8, address: u8) {
        self.asm.shift_right(entry, address, 12 - ENTRY_SHIFT, self.options.bmi2);
        self.asm.and32(entry, ((ENTRIES - 1) << ENTRY_SHIFT) as i32);
        self.asm.add_gs(entry, VIEW);
    }

    /// Makes `address` the offset in the page that `tag` of `entry` says; a jump that is taken if
    /// `length` bytes from there do not lie on it.
    pub(super) fn another_page(
        &mut self,
        address: u8,
        entry: u8,
        tag: usize,
        length: i32,
    ) -> usize {
        self.asm.sub_at(address, entry, tag as i32);
        // On another page the difference is more than any offset.
        self.asm.cmp_imm(address, PAGE_BYTES - length);
        self.asm.jcc(7)
    }

    /// The linear address of `at` + `displacement` into `to`, with `spare` to help where an index
    /// is spilled; flags untouched.
    pub(super) fn expression(
        &mut self,
        to: u8,
        spare: Option<u8>,
        at: &Expression,
        displacement: i32,
    ) -> Option<()> {
        match (at.base, at.index) {
            (NONE, NONE) => self.asm.load_immediate(to, displacement),
            (PAGE_BASE, _) => {
                self.asm.load(to, PAGE);
                self.asm.lea(to, to, displacement);
            }
            (base, NONE) => {
                let b = self.bring(base, to);
                if displacement != 0 {
                    self.asm.lea(to, b, displacement);
                } else if b != to {
                    self.asm.mov(to, b);
                }
            }
            (NONE, index) => {
                let x = self.bring(index, to);
                self.asm.lea_scaled(to, None, x, at.scale, displacement);
            }
            (base, index) => {
                // At most one of them can be brought into `to`.
                let spilled = |r: u8| self.spilled & 1 << r != 0;
                let x = match (spilled(base) && base != index, spilled(index)) {
                    (true, true) => match spare {
                        Some(spare) => self.bring(index, spare),
                        None => return self.expression_by_halves(to, at, displacement),
                    },
                    _ => self.bring(index, to),
                };
                let b = if base == index { x } else { self.bring(base, to) };
                self.asm.lea_scaled(to, Some(b), x, at.scale, displacement);
            }
        }
        if at.segment != 0 {
            self.asm.add_gs(to, segment_base(at.segment));
        }
        Some(())
    }

    /// base + index << scale with both in memory and one register: rare.
    fn expression_by_halves(&mut self, to: u8, at: &Expression, displacement: i32) -> Option<()> {
        self.asm.load(to, spill_slot(at.index));
        self.asm.lea_scaled(to, None, to, at.scale, displacement);
        self.asm.add_gs(to, spill_slot(at.base));
        if at.segment != 0 {
            self.asm.add_gs(to, segment_base(at.segment));
        }
        Some(())
    }

    /// The host register with guest register `register`, loaded into `to` if it is spilled.
    fn bring(&mut self, register: u8, to: u8) -> u8 {
        if self.spilled & 1 << register == 0 {
            return register;
        }
        self.asm.load(to, spill_slot(register));
        to
    }

    /// RFLAGS to `Context::flags`, unless they are there. Clobbers `spare`.
    pub(super) fn save_flags(&mut self, spare: u8) {
        if self.saved {
            return;
        }
        self.asm.mov(spare, RAX);
        self.asm.flags_to_ax();
        self.asm.store_word(TMP_FLAGS, RAX);
        self.asm.mov(RAX, spare);
        self.flags_moved(true);
    }

    /// What instruction `g` writes is noted: groups by changed registers go, or move along.
    pub(super) fn note_writes(&mut self, g: &GuestInsn) {
        let Moves { step, .. } = g.moves;
        self.scratch.groups(|mut group| {
            if let Some((register, by)) = step
                && group.at.base == register
                && group.at.index == NONE
            {
                group.moved += i64::from(by);
                return Some(group);
            }
            (!g.changes(&group.at)).then_some(group)
        });
    }
}
