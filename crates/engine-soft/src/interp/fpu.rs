//! Floating-point and vector instructions that no thunk runs: images of the units' state in memory,
//! masked moves, gathers.

use crate::cpu::Handler;
use crate::cpu::Op;
use crate::cpu::{Bus, Cpu, LEGACY, SEGMENTS};
use crate::fault::AccessFault;
use crate::interp::host_exec;
use crate::op::{Fallible, Step, step, step_to, width};
use crate::thunk::masked::{self, Element, ElementBus};
use iced_x86::{Instruction, Mnemonic as M};
use x86::addr::La;
use x86::bus::{AccessKind, Privilege};
use x86::exception::Exception;
use x86::state::{CpuState, Mode};
use x86::xsave::{self, RestoreForm, SaveForm};

/// `Op::imm` of [`save`] and [`restore`].
#[derive(Clone, Copy)]
#[repr(u64)]
enum Image {
    Fx,
    Xsave,
    Xsaveopt,
    Xsavec,
    Xsaves,
    Environment,
    Whole,
    Mxcsr,
}

/// Selects the handler of an instruction that saves or restores a state image.
pub(crate) fn select(i: &Instruction, op: &mut Op) -> Option<Handler> {
    use Image::*;
    let (image, wide, run): (_, _, Handler) = match i.mnemonic() {
        M::Fxsave => (Fx, false, save),
        M::Fxsave64 => (Fx, true, save),
        M::Xsave => (Xsave, false, save),
        M::Xsave64 => (Xsave, true, save),
        M::Xsaveopt => (Xsaveopt, false, save),
        M::Xsaveopt64 => (Xsaveopt, true, save),
        M::Xsavec => (Xsavec, false, save),
        M::Xsavec64 => (Xsavec, true, save),
        M::Xsaves => (Xsaves, false, save),
        M::Xsaves64 => (Xsaves, true, save),
        M::Fxrstor => (Fx, false, restore),
        M::Fxrstor64 => (Fx, true, restore),
        M::Xrstor => (Xsave, false, restore),
        M::Xrstor64 => (Xsave, true, restore),
        M::Xrstors => (Xsaves, false, restore),
        M::Xrstors64 => (Xsaves, true, restore),
        M::Fnstenv | M::Fstenv => (Environment, i.memory_size().size() == 28, save),
        M::Fldenv => (Environment, i.memory_size().size() == 28, restore),
        M::Fnsave | M::Fsave => (Whole, i.memory_size().size() == 108, save),
        M::Frstor => (Whole, i.memory_size().size() == 108, restore),
        M::Ldmxcsr => (Mxcsr, false, ldmxcsr),
        M::Stmxcsr | M::Vstmxcsr => (Mxcsr, false, stmxcsr),
        M::Vldmxcsr => (Mxcsr, false, ldmxcsr),
        M::Fninit | M::Finit => (Whole, false, fninit),
        _ => return None,
    };
    op.imm = image as u64;
    let narrow = if matches!(image, Environment | Whole) { 2 } else { 4 };
    op.size = narrow << u8::from(wide);
    op.dst = u8::from(matches!(i.mnemonic(), M::Vldmxcsr | M::Vstmxcsr));
    Some(run)
}

/// Checks that come before the accesses of an environment or a whole x87 image: first the unit's
/// own exceptions, then a canonical address, then alignment by operand size (SDM vol. 3, table
/// 7-7). The alignments of FXSAVE (16) and XSAVE (64) are checked with their images.
fn place(cpu: &mut Cpu, op: &Op, kind: AccessKind) -> Fallible {
    if op.imm != Image::Environment as u64 && op.imm != Image::Whole as u64 {
        return Ok(());
    }
    let available = xsave::x87_available(&cpu.state);
    cpu.check(available)?;
    if kind == AccessKind::Read {
        let pending = xsave::x87_pending(&cpu.state);
        cpu.check(pending)?;
    }
    let field = u64::from(op.size);
    let first = cpu.operand(op).part(&cpu.state, 0, u32::from(op.size), kind);
    let la = cpu.check(first)?;
    cpu.aligned(la.0, field, field)
}

