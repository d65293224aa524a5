//! Data movement: MOV and its extensions, LEA, XCHG, CMOVcc, SETcc, BSWAP, XLAT.

use super::control::condition;
use crate::core::Op;
use crate::core::{Core, LEGACY, truncate};
use crate::op::{Fallible, Step, step};
use crate::word::Word;
use x86::bus::AccessKind;

/// MOV dst, src.
pub(crate) fn mov_rr<W: Word>(core: &mut Core, op: &Op) -> Step {
    core.set_reg::<W>(op.dst, core.reg(op.src));
    Step::Next
}

/// MOV dst, imm.
pub(crate) fn mov_ri<W: Word>(core: &mut Core, op: &Op) -> Step {
    core.set_reg::<W>(op.dst, W::cut(op.imm));
    Step::Next
}

/// MOV dst, [mem].
pub(crate) fn mov_rm<W: Word, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Read)?;
        let value = core.load::<W>(la)?;
        core.set_reg::<W>(op.dst, value);
        Ok(())
    };
    step(body(core))
}

/// MOV [mem], src.
pub(crate) fn mov_mr<W: Word, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Write)?;
        let value = core.reg::<W>(op.src);
        core.store::<W>(la, value)
    };
    step(body(core))
}

/// MOV [mem], imm.
pub(crate) fn mov_mi<W: Word, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Write)?;
        core.store::<W>(la, W::cut(op.imm))
    };
    step(body(core))
}

/// MOV rAX, [moffs] with the absolute address in `imm`.
pub(crate) fn mov_a_moffs<W: Word>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let offset = truncate(op.imm, op.address_size);
        let la = core.segmented(op.seg, offset, u64::from(W::SIZE), AccessKind::Read)?;
        let value = core.load::<W>(la)?;
        core.set_reg::<W>(0, value);
        Ok(())
    };
    step(body(core))
}

/// MOV [moffs], rAX.
pub(crate) fn mov_moffs_a<W: Word>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let offset = truncate(op.imm, op.address_size);
        let la = core.segmented(op.seg, offset, u64::from(W::SIZE), AccessKind::Write)?;
        let value = core.reg::<W>(0);
        core.store::<W>(la, value)
    };
    step(body(core))
}

/// MOVZX dst, src.
pub(crate) fn movzx_rr<D: Word, S: Word>(core: &mut Core, op: &Op) -> Step {
    core.set_reg::<D>(op.dst, D::cut(core.reg::<S>(op.src).zext()));
    Step::Next
}

/// MOVSX, MOVSXD dst, src.
pub(crate) fn movsx_rr<D: Word, S: Word>(core: &mut Core, op: &Op) -> Step {
    core.set_reg::<D>(op.dst, D::cut(core.reg::<S>(op.src).sext()));
    Step::Next
}

/// MOVZX dst, [mem].
pub(crate) fn movzx_rm<D: Word, S: Word, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(S::SIZE), AccessKind::Read)?;
        let value = core.load::<S>(la)?;
        core.set_reg::<D>(op.dst, D::cut(value.zext()));
        Ok(())
    };
    step(body(core))
}

/// MOVSX, MOVSXD dst, [mem].
pub(crate) fn movsx_rm<D: Word, S: Word, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(S::SIZE), AccessKind::Read)?;
        let value = core.load::<S>(la)?;
        core.set_reg::<D>(op.dst, D::cut(value.sext()));
        Ok(())
    };
    step(body(core))
}

/// LEA.
pub(crate) fn lea<W: Word, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let address = if A == LEGACY { core.offset(op) } else { core.effective(op) };
    core.set_reg::<W>(op.dst, W::cut(address));
    Step::Next
}

/// XCHG of two registers. With memory it is locked, and a thunk performs it.
pub(crate) fn xchg_rr<W: Word>(core: &mut Core, op: &Op) -> Step {
    let (a, b) = (core.reg::<W>(op.dst), core.reg::<W>(op.src));
    core.set_reg::<W>(op.dst, b);
    core.set_reg::<W>(op.src, a);
    Step::Next
}

