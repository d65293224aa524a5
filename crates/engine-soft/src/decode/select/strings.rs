//! String instructions, INS and OUTS among them.

use super::context::{Choice, implicit_segment};
use super::context::{Context, sized};
use crate::interp::string;
use iced_x86::{Instruction, Mnemonic as M, OpKind};

/// Address size of a string instruction: that of its index register.
fn string_address_size(i: &Instruction) -> u8 {
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI | OpKind::MemorySegDI => return 2,
            OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI => return 4,
            _ => {}
        }
    }
    8
}

pub(super) fn select(c: &mut Context<'_>) -> Choice {
    if !c.i.is_string_instruction() {
        return None;
    }
    let size = match c.i.mnemonic() {
        M::Movsb | M::Stosb | M::Lodsb | M::Cmpsb | M::Scasb | M::Insb | M::Outsb => 1,
        M::Movsw | M::Stosw | M::Lodsw | M::Cmpsw | M::Scasw | M::Insw | M::Outsw => 2,
        M::Movsd | M::Stosd | M::Lodsd | M::Cmpsd | M::Scasd | M::Insd | M::Outsd => 4,
        _ => 8,
    };
    c.op.address_size = string_address_size(c.i);
    c.op.seg = implicit_segment(c);
    Some(match c.i.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => sized!(size, W => string::movs::<W>),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => sized!(size, W => string::stos::<W>),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => sized!(size, W => string::lods::<W>),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => sized!(size, W => string::cmps::<W>),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => sized!(size, W => string::scas::<W>),
        M::Insb | M::Insw | M::Insd => sized!(size, W => string::ins::<W>),
        M::Outsb | M::Outsw | M::Outsd => sized!(size, W => string::outs::<W>),
        _ => return None,
    })
}
