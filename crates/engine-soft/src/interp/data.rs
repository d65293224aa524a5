//! Data movement: MOV and its extensions, LEA, XCHG, CMOVcc, SETcc, BSWAP, XLAT.

use super::control::condition;
use crate::cpu::Op;
use crate::cpu::{Cpu, LEGACY, truncate};
use crate::op::{Fallible, Step, step};
use crate::word::Word;
use x86::bus::AccessKind;

/// MOV dst, src.
pub(crate) fn mov_rr<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.set_reg::<W>(op.dst, cpu.reg(op.src));
    Step::Next
}

/// MOV dst, imm.
pub(crate) fn mov_ri<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.set_reg::<W>(op.dst, W::cut(op.imm));
    Step::Next
}

/// MOV dst, [mem].
pub(crate) fn mov_rm<W: Word, const A: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let la = cpu.linear::<A>(op, u64::from(W::SIZE), AccessKind::Read)?;
        let value = cpu.load::<W>(la)?;
        cpu.set_reg::<W>(op.dst, value);
        Ok(())
    };
    step(body(cpu))
}

/// MOV [mem], src.
pub(crate) fn mov_mr<W: Word, const A: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let la = cpu.linear::<A>(op, u64::from(W::SIZE), AccessKind::Write)?;
        let value = cpu.reg::<W>(op.src);
        cpu.store::<W>(la, value)
    };
    step(body(cpu))
}

/// MOV [mem], imm.
pub(crate) fn mov_mi<W: Word, const A: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let la = cpu.linear::<A>(op, u64::from(W::SIZE), AccessKind::Write)?;
        cpu.store::<W>(la, W::cut(op.imm))
    };
    step(body(cpu))
}

/// MOV rAX, [moffs] with the absolute address in `imm`.
pub(crate) fn mov_a_moffs<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let offset = truncate(op.imm, op.address_size);
        let la = cpu.segmented(op.seg, offset, u64::from(W::SIZE), AccessKind::Read)?;
        let value = cpu.load::<W>(la)?;
        cpu.set_reg::<W>(0, value);
        Ok(())
    };
    step(body(cpu))
}

/// MOV [moffs], rAX.
pub(crate) fn mov_moffs_a<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let offset = truncate(op.imm, op.address_size);
        let la = cpu.segmented(op.seg, offset, u64::from(W::SIZE), AccessKind::Write)?;
        let value = cpu.reg::<W>(0);
        cpu.store::<W>(la, value)
    };
    step(body(cpu))
}

/// MOVZX dst, src.
pub(crate) fn movzx_rr<D: Word, S: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.set_reg::<D>(op.dst, D::cut(cpu.reg::<S>(op.src).zext()));
    Step::Next
}

/// MOVSX, MOVSXD dst, src.
pub(crate) fn movsx_rr<D: Word, S: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.set_reg::<D>(op.dst, D::cut(cpu.reg::<S>(op.src).sext()));
    Step::Next
}

/// MOVZX dst, [mem].
pub(crate) fn movzx_rm<D: Word, S: Word, const A: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let la = cpu.linear::<A>(op, u64::from(S::SIZE), AccessKind::Read)?;
        let value = cpu.load::<S>(la)?;
        cpu.set_reg::<D>(op.dst, D::cut(value.zext()));
        Ok(())
    };
    step(body(cpu))
}

/// MOVSX, MOVSXD dst, [mem].
pub(crate) fn movsx_rm<D: Word, S: Word, const A: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let la = cpu.linear::<A>(op, u64::from(S::SIZE), AccessKind::Read)?;
        let value = cpu.load::<S>(la)?;
        cpu.set_reg::<D>(op.dst, D::cut(value.sext()));
        Ok(())
    };
    step(body(cpu))
}

/// LEA.
pub(crate) fn lea<W: Word, const A: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let address = if A == LEGACY { cpu.offset(op) } else { cpu.effective(op) };
    cpu.set_reg::<W>(op.dst, W::cut(address));
    Step::Next
}

/// XCHG of two registers. With memory it is locked, and a thunk performs it.
pub(crate) fn xchg_rr<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    let (a, b) = (cpu.reg::<W>(op.dst), cpu.reg::<W>(op.src));
    cpu.set_reg::<W>(op.dst, b);
    cpu.set_reg::<W>(op.src, a);
    Step::Next
}

