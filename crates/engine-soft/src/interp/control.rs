//! Near control flow: Jcc, JMP, CALL, RET, LOOP, and the ends of blocks.
//!
//! Direct targets are kept relative to the block's start, so that a block runs at any linear
//! address.
#![allow(unsafe_code)] // the op behind `far_operand`; see docs/UNSAFE.md

use super::stack;
use crate::alu::{CF, OF, PF, SF, ZF};
use crate::cpu::Cpu;
use crate::cpu::Op;
use crate::op::{Fallible, Step, step_to};
use x86::addr::La;
use x86::bus::AccessKind;
use x86::state::{Mode, Seg, gpr};

/// Condition `CC` of Jcc, SETcc, CMOVcc (SDM vol. 2, appendix B.1.4.7).
#[inline(always)]
pub(crate) fn condition<const CC: u8>(f: u16) -> bool {
    let less = f >> 15 & 1 != f & OF;
    let holds = match CC >> 1 {
        0 => f & OF != 0,
        1 => f & CF != 0,
        2 => f & ZF != 0,
        3 => f & (CF | ZF) != 0,
        4 => f & SF != 0,
        5 => f & PF != 0,
        6 => less,
        _ => less || f & ZF != 0,
    };
    holds != (CC & 1 != 0)
}

/// The direct target of `op`.
#[inline(always)]
fn target(cpu: &Cpu, op: &Op) -> u64 {
    cpu.state.gpr[gpr::BLOCK_IP].wrapping_add(op.imm)
}

/// Jcc in 64-bit mode.
pub(crate) fn jcc<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    if condition::<CC>(cpu.state.flags.arith) {
        cpu.state.rip = target(cpu, op);
        Step::Taken
    } else {
        cpu.state.rip = cpu.ip(op).wrapping_add(u64::from(op.len));
        Step::Through
    }
}

/// JMP rel in 64-bit mode.
pub(crate) fn jmp(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.state.rip = target(cpu, op);
    Step::Taken
}

/// CALL rel in 64-bit mode.
pub(crate) fn call(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let to = target(cpu, op);
        canonical(cpu, to)?;
        let back = cpu.ip(op).wrapping_add(u64::from(op.len));
        stack::push64(cpu, back)?;
        cpu.state.rip = to;
        Ok(Step::Taken)
    };
    step_to(body(cpu))
}

/// RET in 64-bit mode, releasing `imm` bytes.
pub(crate) fn ret(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let rsp = cpu.state.gpr[gpr::RSP];
        let to = cpu.load::<u64>(rsp)?;
        canonical(cpu, to)?;
        cpu.state.gpr[gpr::RSP] = rsp.wrapping_add(8).wrapping_add(op.imm);
        cpu.state.rip = to;
        Ok(Step::Jump)
    };
    step_to(body(cpu))
}

#[inline(always)]
fn canonical(cpu: &mut Cpu, to: u64) -> Fallible {
    if La(to).is_canonical() { Ok(()) } else { cpu.gp() }
}

/// JMP r64.
pub(crate) fn jmp_r(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let to = cpu.reg::<u64>(op.dst);
        canonical(cpu, to)?;
        cpu.state.rip = to;
        Ok(Step::Jump)
    };
    step_to(body(cpu))
}

/// JMP [mem64].
pub(crate) fn jmp_m<const A: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let la = cpu.linear::<A>(op, 8, AccessKind::Read)?;
        let to = cpu.load::<u64>(la)?;
        canonical(cpu, to)?;
        cpu.state.rip = to;
        Ok(Step::Jump)
    };
    step_to(body(cpu))
}

/// CALL writes the return address before it checks the target. Intel's processors and Zen 5 do so:
/// the address stays in memory when the target is not canonical. SDM vol. 2, CALL, and Zen 3 check
/// first.
fn call_to(cpu: &mut Cpu, op: &Op, to: u64) -> Fallible<Step> {
    let back = cpu.ip(op).wrapping_add(u64::from(op.len));
    let rsp = cpu.state.gpr[gpr::RSP];
    stack::push64(cpu, back)?;
    if !La(to).is_canonical() {
        cpu.state.gpr[gpr::RSP] = rsp;
        return cpu.gp();
    }
    cpu.state.rip = to;
    Ok(Step::Jump)
}

/// CALL r64.
pub(crate) fn call_r(cpu: &mut Cpu, op: &Op) -> Step {
    let to = cpu.reg::<u64>(op.dst);
    step_to(call_to(cpu, op, to))
}

/// CALL [mem64].
pub(crate) fn call_m<const A: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let la = cpu.linear::<A>(op, 8, AccessKind::Read)?;
        let to = cpu.load::<u64>(la)?;
        call_to(cpu, op, to)
    };
    step_to(body(cpu))
}

/// Wraps `to` to the operand size and checks it against the code segment's limit, outside 64-bit
/// mode.
fn legacy_target(cpu: &mut Cpu, op: &Op, to: u64) -> Fallible<u64> {
    let to = if op.size == 2 { to & 0xffff } else { to & 0xffff_ffff };
    if to > u64::from(cpu.state.seg[Seg::Cs as usize].limit) { cpu.gp() } else { Ok(to) }
}

fn legacy_branch(cpu: &mut Cpu, op: &Op, taken: bool) -> Fallible<Step> {
    if taken {
        let to = target(cpu, op);
        cpu.state.rip = legacy_target(cpu, op, to)?;
        Ok(Step::Taken)
    } else {
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Through)
    }
}

