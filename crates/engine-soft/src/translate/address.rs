//! Memory operands: the inline TLB check, shared by accesses that lie close together.
//!
//! A *group* is a checked range of addresses around one expression, base + index << scale. A later
//! access by the same expression within the range needs no check. A constant added to the base only
//! moves the group. The check leaves the host address of the range's first byte in a scratch
//! register. If a range lies on two pages, a *per-access* translation takes over for the rest of
//! the block and checks each access by itself. All other translations have *shared* checks.

use super::asm::{RAX, RSP};
use super::emit::{Cold, Emitter, Need, PAGE, StubTarget, VIEW, segment_base, spill_slot};
use super::flow::{Class, Usage};
use super::region::{GuestInsn, PAGE_BYTES};
use super::scratch::Held;
use crate::thunk::MemOperand;
use crate::tlb::{ENTRIES, Entry};
use iced_x86::{Code, Instruction, OpKind, Register};
use std::mem::{offset_of, size_of};

/// No register.
pub(super) const NONE: u8 = 0xff;
/// The page's linear address as a base.
pub(super) const PAGE_BASE: u8 = 0xfe;
/// The longest range that one check covers.
const REACH: i64 = 256;

/// An address but for its displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expression {
    /// 0, or the number of FS or GS.
    pub(crate) segment: u8,
    pub(crate) base: u8,
    pub(crate) index: u8,
    pub(crate) scale: u8,
}

impl Expression {
    pub(super) const STACK: Self =
        Self { segment: 0, base: super::asm::RSP, index: NONE, scale: 0 };

    /// Those it is made of, as bits.
    fn registers(&self) -> u16 {
        let bit = |register: u8| if register < 16 { 1 << register } else { 0 };
        bit(self.base) | bit(self.index)
    }
}

/// An access: bytes from expression + `displacement` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) at: Expression,
    pub(super) displacement: i32,
    pub(super) size: i64,
    pub(super) write: bool,
    /// It faults elsewhere than at a multiple of so many bytes (1: anywhere goes).
    pub(super) alignment: u16,
}

impl Access {
    /// Of eight bytes, aligned or not.
    pub(super) fn word(at: Expression, displacement: i32, write: bool) -> Self {
        Self { at, displacement, size: 8, write, alignment: 1 }
    }
}

/// A checked range, see the module. Offsets are from the expression's value when it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    at: Expression,
    low: i64,
    high: i64,
    write: bool,
    /// What the base has grown by since.
    moved: i64,
    /// Its base alone, which is in a host register: see [`Emitter::check`].
    added: bool,
}

impl Group {
    fn covers(&self, access: &Access) -> bool {
        let low = self.moved + i64::from(access.displacement);
        self.at == access.at
            && (self.write || !access.write)
            && low >= self.low
            && low + access.size <= self.high
    }

    /// What its check does for `access`.
    pub(super) fn check(&self, access: &Access) -> Option<Check> {
        let length = self.high - self.low;
        Some(Check {
            at: self.at,
            low: i32::try_from(self.low).ok()?,
            length: i32::try_from(length).ok()?,
            write: self.write,
            displacement: access.displacement,
            access_write: access.write,
            alignment: access.alignment,
            shared: length != access.size || self.write != access.write,
        })
    }

    /// Where `access` finds its operand, `host` being what the check left.
    fn place(&self, host: u8, access: &Access) -> Option<Place> {
        if self.added {
            let index = Some(self.at.base);
            return Some(Place { base: host, index, displacement: access.displacement });
        }
        let displacement = self.moved + i64::from(access.displacement) - self.low;
        Some(Place { base: host, index: None, displacement: i32::try_from(displacement).ok()? })
    }
}

/// Where an access finds its operand: so far from a host register, or the sum of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) base: u8,
    pub(super) index: Option<u8>,
    pub(super) displacement: i32,
}

/// What the check at a site does when it misses, for `super::fill`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) at: Expression,
    pub(crate) low: i32,
    pub(crate) length: i32,
    /// The whole range must be writable.
    pub(crate) write: bool,
    /// The access at hand.
    pub(crate) displacement: i32,
    pub(crate) access_write: bool,
    pub(crate) alignment: u16,
    /// It serves more than the access at hand: a per-access check may pass where it fails.
    pub(crate) shared: bool,
}

/// The operand of `i` as the translator sees it; `None`: not one it knows.
pub(super) fn access_of(i: &Instruction, operand: &MemOperand) -> Option<Access> {
    let (at, displacement) = expression_of(i, true)?;
    Some(Access {
        at,
        displacement,
        size: i64::from(operand.size),
        write: operand.access.writes(),
        alignment: operand.alignment,
    })
}

