//! Loads of segment registers, far branches, and the bases of FS and GS (SDM vol. 3, 3.4 and 6.8).

use super::{set_long_or_double, transfer};
use crate::cpu::Op;
use crate::cpu::{Cpu, LEGACY, SEGMENTS};
use crate::interp::stack;
use crate::op::{Fallible, Step, step, step_to};
use x86::addr::La;
use x86::bus::AccessKind;
use x86::regs::Cr4;
use x86::state::{Seg, gpr};
use x86::{far, segment};

fn load_segment(cpu: &mut Cpu, seg: u8, selector: u16) -> Fallible {
    let seg = SEGMENTS[usize::from(seg) % 6];
    let (_, state, mut bus) = cpu.parts();
    let result = segment::load_data_segment(state, &mut bus, seg, selector);
    cpu.check(result)?;
    if seg == Seg::Ss {
        cpu.state.blocking.mov_ss = true;
    }
    Ok(())
}

/// MOV Sreg (`dst`), r/m16.
pub(crate) fn mov_seg<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let selector = if MEMORY {
            let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Read)?;
            cpu.load::<u16>(la)?
        } else {
            cpu.reg::<u16>(op.src)
        };
        load_segment(cpu, op.dst, selector)?;
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

/// POP Sreg.
pub(crate) fn pop_seg(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let selector = stack::peek(cpu, 2, 0)?;
        // The stack pointer moves by the old segment's size.
        let before = cpu.state.gpr[gpr::RSP];
        stack::release(cpu, u64::from(op.size));
        if let Err(fault) = load_segment(cpu, op.dst, selector as u16) {
            cpu.state.gpr[gpr::RSP] = before;
            return Err(fault);
        }
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

/// A far pointer in memory: offset of `op.size` bytes, then the selector.
fn far_pointer(cpu: &mut Cpu, op: &Op) -> Fallible<(u16, u64)> {
    let size = u64::from(op.size);
    let la = cpu.part(op, 0, size, AccessKind::Read)?;
    let offset = match op.size {
        2 => u64::from(cpu.load::<u16>(la)?),
        4 => u64::from(cpu.load::<u32>(la)?),
        _ => cpu.load::<u64>(la)?,
    };
    let la = cpu.part(op, size, 2, AccessKind::Read)?;
    Ok((cpu.load::<u16>(la)?, offset))
}

/// LES, LDS, LSS, LFS, LGS: register `dst`, segment `src`.
pub(crate) fn load_far(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let (selector, offset) = far_pointer(cpu, op)?;
        load_segment(cpu, op.src, selector)?;
        cpu.state.blocking.mov_ss = false;
        match op.size {
            2 => cpu.set_reg::<u16>(op.dst, offset as u16),
            4 => cpu.set_reg::<u32>(op.dst, offset as u32),
            _ => cpu.set_reg::<u64>(op.dst, offset),
        }
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

/// JMP far and CALL far; the pointer is immediate (`imm`: offset, selector in `disp`) or in memory.
pub(crate) fn far_branch<const CALL: bool, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let pointer = if MEMORY { far_pointer(cpu, op) } else { Ok((op.disp as u16, op.imm)) };
    let Ok((selector, offset)) = pointer else { return Step::Fault };
    let size = op.width();
    transfer(cpu, op, |state, bus, next| {
        if CALL {
            far::far_call(state, bus, selector, offset, size, next)
        } else {
            far::far_jump(state, bus, selector, offset, size, next)
        }
    })
}

/// RET far, releasing `imm` bytes.
pub(crate) fn far_return(cpu: &mut Cpu, op: &Op) -> Step {
    let (size, bytes) = (op.width(), op.imm as u16);
    transfer(cpu, op, |state, bus, _| far::far_return(state, bus, size, bytes))
}

/// RDFSBASE (`imm` 4), RDGSBASE (5), into `dst`.
pub(crate) fn read_base(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        fsgsbase(cpu)?;
        let base = cpu.state.seg[op.imm as usize % 6].base;
        set_long_or_double(cpu, op, base);
        Ok(())
    };
    step(body(cpu))
}

/// WRFSBASE, WRGSBASE from `dst`.
pub(crate) fn write_base(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        fsgsbase(cpu)?;
        let base =
            if op.size == 8 { cpu.reg::<u64>(op.dst) } else { u64::from(cpu.reg::<u32>(op.dst)) };
        if !La(base).is_canonical() {
            return cpu.gp();
        }
        cpu.state.seg[op.imm as usize % 6].base = base;
        Ok(())
    };
    step(body(cpu))
}

fn fsgsbase(cpu: &mut Cpu) -> Fallible {
    if cpu.state.paging.cr4.contains(Cr4::FSGSBASE) { Ok(()) } else { cpu.ud() }
}
