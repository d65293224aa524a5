//! Branches, near and far, software interrupts and system calls.

use super::context::Choice;
use super::context::Place;
use super::context::{Context, Kind, addressed, conditional};
use super::stack::stack_segment;
use crate::core::Handler;
use crate::interp::system::{self, interrupts, segments, syscall};
use crate::interp::{control, legacy};
use crate::op::{DIRECT, OWN_STEP};
use iced_x86::{Code, ConditionCode, FlowControl, Mnemonic as M, OpKind};
use x86::state::Mode;

pub(super) fn select(c: &mut Context<'_>, place: &Place<'_>) -> Choice {
    let long = c.mode == Mode::Long64;
    let direct = matches!(
        c.i.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    ) && c.i.op_count() > 0;
    if direct {
        c.op.imm = c.i.near_branch_target().wrapping_sub(place.block_ip);
        c.op.rep = DIRECT;
        c.op.size = match c.i.op0_kind() {
            OpKind::NearBranch16 => 2,
            OpKind::NearBranch32 => 4,
            _ => 8,
        };
        return direct_branch(c, long);
    }
    indirect_branch(c, long).or_else(|| far_branch(c))
}

fn direct_branch(c: &mut Context<'_>, long: bool) -> Choice {
    let cc = c.i.condition_code();
    Some(match c.i.mnemonic() {
        M::Jmp => {
            if long {
                control::jmp
            } else {
                control::jmp_legacy
            }
        }
        M::Call => {
            stack_segment(c);
            if long { control::call } else { control::call_legacy }
        }
        M::Jcxz => counted(c, 2, control::jrcxz),
        M::Jecxz => counted(c, 4, control::jrcxz),
        M::Jrcxz => counted(c, 8, control::jrcxz),
        M::Loop => counted_by_code(c, control::loop_cc::<0>),
        M::Loope => counted_by_code(c, control::loop_cc::<1>),
        M::Loopne => counted_by_code(c, control::loop_cc::<2>),
        _ if cc == ConditionCode::None => return None,
        _ if long => conditional!(cc as u8 - 1, C => control::jcc::<C>),
        _ => conditional!(cc as u8 - 1, C => control::jcc_legacy::<C>),
    })
}

fn counted(c: &mut Context<'_>, size: u8, run: Handler) -> Handler {
    c.op.address_size = size;
    run
}

/// LOOP's counter is CX, ECX or RCX by the encoding's address size.
fn counted_by_code(c: &mut Context<'_>, run: Handler) -> Handler {
    let bits = c.i.code().op_code().address_size();
    c.op.address_size = (bits / 8) as u8;
    run
}

fn indirect_branch(c: &mut Context<'_>, long: bool) -> Choice {
    let memory = c.kind(0) == Kind::Memory;
    let form = c.form;
    let far = matches!(c.i.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall)
        && (c.i.is_jmp_far_indirect() || c.i.is_call_far_indirect());
    if far {
        return None;
    }
    match c.i.mnemonic() {
        M::Ret => {
            c.op.imm = if c.i.op_count() == 1 { c.i.immediate(0) } else { 0 };
            c.op.size = match c.i.code() {
                Code::Retnw | Code::Retnw_imm16 => 2,
                Code::Retnd | Code::Retnd_imm16 => 4,
                _ => 8,
            };
            stack_segment(c);
            Some(if long && c.op.size == 8 { control::ret } else { control::ret_legacy })
        }
        M::Jmp | M::Call if c.i.op_count() == 1 && c.kind(0) != Kind::Other => {
            let call = c.i.mnemonic() == M::Call;
            c.op.size = c.size(0);
            if !memory {
                c.op.dst = c.reg(0);
            }
            Some(match (call, memory, long && c.op.size == 8) {
                (false, false, true) => control::jmp_r,
                (false, true, true) => addressed!(form, A => control::jmp_m::<A> as Handler),
                (true, false, true) => control::call_r,
                (true, true, true) => addressed!(form, A => control::call_m::<A> as Handler),
                (false, false, false) => control::jmp_rm_legacy::<false>,
                (false, true, false) => control::jmp_rm_legacy::<true>,
                (true, false, false) => control::call_rm_legacy::<false>,
                (true, true, false) => control::call_rm_legacy::<true>,
            })
        }
        _ => None,
    }
}

fn far_branch(c: &mut Context<'_>) -> Choice {
    let call = c.i.mnemonic() == M::Call;
    Some(match c.i.mnemonic() {
        M::Jmp | M::Call => match c.i.op0_kind() {
            OpKind::FarBranch16 | OpKind::FarBranch32 => {
                let wide = c.i.op0_kind() == OpKind::FarBranch32;
                c.op.size = if wide { 4 } else { 2 };
                c.op.imm = if wide {
                    u64::from(c.i.far_branch32())
                } else {
                    u64::from(c.i.far_branch16())
                };
                c.op.disp = i32::from(c.i.far_branch_selector());
                if call {
                    segments::far_branch::<true, false>
                } else {
                    segments::far_branch::<false, false>
                }
            }
            OpKind::Memory => {
                c.op.size = c.i.memory_size().size() as u8 - 2;
                if call {
                    segments::far_branch::<true, true>
                } else {
                    segments::far_branch::<false, true>
                }
            }
            _ => return None,
        },
        M::Retf => {
            c.op.imm = if c.i.op_count() == 1 { c.i.immediate(0) } else { 0 };
            c.op.size = match c.i.code() {
                Code::Retfw | Code::Retfw_imm16 => 2,
                Code::Retfd | Code::Retfd_imm16 => 4,
                _ => 8,
            };
            segments::far_return
        }
        M::Iret | M::Iretd | M::Iretq => {
            c.op.size = match c.i.mnemonic() {
                M::Iret => 2,
                M::Iretd => 4,
                _ => 8,
            };
            interrupts::iret
        }
        M::Int => {
            c.op.imm = c.i.immediate(0);
            own_step(c, interrupts::int_n)
        }
        M::Int3 => own_step(c, interrupts::int3),
        M::Int1 => own_step(c, interrupts::int1),
        M::Into => own_step(c, interrupts::into),
        M::Bound => {
            (c.op.dst, c.op.size) = (c.reg(0), c.size(0));
            legacy::bound
        }
        M::Syscall => own_step(c, syscall::syscall),
        M::Sysret | M::Sysretq => {
            c.op.size = if c.i.mnemonic() == M::Sysretq { 8 } else { 4 };
            own_step(c, syscall::sysret)
        }
        M::Sysenter => syscall::sysenter,
        M::Sysexit | M::Sysexitq => {
            c.op.size = if c.i.mnemonic() == M::Sysexitq { 8 } else { 4 };
            syscall::sysexit
        }
        M::Ud0 | M::Ud1 | M::Ud2 => system::undefined,
        _ => return None,
    })
}

fn own_step(c: &mut Context<'_>, run: Handler) -> Handler {
    c.op.rep = OWN_STEP;
    run
}
