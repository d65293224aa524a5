//! How status flags follow from general registers: the instruction that made them is done once more
//! on copies.

use crate::alu::Alu;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use x86::state::gpr;

/// No register: the immediate.
const IMMEDIATE: u8 = 0xff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Add,
    Sub,
    Compare,
    Test,
    Neg,
    /// As they were where this per-access translation was entered.
    Noted,
}

/// How flags are had from general registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    kind: Kind,
    size: u8,
    a: u8,
    b: u8,
    immediate: i32,
}

impl Recipe {
    pub(super) const NOTED: Self =
        Self { kind: Kind::Noted, size: 8, a: 0, b: IMMEDIATE, immediate: 0 };

    /// Of `i`, which replaces all flags.
    pub(super) fn of(i: &Instruction) -> Option<Self> {
        use Mnemonic as M;
        let (a, size) = general(i.op0_register()).filter(|_| i.op0_kind() == OpKind::Register)?;
        let alone = |kind| Some(Self { kind, size, a, b: a, immediate: 0 });
        match i.mnemonic() {
            // The result tells.
            M::And | M::Or | M::Xor => return alone(Kind::Test),
            M::Neg => return alone(Kind::Neg),
            _ => {}
        }
        let (b, immediate) = match i.op1_kind() {
            OpKind::Register => (general(i.op1_register())?.0, 0),
            OpKind::Memory => return None,
            // Sign-extended to eight bytes, else cut to the operand's size.
            _ => (IMMEDIATE, i.try_immediate(1).ok()? as i32),
        };
        let kind = match i.mnemonic() {
            M::Cmp => Kind::Compare,
            M::Test => Kind::Test,
            // Nothing is left of the one operand.
            M::Add if a == b => return None,
            M::Add => Kind::Add,
            M::Sub if a == b => Kind::Compare,
            M::Sub => Kind::Sub,
            _ => return None,
        };
        Some(Self { kind, size, a, b, immediate })
    }

    /// The registers it needs as they are.
    pub(super) fn registers(&self) -> u16 {
        let b = if self.b < 16 { 1 << self.b } else { 0 };
        if self.kind == Kind::Noted { 0 } else { 1 << self.a | b }
    }

    /// The flags, in the form of `Flags::arith`, from general registers `gpr`, or `noted` where the
    /// per-access translation was entered; `None`: they are lost.
    pub(super) fn flags(&self, gpr: &[u64; gpr::SLOTS], noted: Option<u16>) -> Option<u16> {
        if self.kind == Kind::Noted {
            return noted;
        }
        let value = |r: u8| match r {
            IMMEDIATE => i64::from(self.immediate) as u64,
            r => gpr[usize::from(r & 15)],
        };
        let (a, b) = (value(self.a), value(self.b));
        Some(match self.size {
            1 => self.redo(a as u8, b as u8),
            2 => self.redo(a as u16, b as u16),
            4 => self.redo(a as u32, b as u32),
            _ => self.redo(a, b),
        })
    }

    fn redo<W: Alu>(&self, a: W, b: W) -> u16 {
        let (mut ignored, mut flags) = (0, 0);
        match self.kind {
            Kind::Add => a.sub(b, &mut ignored).add(b, &mut flags),
            Kind::Sub => a.add(b, &mut ignored).sub(b, &mut flags),
            Kind::Compare => a.sub(b, &mut flags),
            Kind::Test => a.and(b, &mut flags),
            Kind::Neg => a.neg(&mut ignored).neg(&mut flags),
            Kind::Noted => a,
        };
        flags
    }
}

/// Number and size of a general register that is not a high byte.
fn general(register: Register) -> Option<(u8, u8)> {
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    let found = register.is_gpr() && !high;
    found.then(|| (register.full_register().number() as u8, register.size() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Decoder;

    /// What is known behind the instruction in `code`: kind, size, operands.
    fn recipe(code: &[u8]) -> Option<(Kind, u8, u8, u8)> {
        let i = Decoder::new(64, code, 0).decode();
        Recipe::of(&i).map(|r| (r.kind, r.size, r.a, r.b))
    }

    #[test]
    fn what_is_left_of_the_operands_tells() {
        assert_eq!(recipe(&[0x01, 0xc2]), Some((Kind::Add, 4, 2, 0)), "add edx, eax");
        assert_eq!(
            recipe(&[0x48, 0x83, 0xe9, 1]),
            Some((Kind::Sub, 8, 1, IMMEDIATE)),
            "sub rcx, 1"
        );
        assert_eq!(recipe(&[0x31, 0xd2]), Some((Kind::Test, 4, 2, 2)), "xor edx, edx");
        assert_eq!(recipe(&[0x48, 0x23, 0x06]), Some((Kind::Test, 8, 0, 0)), "and rax, [rsi]");
        assert_eq!(recipe(&[0x38, 0xc1]), Some((Kind::Compare, 1, 1, 0)), "cmp cl, al");
        for lost in [
            &[0x01, 0xc0][..],   // add eax, eax
            &[0x03, 0x06],       // add eax, [rsi]
            &[0x39, 0x06],       // cmp [rsi], eax
            &[0x00, 0xe1],       // add cl, ah
            &[0x0f, 0xaf, 0xc1], // imul eax, ecx
        ] {
            assert_eq!(recipe(lost), None, "{lost:x?}");
        }
    }
}