fn mask(cpu: &Cpu) -> u64 {
    u64::from(cpu.reg::<u32>(2)) << 32 | u64::from(cpu.reg::<u32>(0))
}

fn save(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let size = op.width();
        place(cpu, op, AccessKind::Write)?;
        let (operand, mask) = (cpu.operand(op), mask(cpu));
        let (model, state, mut bus) = cpu.parts();
        let bus = &mut bus;
        let form = match op.imm {
            x if x == Image::Fx as u64 => {
                let result = xsave::fxsave(state, bus, operand, size);
                return cpu.check(result);
            }
            x if x == Image::Environment as u64 => {
                let result = xsave::fnstenv(state, bus, operand, size);
                return cpu.check(result);
            }
            x if x == Image::Whole as u64 => {
                let result = xsave::fnsave(state, bus, operand, size);
                return cpu.check(result);
            }
            x if x == Image::Xsaveopt as u64 => SaveForm::Xsaveopt,
            x if x == Image::Xsavec as u64 => SaveForm::Xsavec,
            x if x == Image::Xsaves as u64 => SaveForm::Xsaves,
            _ => SaveForm::Xsave,
        };
        let result = xsave::xsave(model, state, bus, form, operand, mask, size);
        cpu.check(result)
    };
    step(body(cpu))
}

fn restore(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let size = op.width();
        place(cpu, op, AccessKind::Read)?;
        let (operand, mask) = (cpu.operand(op), mask(cpu));
        let pkru = cpu.state.paging.pkru;
        let (model, state, mut bus) = cpu.parts();
        let bus = &mut bus;
        let result = match op.imm {
            x if x == Image::Fx as u64 => xsave::fxrstor(state, bus, operand, size),
            x if x == Image::Environment as u64 => xsave::fldenv(state, bus, operand, size),
            x if x == Image::Whole as u64 => xsave::frstor(state, bus, operand, size),
            x if x == Image::Xsaves as u64 => {
                xsave::xrstor(model, state, bus, RestoreForm::Xrstors, operand, mask, size)
            }
            _ => xsave::xrstor(model, state, bus, RestoreForm::Xrstor, operand, mask, size),
        };
        cpu.check(result)?;
        if cpu.state.paging.pkru != pkru {
            let paging = cpu.state.paging;
            cpu.mmu.paging_changed(&paging, x86::bus::TlbEffect::FlushAll);
        }
        Ok(())
    };
    step(body(cpu))
}

fn fninit(cpu: &mut Cpu, _: &Op) -> Step {
    let result = xsave::fninit(&mut cpu.state);
    step(cpu.check(result))
}

fn check_sse_or_avx(cpu: &mut Cpu, op: &Op) -> Fallible {
    if op.dst != 0 { host_exec::check_avx(cpu) } else { host_exec::check_sse(cpu) }
}

fn ldmxcsr(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        check_sse_or_avx(cpu, op)?;
        let la = cpu.linear::<LEGACY>(op, 4, AccessKind::Read)?;
        let value = cpu.load::<u32>(la)?;
        let result = xsave::ldmxcsr(&mut cpu.state, value);
        cpu.check(result)
    };
    step(body(cpu))
}

fn stmxcsr(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        check_sse_or_avx(cpu, op)?;
        let la = cpu.linear::<LEGACY>(op, 4, AccessKind::Write)?;
        let value = xsave::stmxcsr(&cpu.state);
        let value = cpu.check(value)?;
        cpu.store::<u32>(la, value)
    };
    step(body(cpu))
}

/// Elements of a masked move or gather in guest memory, while the processor's state is lent out.
struct Elements<'a> {
    bus: Bus<'a>,
    base: u64,
    limit_checked: Option<(CpuState, u8)>,
    privilege: Privilege,
}