/// Jcc outside 64-bit mode.
pub(crate) fn jcc_legacy<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let taken = condition::<CC>(cpu.state.flags.arith);
    step_to(legacy_branch(cpu, op, taken))
}

/// JMP rel outside 64-bit mode.
pub(crate) fn jmp_legacy(cpu: &mut Cpu, op: &Op) -> Step {
    step_to(legacy_branch(cpu, op, true))
}

/// CALL rel outside 64-bit mode.
pub(crate) fn call_legacy(cpu: &mut Cpu, op: &Op) -> Step {
    let to = target(cpu, op);
    step_to(legacy_call(cpu, op, to, Step::Taken))
}

fn legacy_call(cpu: &mut Cpu, op: &Op, to: u64, step: Step) -> Fallible<Step> {
    let to = legacy_target(cpu, op, to)?;
    let back = cpu.next_ip(op);
    stack::push(cpu, op.size, back)?;
    cpu.state.rip = to;
    Ok(step)
}

/// RET outside 64-bit mode.
pub(crate) fn ret_legacy(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let to = stack::peek(cpu, op.size, 0)?;
        cpu.state.rip = legacy_target(cpu, op, to)?;
        stack::release(cpu, u64::from(op.size) + op.imm);
        Ok(Step::Jump)
    };
    step_to(body(cpu))
}

fn legacy_operand(cpu: &mut Cpu, op: &Op, memory: bool) -> Fallible<u64> {
    if !memory {
        return Ok(cpu.slot(op.dst));
    }
    let la = cpu.linear_legacy(op, u64::from(op.size), AccessKind::Read)?;
    if op.size == 2 {
        cpu.load::<u16>(la).map(u64::from)
    } else {
        cpu.load::<u32>(la).map(u64::from)
    }
}

/// JMP r/m outside 64-bit mode.
pub(crate) fn jmp_rm_legacy<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let to = legacy_operand(cpu, op, MEMORY)?;
        cpu.state.rip = legacy_target(cpu, op, to)?;
        Ok(Step::Jump)
    };
    step_to(body(cpu))
}

/// CALL r/m outside 64-bit mode.
pub(crate) fn call_rm_legacy<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let to = legacy_operand(cpu, op, MEMORY)?;
        legacy_call(cpu, op, to, Step::Jump)
    };
    step_to(body(cpu))
}

/// The counter of LOOP and JrCXZ, of the address size.
fn counter(cpu: &Cpu, op: &Op) -> u64 {
    crate::cpu::truncate(cpu.state.gpr[gpr::RCX], op.address_size)
}

fn branch_if(cpu: &mut Cpu, op: &Op, taken: bool) -> Fallible<Step> {
    if cpu.mode != Mode::Long64 {
        return legacy_branch(cpu, op, taken);
    }
    if taken {
        let to = target(cpu, op);
        canonical(cpu, to)?;
        cpu.state.rip = to;
        return Ok(Step::Taken);
    }
    cpu.state.rip = cpu.next_ip(op);
    Ok(Step::Through)
}

/// JCXZ, JECXZ, JRCXZ.
pub(crate) fn jrcxz(cpu: &mut Cpu, op: &Op) -> Step {
    let taken = counter(cpu, op) == 0;
    step_to(branch_if(cpu, op, taken))
}

/// LOOP (`KIND` 0), LOOPE (1), LOOPNE (2).
pub(crate) fn loop_cc<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let count = crate::cpu::truncate(counter(cpu, op).wrapping_sub(1), op.address_size);
    let zf = cpu.state.flags.arith & ZF != 0;
    let wanted = match KIND {
        1 => zf,
        2 => !zf,
        _ => true,
    };
    let step = branch_if(cpu, op, count != 0 && wanted);
    if step.is_ok() {
        match op.address_size {
            2 => cpu.set_reg::<u16>(1, count as u16),
            4 => cpu.set_reg::<u32>(1, count as u32),
            _ => cpu.set_reg::<u64>(1, count),
        }
    }
    step_to(step)
}

/// The end of a block that does not end in a branch.
pub(crate) fn fall_through(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.state.rip = cpu.state.gpr[gpr::BLOCK_IP].wrapping_add(u64::from(op.offset));
    if cpu.mode != Mode::Long64 {
        cpu.state.rip &= 0xffff_ffff;
    }
    Step::Through
}

/// The distance that [`far_operand`] adds to an address; longer than any instruction.
pub(crate) const FAR: u64 = 16;

/// The first op of a block that `decode::far_block` makes. It performs the last op, whose
/// RIP-relative address lacks [`FAR`]. That op has no index register, so the slot that is zero
/// otherwise supplies the distance.
pub(crate) fn far_operand(cpu: &mut Cpu, op: &Op) -> Step {
    // SAFETY: `far_block` puts the op two places behind this one, in the same slice.
    let far = unsafe { &*std::ptr::from_ref(op).add(2) };
    cpu.state.gpr[gpr::ZERO] = FAR;
    let step = (far.run.get())(cpu, far);
    cpu.state.gpr[gpr::ZERO] = 0;
    step
}

/// Replaces every op of a block whose code was overwritten: the block exits at the op's start.
pub(crate) fn stale(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.state.rip = cpu.ip(op);
    Step::Again
}