/// CMOVcc dst, src. A 32-bit destination is cleared above bit 31 even if the condition is false.
pub(crate) fn cmov_rr<W: Word, const CC: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let from = if condition::<CC>(cpu.state.flags.arith) { op.src } else { op.dst };
    cpu.set_reg::<W>(op.dst, cpu.reg(from));
    Step::Next
}

/// CMOVcc dst, [mem]. The load happens in either case.
pub(crate) fn cmov_rm<W: Word, const CC: u8, const A: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let la = cpu.linear::<A>(op, u64::from(W::SIZE), AccessKind::Read)?;
        let value = cpu.load::<W>(la)?;
        let chosen =
            if condition::<CC>(cpu.state.flags.arith) { value } else { cpu.reg::<W>(op.dst) };
        cpu.set_reg::<W>(op.dst, chosen);
        Ok(())
    };
    step(body(cpu))
}

/// SETcc dst.
pub(crate) fn set_r<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.set_reg::<u8>(op.dst, u8::from(condition::<CC>(cpu.state.flags.arith)));
    Step::Next
}

/// SETcc [mem].
pub(crate) fn set_m<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let la = cpu.linear::<LEGACY>(op, 1, AccessKind::Write)?;
        cpu.store::<u8>(la, u8::from(condition::<CC>(cpu.state.flags.arith)))
    };
    step(body(cpu))
}

/// BSWAP. With a 16-bit operand, which the manual leaves undefined, processors clear it.
pub(crate) fn bswap(cpu: &mut Cpu, op: &Op) -> Step {
    match op.size {
        2 => cpu.set_reg::<u16>(op.dst, 0),
        4 => cpu.set_reg::<u32>(op.dst, cpu.reg::<u32>(op.dst).swap_bytes()),
        _ => cpu.set_reg::<u64>(op.dst, cpu.reg::<u64>(op.dst).swap_bytes()),
    }
    Step::Next
}

/// XLAT: AL = [rBX + AL].
pub(crate) fn xlat(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let offset = cpu.state.gpr[3].wrapping_add(u64::from(cpu.reg::<u8>(0)));
        let la = cpu.segmented(op.seg, truncate(offset, op.address_size), 1, AccessKind::Read)?;
        let value = cpu.load::<u8>(la)?;
        cpu.set_reg::<u8>(0, value);
        Ok(())
    };
    step(body(cpu))
}

/// NOP, ENDBR, PREFETCHx.
pub(crate) fn nop(_: &mut Cpu, _: &Op) -> Step {
    Step::Next
}

/// LAHF.
pub(crate) fn lahf(cpu: &mut Cpu, _: &Op) -> Step {
    let image = cpu.state.flags.bits() as u8;
    cpu.set_reg::<u8>(crate::word::HIGH_BYTE, image);
    Step::Next
}

/// SAHF.
pub(crate) fn sahf(cpu: &mut Cpu, _: &Op) -> Step {
    let image = u16::from(cpu.reg::<u8>(crate::word::HIGH_BYTE)) & 0xd5 | 2;
    cpu.state.flags.arith = image << 8 | cpu.state.flags.arith & 1;
    Step::Next
}

/// CLC.
pub(crate) fn clc(cpu: &mut Cpu, _: &Op) -> Step {
    cpu.state.flags.arith &= !crate::alu::CF;
    Step::Next
}

/// STC.
pub(crate) fn stc(cpu: &mut Cpu, _: &Op) -> Step {
    cpu.state.flags.arith |= crate::alu::CF;
    Step::Next
}

/// CMC.
pub(crate) fn cmc(cpu: &mut Cpu, _: &Op) -> Step {
    cpu.state.flags.arith ^= crate::alu::CF;
    Step::Next
}

/// CLD.
pub(crate) fn cld(cpu: &mut Cpu, _: &Op) -> Step {
    cpu.state.flags.system &= !x86::regs::Rflags::DF.bits();
    Step::Next
}

/// STD.
pub(crate) fn std(cpu: &mut Cpu, _: &Op) -> Step {
    cpu.state.flags.system |= x86::regs::Rflags::DF.bits();
    Step::Next
}
