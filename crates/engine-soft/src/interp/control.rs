//! Near control flow: Jcc, JMP, CALL, RET, LOOP, and the ends of blocks.
//!
//! Direct targets are kept relative to the block's start, so that a block runs at any linear
//! address.
#![allow(unsafe_code)] // the op behind `far_operand`; see docs/UNSAFE.md

use super::stack;
use crate::alu::{CF, OF, PF, SF, ZF};
use crate::core::Core;
use crate::core::Op;
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
fn target(core: &Core, op: &Op) -> u64 {
    core.state.gpr[gpr::BLOCK_IP].wrapping_add(op.imm)
}

/// Jcc in 64-bit mode.
pub(crate) fn jcc<const CC: u8>(core: &mut Core, op: &Op) -> Step {
    if condition::<CC>(core.state.flags.arith) {
        core.state.rip = target(core, op);
        Step::Taken
    } else {
        core.state.rip = core.ip(op).wrapping_add(u64::from(op.len));
        Step::Through
    }
}

/// JMP rel in 64-bit mode.
pub(crate) fn jmp(core: &mut Core, op: &Op) -> Step {
    core.state.rip = target(core, op);
    Step::Taken
}

/// CALL rel in 64-bit mode.
pub(crate) fn call(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let to = target(core, op);
        canonical(core, to)?;
        let back = core.ip(op).wrapping_add(u64::from(op.len));
        stack::push64(core, back)?;
        core.state.rip = to;
        Ok(Step::Taken)
    };
    step_to(body(core))
}

/// RET in 64-bit mode, releasing `imm` bytes.
pub(crate) fn ret(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let rsp = core.state.gpr[gpr::RSP];
        let to = core.load::<u64>(rsp)?;
        canonical(core, to)?;
        core.state.gpr[gpr::RSP] = rsp.wrapping_add(8).wrapping_add(op.imm);
        core.state.rip = to;
        Ok(Step::Jump)
    };
    step_to(body(core))
}

#[inline(always)]
fn canonical(core: &mut Core, to: u64) -> Fallible {
    if La(to).is_canonical() { Ok(()) } else { core.gp() }
}

/// JMP r64.
pub(crate) fn jmp_r(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let to = core.reg::<u64>(op.dst);
        canonical(core, to)?;
        core.state.rip = to;
        Ok(Step::Jump)
    };
    step_to(body(core))
}

/// JMP [mem64].
pub(crate) fn jmp_m<const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let la = core.linear::<A>(op, 8, AccessKind::Read)?;
        let to = core.load::<u64>(la)?;
        canonical(core, to)?;
        core.state.rip = to;
        Ok(Step::Jump)
    };
    step_to(body(core))
}

/// CALL writes the return address before it checks the target. Intel's processors and Zen 5 do so:
/// the address stays in memory when the target is not canonical. SDM vol. 2, CALL, and Zen 3 check
/// first.
fn call_to(core: &mut Core, op: &Op, to: u64) -> Fallible<Step> {
    let back = core.ip(op).wrapping_add(u64::from(op.len));
    let rsp = core.state.gpr[gpr::RSP];
    stack::push64(core, back)?;
    if !La(to).is_canonical() {
        core.state.gpr[gpr::RSP] = rsp;
        return core.gp();
    }
    core.state.rip = to;
    Ok(Step::Jump)
}

/// CALL r64.
pub(crate) fn call_r(core: &mut Core, op: &Op) -> Step {
    let to = core.reg::<u64>(op.dst);
    step_to(call_to(core, op, to))
}

/// CALL [mem64].
pub(crate) fn call_m<const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let la = core.linear::<A>(op, 8, AccessKind::Read)?;
        let to = core.load::<u64>(la)?;
        call_to(core, op, to)
    };
    step_to(body(core))
}

/// Wraps `to` to the operand size and checks it against the code segment's limit, outside 64-bit
/// mode.
fn legacy_target(core: &mut Core, op: &Op, to: u64) -> Fallible<u64> {
    let to = if op.size == 2 { to & 0xffff } else { to & 0xffff_ffff };
    if to > u64::from(core.state.seg[Seg::Cs as usize].limit) { core.gp() } else { Ok(to) }
}

fn legacy_branch(core: &mut Core, op: &Op, taken: bool) -> Fallible<Step> {
    if taken {
        let to = target(core, op);
        core.state.rip = legacy_target(core, op, to)?;
        Ok(Step::Taken)
    } else {
        core.state.rip = core.next_ip(op);
        Ok(Step::Through)
    }
}

/// Jcc outside 64-bit mode.
pub(crate) fn jcc_legacy<const CC: u8>(core: &mut Core, op: &Op) -> Step {
    let taken = condition::<CC>(core.state.flags.arith);
    step_to(legacy_branch(core, op, taken))
}