impl Elements<'_> {
    fn linear(&self, offset: u64, size: u8, kind: AccessKind) -> Result<La, Exception> {
        match &self.limit_checked {
            None => Ok(La(self.base.wrapping_add(offset))),
            Some((state, seg)) => {
                let seg = SEGMENTS[usize::from(*seg) % 6];
                x86::segment::check_access(state, seg, offset, u32::from(size), kind)
            }
        }
    }
}

impl ElementBus for Elements<'_> {
    type Error = AccessFault;

    fn load(&mut self, offset: u64, size: u8) -> Result<u64, AccessFault> {
        let la = self.linear(offset, size, AccessKind::Read)?;
        self.bus.load(la, width(size), self.privilege)
    }

    fn store(&mut self, elements: &[Element], size: u8) -> Result<(), AccessFault> {
        for element in elements {
            let la = self.linear(element.offset, size, AccessKind::Write)?;
            self.bus.mmu.probe_write(la, u64::from(size), self.privilege)?;
        }
        for element in elements {
            let la = self.linear(element.offset, size, AccessKind::Write)?;
            self.bus.store(la, width(size), element.value, self.privilege)?;
        }
        Ok(())
    }
}

/// The instruction of `op`, its RIP-relative operand moved to where the block runs now.
fn instruction(cpu: &Cpu, op: &Op) -> Option<Instruction> {
    let (mut i, decoded_at) = cpu.thunks.instruction(op.imm)?;
    if i.is_ip_rel_memory_operand() {
        let moved = cpu.state.gpr[x86::state::gpr::BLOCK_IP].wrapping_sub(decoded_at);
        i.set_memory_displacement64(i.memory_displacement64().wrapping_add(moved));
    }
    Some(i)
}

fn with_elements(
    cpu: &mut Cpu,
    op: &Op,
    body: impl FnOnce(&mut CpuState, &Instruction, &mut Elements<'_>) -> Result<(), AccessFault>,
) -> Fallible {
    let Some(i) = instruction(cpu, op) else { return cpu.ud() };
    let seg = op.seg;
    let long = cpu.mode == Mode::Long64;
    let base = if long && seg >= 4 { cpu.state.seg[usize::from(seg) % 6].base } else { 0 };
    let limit_checked = (!long).then(|| (cpu.state.clone(), seg));
    let privilege = cpu.privilege();
    let (_, state, bus) = cpu.parts();
    let result = body(state, &i, &mut Elements { bus, base, limit_checked, privilege });
    cpu.check(result)
}

/// MASKMOVQ, MASKMOVDQU.
pub(crate) fn masked_move(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        match op.dst {
            0 => host_exec::check_mmx(cpu)?,
            1 => host_exec::check_sse(cpu)?,
            _ => host_exec::check_avx(cpu)?,
        }
        if op.dst == 0 && crate::thunk::x87::error_pending(&cpu.state.x87) {
            return cpu.raise(Exception::plain(x86::addr::Vector::MF));
        }
        with_elements(cpu, op, |state, i, bus| masked::masked_move(state, i, bus))
    };
    step(body(cpu))
}

/// VGATHER, VPGATHER.
pub(crate) fn gather(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        host_exec::check_avx(cpu)?;
        with_elements(cpu, op, |state, i, bus| {
            if masked::gather_is_valid(i) {
                masked::gather(state, i, bus)
            } else {
                Err(Exception::ud().into())
            }
        })
    };
    step(body(cpu))
}

/// VZEROUPPER (`size` 0), VZEROALL (1).
pub(crate) fn zero_vectors(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        host_exec::check_avx(cpu)?;
        let long = cpu.mode == Mode::Long64;
        if op.size == 0 {
            masked::zero_upper(&mut cpu.state, long);
        } else {
            masked::zero_all(&mut cpu.state, long);
        }
        Ok(Step::Next)
    };
    step_to(body(cpu))
}
