//! PUSH and POP in all their forms, ENTER and LEAVE.

use super::context::Choice;
use super::context::{Context, Kind};
use crate::decode::operand;
use crate::interp::stack;
use crate::interp::system::segments;
use iced_x86::{Code, Mnemonic as M};
use x86::state::Mode;

/// Bytes that a stack instruction moves.
fn stack_size(c: &Context<'_>) -> u8 {
    c.i.stack_pointer_increment().unsigned_abs() as u8
}

pub(super) fn select(c: &mut Context<'_>) -> Choice {
    let long = c.mode == Mode::Long64;
    Some(match c.i.mnemonic() {
        M::Push => {
            c.op.size = stack_size(c);
            match c.kind(0) {
                Kind::Register if c.i.op0_register().is_segment_register() => {
                    c.op.dst = operand::segment(c.i.op0_register());
                    stack::push_seg
                }
                Kind::Register => {
                    c.op.dst = c.reg(0);
                    stack_segment(c);
                    if long && c.op.size == 8 { stack::push_r64 } else { stack::push_r }
                }
                Kind::Immediate => {
                    c.op.imm = c.i.immediate(0);
                    stack_segment(c);
                    stack::push_i
                }
                _ => stack::push_m,
            }
        }
        M::Pop => {
            c.op.size = stack_size(c);
            match c.kind(0) {
                Kind::Register if c.i.op0_register().is_segment_register() => {
                    c.op.dst = operand::segment(c.i.op0_register());
                    stack_segment(c);
                    segments::pop_seg
                }
                Kind::Register => {
                    c.op.dst = c.reg(0);
                    stack_segment(c);
                    if long && c.op.size == 8 { stack::pop_r64 } else { stack::pop_r }
                }
                _ => stack::pop_m,
            }
        }
        M::Pusha | M::Pushad => {
            c.op.size = stack_size(c) / 8;
            stack::pusha
        }
        M::Popa | M::Popad => {
            c.op.size = stack_size(c) / 8;
            stack::popa
        }
        M::Pushf | M::Pushfd | M::Pushfq => {
            c.op.size = stack_size(c);
            stack_segment(c);
            stack::pushf
        }
        M::Popf | M::Popfd | M::Popfq => {
            c.op.size = stack_size(c);
            stack_segment(c);
            stack::popf
        }
        M::Leave => {
            c.op.size = match c.i.code() {
                Code::Leavew => 2,
                Code::Leaved => 4,
                _ => 8,
            };
            stack_segment(c);
            stack::leave
        }
        M::Enter => {
            c.op.size = match c.i.code() {
                Code::Enterw_imm16_imm8 => 2,
                Code::Enterd_imm16_imm8 => 4,
                _ => 8,
            };
            c.op.imm = c.i.immediate(0) & 0xffff | (c.i.immediate(1) & 31) << 16;
            stack_segment(c);
            stack::enter
        }
        _ => return None,
    })
}

/// Marks the op's only memory access as a stack reference.
pub(super) fn stack_segment(c: &mut Context<'_>) {
    c.op.seg = x86::state::Seg::Ss as u8;
}