/// CMOVcc dst, src. A 32-bit destination is cleared above bit 31 even if the condition is false.
pub(crate) fn cmov_rr<W: Word, const CC: u8>(core: &mut Core, op: &Op) -> Step {
    let from = if condition::<CC>(core.state.flags.arith) { op.src } else { op.dst };
    core.set_reg::<W>(op.dst, core.reg(from));
    Step::Next
}

/// CMOVcc dst, [mem]. The load happens in either case.
pub(crate) fn cmov_rm<W: Word, const CC: u8, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Read)?;
        let value = core.load::<W>(la)?;
        let chosen =
            if condition::<CC>(core.state.flags.arith) { value } else { core.reg::<W>(op.dst) };
        core.set_reg::<W>(op.dst, chosen);
        Ok(())
    };
    step(body(core))
}

/// SETcc dst.
pub(crate) fn set_r<const CC: u8>(core: &mut Core, op: &Op) -> Step {
    core.set_reg::<u8>(op.dst, u8::from(condition::<CC>(core.state.flags.arith)));
    Step::Next
}

/// SETcc [mem].
pub(crate) fn set_m<const CC: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<LEGACY>(op, 1, AccessKind::Write)?;
        core.store::<u8>(la, u8::from(condition::<CC>(core.state.flags.arith)))
    };
    step(body(core))
}

/// BSWAP. With a 16-bit operand, which the manual leaves undefined, processors clear it.
pub(crate) fn bswap(core: &mut Core, op: &Op) -> Step {
    match op.size {
        2 => core.set_reg::<u16>(op.dst, 0),
        4 => core.set_reg::<u32>(op.dst, core.reg::<u32>(op.dst).swap_bytes()),
        _ => core.set_reg::<u64>(op.dst, core.reg::<u64>(op.dst).swap_bytes()),
    }
    Step::Next
}

/// XLAT: AL = [rBX + AL].
pub(crate) fn xlat(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let offset = core.state.gpr[3].wrapping_add(u64::from(core.reg::<u8>(0)));
        let la = core.segmented(op.seg, truncate(offset, op.address_size), 1, AccessKind::Read)?;
        let value = core.load::<u8>(la)?;
        core.set_reg::<u8>(0, value);
        Ok(())
    };
    step(body(core))
}

/// NOP, ENDBR, PREFETCHx.
pub(crate) fn nop(_: &mut Core, _: &Op) -> Step {
    Step::Next
}

/// LAHF.
pub(crate) fn lahf(core: &mut Core, _: &Op) -> Step {
    let image = core.state.flags.bits() as u8;
    core.set_reg::<u8>(crate::word::HIGH_BYTE, image);
    Step::Next
}

/// SAHF.
pub(crate) fn sahf(core: &mut Core, _: &Op) -> Step {
    let image = u16::from(core.reg::<u8>(crate::word::HIGH_BYTE)) & 0xd5 | 2;
    core.state.flags.arith = image << 8 | core.state.flags.arith & 1;
    Step::Next
}

/// CLC.
pub(crate) fn clc(core: &mut Core, _: &Op) -> Step {
    core.state.flags.arith &= !crate::alu::CF;
    Step::Next
}

/// STC.
pub(crate) fn stc(core: &mut Core, _: &Op) -> Step {
    core.state.flags.arith |= crate::alu::CF;
    Step::Next
}

/// CMC.
pub(crate) fn cmc(core: &mut Core, _: &Op) -> Step {
    core.state.flags.arith ^= crate::alu::CF;
    Step::Next
}

/// CLD.
pub(crate) fn cld(core: &mut Core, _: &Op) -> Step {
    core.state.flags.system &= !x86::regs::Rflags::DF.bits();
    Step::Next
}

/// STD.
pub(crate) fn std(core: &mut Core, _: &Op) -> Step {
    core.state.flags.system |= x86::regs::Rflags::DF.bits();
    Step::Next
}