/// The address of `i`'s memory operand.
pub(super) fn expression_of(i: &Instruction, segments: bool) -> Option<(Expression, i32)> {
    let displacement = i32::try_from(i.memory_displacement64() as i64).ok()?;
    let number = |r: Register| if r == Register::None { NONE } else { r.number() as u8 };
    let segment = match i.memory_segment() {
        Register::FS if segments => 4,
        Register::GS if segments => 5,
        _ => 0,
    };
    let at = if i.is_ip_rel_memory_operand() {
        Expression { segment, base: PAGE_BASE, index: NONE, scale: 0 }
    } else {
        Expression {
            segment,
            base: number(i.memory_base()),
            index: number(i.memory_index()),
            scale: i.memory_index_scale().trailing_zeros() as u8,
        }
    };
    Some((at, displacement))
}

/// What an instruction does with addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moves {
    /// Accesses to the stack or through its operand, in order.
    accesses: [Option<Access>; 2],
    step: Option<(u8, i32)>,
    /// Registers it changes: RSP also where it is not named.
    written: u16,
}

impl Moves {
    pub(super) fn of(i: &Instruction, class: Class, usage: &Usage) -> Self {
        Self {
            accesses: accesses(i, class, usage.high_byte),
            step: step_of(i, class),
            written: usage.gpr_written | implied(class),
        }
    }
}

/// The constant that `i` adds to a 64-bit register, and which: RSP for pushes and pops.
fn step_of(i: &Instruction, class: Class) -> Option<(u8, i32)> {
    match class {
        Class::PushRegister | Class::PushImmediate | Class::PushMemory | Class::PushFlags => {
            return Some((4, -8));
        }
        Class::PopRegister => return Some((4, 8)),
        _ => {}
    }
    if i.op_count() == 0 || i.op0_kind() != OpKind::Register {
        return None;
    }
    let register = i.op0_register().number() as u8;
    let by = match i.code() {
        Code::Add_rm64_imm8 | Code::Add_rm64_imm32 | Code::Add_RAX_imm32 => i.immediate(1) as i64,
        Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 | Code::Sub_RAX_imm32 => {
            (i.immediate(1) as i64).checked_neg()?
        }
        Code::Inc_rm64 => 1,
        Code::Dec_rm64 => -1,
        Code::Lea_r64_m
            if i.memory_base() == i.op0_register() && i.memory_index() == Register::None =>
        {
            i.memory_displacement64() as i64
        }
        _ => return None,
    };
    i32::try_from(by).ok().filter(|by| by.unsigned_abs() <= 1 << 20).map(|by| (register, by))
}

fn accesses(i: &Instruction, class: Class, high_byte: bool) -> [Option<Access>; 2] {
    let stack = |displacement, write| Some(Access::word(Expression::STACK, displacement, write));
    match class {
        Class::Memory(operand) | Class::Bit(operand) if !high_byte => {
            [access_of(i, &operand), None]
        }
        Class::PushRegister | Class::PushImmediate | Class::PushFlags => [stack(-8, true), None],
        Class::PushMemory => [
            expression_of(i, true).map(|(at, displacement)| Access::word(at, displacement, false)),
            stack(-8, true),
        ],
        Class::Call | Class::CallRegister => [stack(-8, true), None],
        Class::PopRegister | Class::Return(_) => [stack(0, false), None],
        _ => [None, None],
    }
}

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
        self.asm.store_word(super::emit::TMP_FLAGS, RAX);
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

/// log2 of an entry's size.
const ENTRY_SHIFT: u8 = size_of::<Entry>().trailing_zeros() as u8;

/// RSP, where the instruction moves it without naming it.
fn implied(class: Class) -> u16 {
    match class {
        Class::PushRegister
        | Class::PushImmediate
        | Class::PushMemory
        | Class::PushFlags
        | Class::PopRegister => 1 << 4,
        Class::Leave => 1 << 4 | 1 << 5,
        Class::Rdtsc => 1 << 0 | 1 << 2,
        _ => 0,
    }
}

impl GuestInsn {
    /// The registers that it changes.
    pub(super) fn written(&self) -> u16 {
        self.moves.written
    }

    /// Whether it changes what `at` is made of.
    fn changes(&self, at: &Expression) -> bool {
        self.moves.written & at.registers() != 0
            || matches!(self.class, Class::Swapgs) && at.segment != 0
    }
}
