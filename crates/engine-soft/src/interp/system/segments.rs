//! Loads of segment registers, far branches, and the bases of FS and GS (SDM vol. 3, 3.4 and 6.8).

use super::{set_long_or_double, transfer};
use crate::core::Op;
use crate::core::{Core, LEGACY, SEGMENTS};
use crate::interp::stack;
use crate::op::{Fallible, Step, step, step_to};
use x86::addr::La;
use x86::bus::AccessKind;
use x86::regs::Cr4;
use x86::state::{Seg, gpr};
use x86::{far, segment};

fn load_segment(core: &mut Core, seg: u8, selector: u16) -> Fallible {
    let seg = SEGMENTS[usize::from(seg) % 6];
    let (_, state, mut bus) = core.parts();
    let result = segment::load_data_segment(state, &mut bus, seg, selector);
    core.check(result)?;
    if seg == Seg::Ss {
        core.state.blocking.mov_ss = true;
    }
    Ok(())
}

/// MOV Sreg (`dst`), r/m16.
pub(crate) fn mov_seg<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let selector = if MEMORY {
            let la = core.linear::<LEGACY>(op, 2, AccessKind::Read)?;
            core.load::<u16>(la)?
        } else {
            core.reg::<u16>(op.src)
        };
        load_segment(core, op.dst, selector)?;
        core.state.rip = core.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(core))
}

/// POP Sreg.
pub(crate) fn pop_seg(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let selector = stack::peek(core, 2, 0)?;
        // The stack pointer moves by the old segment's size.
        let before = core.state.gpr[gpr::RSP];
        stack::release(core, u64::from(op.size));
        if let Err(fault) = load_segment(core, op.dst, selector as u16) {
            core.state.gpr[gpr::RSP] = before;
            return Err(fault);
        }
        core.state.rip = core.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(core))
}

/// A far pointer in memory: offset of `op.size` bytes, then the selector.
fn far_pointer(core: &mut Core, op: &Op) -> Fallible<(u16, u64)> {
    let size = u64::from(op.size);
    let la = core.part(op, 0, size, AccessKind::Read)?;
    let offset = match op.size {
        2 => u64::from(core.load::<u16>(la)?),
        4 => u64::from(core.load::<u32>(la)?),
        _ => core.load::<u64>(la)?,
    };
    let la = core.part(op, size, 2, AccessKind::Read)?;
    Ok((core.load::<u16>(la)?, offset))
}

/// LES, LDS, LSS, LFS, LGS: register `dst`, segment `src`.
pub(crate) fn load_far(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let (selector, offset) = far_pointer(core, op)?;
        load_segment(core, op.src, selector)?;
        core.state.blocking.mov_ss = false;
        match op.size {
            2 => core.set_reg::<u16>(op.dst, offset as u16),
            4 => core.set_reg::<u32>(op.dst, offset as u32),
            _ => core.set_reg::<u64>(op.dst, offset),
        }
        core.state.rip = core.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(core))
}

/// JMP far and CALL far; the pointer is immediate (`imm`: offset, selector in `disp`) or in memory.
pub(crate) fn far_branch<const CALL: bool, const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let pointer = if MEMORY { far_pointer(core, op) } else { Ok((op.disp as u16, op.imm)) };
    let Ok((selector, offset)) = pointer else { return Step::Fault };
    let size = op.width();
    transfer(core, op, |state, bus, next| {
        if CALL {
            far::far_call(state, bus, selector, offset, size, next)
        } else {
            far::far_jump(state, bus, selector, offset, size, next)
        }
    })
}

/// RET far, releasing `imm` bytes.
pub(crate) fn far_return(core: &mut Core, op: &Op) -> Step {
    let (size, bytes) = (op.width(), op.imm as u16);
    transfer(core, op, |state, bus, _| far::far_return(state, bus, size, bytes))
}

/// RDFSBASE (`imm` 4), RDGSBASE (5), into `dst`.
pub(crate) fn read_base(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        fsgsbase(core)?;
        let base = core.state.seg[op.imm as usize % 6].base;
        set_long_or_double(core, op, base);
        Ok(())
    };
    step(body(core))
}

/// WRFSBASE, WRGSBASE from `dst`.
pub(crate) fn write_base(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        fsgsbase(core)?;
        let base =
            if op.size == 8 { core.reg::<u64>(op.dst) } else { u64::from(core.reg::<u32>(op.dst)) };
        if !La(base).is_canonical() {
            return core.gp();
        }
        core.state.seg[op.imm as usize % 6].base = base;
        Ok(())
    };
    step(body(core))
}

fn fsgsbase(core: &mut Core) -> Fallible {
    if core.state.paging.cr4.contains(Cr4::FSGSBASE) { Ok(()) } else { core.ud() }
}