/// JMP rel outside 64-bit mode.
pub(crate) fn jmp_legacy(core: &mut Core, op: &Op) -> Step {
    step_to(legacy_branch(core, op, true))
}

/// CALL rel outside 64-bit mode.
pub(crate) fn call_legacy(core: &mut Core, op: &Op) -> Step {
    let to = target(core, op);
    step_to(legacy_call(core, op, to, Step::Taken))
}

fn legacy_call(core: &mut Core, op: &Op, to: u64, step: Step) -> Fallible<Step> {
    let to = legacy_target(core, op, to)?;
    let back = core.next_ip(op);
    stack::push(core, op.size, back)?;
    core.state.rip = to;
    Ok(step)
}

/// RET outside 64-bit mode.
pub(crate) fn ret_legacy(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let to = stack::peek(core, op.size, 0)?;
        core.state.rip = legacy_target(core, op, to)?;
        stack::release(core, u64::from(op.size) + op.imm);
        Ok(Step::Jump)
    };
    step_to(body(core))
}

fn legacy_operand(core: &mut Core, op: &Op, memory: bool) -> Fallible<u64> {
    if !memory {
        return Ok(core.slot(op.dst));
    }
    let la = core.linear_legacy(op, u64::from(op.size), AccessKind::Read)?;
    if op.size == 2 {
        core.load::<u16>(la).map(u64::from)
    } else {
        core.load::<u32>(la).map(u64::from)
    }
}

/// JMP r/m outside 64-bit mode.
pub(crate) fn jmp_rm_legacy<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let to = legacy_operand(core, op, MEMORY)?;
        core.state.rip = legacy_target(core, op, to)?;
        Ok(Step::Jump)
    };
    step_to(body(core))
}

/// CALL r/m outside 64-bit mode.
pub(crate) fn call_rm_legacy<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let to = legacy_operand(core, op, MEMORY)?;
        legacy_call(core, op, to, Step::Jump)
    };
    step_to(body(core))
}

/// The counter of LOOP and JrCXZ, of the address size.
fn counter(core: &Core, op: &Op) -> u64 {
    crate::core::truncate(core.state.gpr[gpr::RCX], op.address_size)
}

fn branch_if(core: &mut Core, op: &Op, taken: bool) -> Fallible<Step> {
    if core.mode != Mode::Long64 {
        return legacy_branch(core, op, taken);
    }
    if taken {
        let to = target(core, op);
        canonical(core, to)?;
        core.state.rip = to;
        return Ok(Step::Taken);
    }
    core.state.rip = core.next_ip(op);
    Ok(Step::Through)
}

/// JCXZ, JECXZ, JRCXZ.
pub(crate) fn jrcxz(core: &mut Core, op: &Op) -> Step {
    let taken = counter(core, op) == 0;
    step_to(branch_if(core, op, taken))
}

/// LOOP (`KIND` 0), LOOPE (1), LOOPNE (2).
pub(crate) fn loop_cc<const KIND: u8>(core: &mut Core, op: &Op) -> Step {
    let count = crate::core::truncate(counter(core, op).wrapping_sub(1), op.address_size);
    let zf = core.state.flags.arith & ZF != 0;
    let wanted = match KIND {
        1 => zf,
        2 => !zf,
        _ => true,
    };
    let step = branch_if(core, op, count != 0 && wanted);
    if step.is_ok() {
        match op.address_size {
            2 => core.set_reg::<u16>(1, count as u16),
            4 => core.set_reg::<u32>(1, count as u32),
            _ => core.set_reg::<u64>(1, count),
        }
    }
    step_to(step)
}

/// The end of a block that does not end in a branch.
pub(crate) fn fall_through(core: &mut Core, op: &Op) -> Step {
    core.state.rip = core.state.gpr[gpr::BLOCK_IP].wrapping_add(u64::from(op.offset));
    if core.mode != Mode::Long64 {
        core.state.rip &= 0xffff_ffff;
    }
    Step::Through
}

/// The distance that [`far_operand`] adds to an address; longer than any instruction.
pub(crate) const FAR: u64 = 16;

/// The first op of a block that `decode::far_block` makes. It performs the last op, whose
/// RIP-relative address lacks [`FAR`]. That op has no index register, so the slot that is zero
/// otherwise supplies the distance.
pub(crate) fn far_operand(core: &mut Core, op: &Op) -> Step {
    // SAFETY: `far_block` puts the op two places behind this one, in the same slice.
    let far = unsafe { &*std::ptr::from_ref(op).add(2) };
    core.state.gpr[gpr::ZERO] = FAR;
    let step = (far.run.get())(core, far);
    core.state.gpr[gpr::ZERO] = 0;
    step
}

/// Replaces every op of a block whose code was overwritten: the block exits at the op's start.
pub(crate) fn stale(core: &mut Core, op: &Op) -> Step {
    core.state.rip = core.ip(op);
    Step::Again
}
