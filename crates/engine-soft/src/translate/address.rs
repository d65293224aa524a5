//! Memory operands as address checks see them: expressions, accesses, the groups that one check
//! serves, and what an instruction does with addresses.

use super::asm::{Place, RSP};
use super::flow::{Class, Usage};
use crate::thunk::MemOperand;
use iced_x86::{Code, Instruction, OpKind, Register};

/// No register.
pub(super) const NONE: u8 = 0xff;
/// The page's linear address as a base.
pub(super) const PAGE_BASE: u8 = 0xfe;
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
    pub(super) const STACK: Self = Self { segment: 0, base: RSP, index: NONE, scale: 0 };

    /// Those it is made of, as bits.
    pub(super) fn registers(&self) -> u16 {
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
    pub(super) at: Expression,
    pub(super) low: i64,
    pub(super) high: i64,
    pub(super) write: bool,
    /// What the base has grown by since.
    pub(super) moved: i64,
    /// Its base alone, which is in a host register: see [`Emitter::check`].
    pub(super) added: bool,
}

impl Group {
    pub(super) fn covers(&self, access: &Access) -> bool {
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
    pub(super) fn place(&self, host: u8, access: &Access) -> Option<Place> {
        if self.added {
            let index = Some(self.at.base);
            return Some(Place { base: host, index, displacement: access.displacement });
        }
        let displacement = self.moved + i64::from(access.displacement) - self.low;
        Some(Place { base: host, index: None, displacement: i32::try_from(displacement).ok()? })
    }
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
    pub(super) accesses: [Option<Access>; 2],
    pub(super) step: Option<(u8, i32)>,
    /// Registers it changes: RSP also where it is not named.
    pub(super) written: u16,
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
        Class::PopRegister if i.op0_register() != Register::RSP => return Some((4, 8)),
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
        Class::Rdtscp => 1 << 0 | 1 << 1 | 1 << 2,
        _ => 0,
    }
}
