//! Floating-point and vector instructions that no thunk runs: images of the units' state in memory,
//! masked moves, gathers.

use crate::core::Handler;
use crate::core::Op;
use crate::core::{Bus, Core, LEGACY, SEGMENTS};
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
fn place(core: &mut Core, op: &Op, kind: AccessKind) -> Fallible {
    if op.imm != Image::Environment as u64 && op.imm != Image::Whole as u64 {
        return Ok(());
    }
    let available = xsave::x87_available(&core.state);
    core.check(available)?;
    if kind == AccessKind::Read {
        let pending = xsave::x87_pending(&core.state);
        core.check(pending)?;
    }
    let field = u64::from(op.size);
    let first = core.operand(op).part(&core.state, 0, u32::from(op.size), kind);
    let la = core.check(first)?;
    core.aligned(la.0, field, field)
}

fn mask(core: &Core) -> u64 {
    u64::from(core.reg::<u32>(2)) << 32 | u64::from(core.reg::<u32>(0))
}

fn save(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let size = op.width();
        place(core, op, AccessKind::Write)?;
        let (operand, mask) = (core.operand(op), mask(core));
        let (model, state, mut bus) = core.parts();
        let bus = &mut bus;
        let form = match op.imm {
            x if x == Image::Fx as u64 => {
                let result = xsave::fxsave(state, bus, operand, size);
                return core.check(result);
            }
            x if x == Image::Environment as u64 => {
                let result = xsave::fnstenv(state, bus, operand, size);
                return core.check(result);
            }
            x if x == Image::Whole as u64 => {
                let result = xsave::fnsave(state, bus, operand, size);
                return core.check(result);
            }
            x if x == Image::Xsaveopt as u64 => SaveForm::Xsaveopt,
            x if x == Image::Xsavec as u64 => SaveForm::Xsavec,
            x if x == Image::Xsaves as u64 => SaveForm::Xsaves,
            _ => SaveForm::Xsave,
        };
        let result = xsave::xsave(model, state, bus, form, operand, mask, size);
        core.check(result)
    };
    step(body(core))
}

fn restore(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let size = op.width();
        place(core, op, AccessKind::Read)?;
        let (operand, mask) = (core.operand(op), mask(core));
        let pkru = core.state.paging.pkru;
        let (model, state, mut bus) = core.parts();
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
        core.check(result)?;
        if core.state.paging.pkru != pkru {
            let paging = core.state.paging;
            core.mmu.paging_changed(&paging, x86::bus::TlbEffect::FlushAll);
        }
        Ok(())
    };
    step(body(core))
}

fn fninit(core: &mut Core, _: &Op) -> Step {
    let result = xsave::fninit(&mut core.state);
    step(core.check(result))
}

fn check_sse_or_avx(core: &mut Core, op: &Op) -> Fallible {
    if op.dst != 0 { host_exec::check_avx(core) } else { host_exec::check_sse(core) }
}

fn ldmxcsr(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        check_sse_or_avx(core, op)?;
        let la = core.linear::<LEGACY>(op, 4, AccessKind::Read)?;
        let value = core.load::<u32>(la)?;
        let result = xsave::ldmxcsr(&mut core.state, value);
        core.check(result)
    };
    step(body(core))
}

fn stmxcsr(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        check_sse_or_avx(core, op)?;
        let la = core.linear::<LEGACY>(op, 4, AccessKind::Write)?;
        let value = xsave::stmxcsr(&core.state);
        let value = core.check(value)?;
        core.store::<u32>(la, value)
    };
    step(body(core))
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
fn instruction(core: &Core, op: &Op) -> Option<Instruction> {
    let (mut i, decoded_at) = core.thunks.instruction(op.imm)?;
    if i.is_ip_rel_memory_operand() {
        let moved = core.state.gpr[x86::state::gpr::BLOCK_IP].wrapping_sub(decoded_at);
        i.set_memory_displacement64(i.memory_displacement64().wrapping_add(moved));
    }
    Some(i)
}

fn with_elements(
    core: &mut Core,
    op: &Op,
    body: impl FnOnce(&mut CpuState, &Instruction, &mut Elements<'_>) -> Result<(), AccessFault>,
) -> Fallible {
    let Some(i) = instruction(core, op) else { return core.ud() };
    let seg = op.seg;
    let long = core.mode == Mode::Long64;
    let base = if long && seg >= 4 { core.state.seg[usize::from(seg) % 6].base } else { 0 };
    let limit_checked = (!long).then(|| (core.state.clone(), seg));
    let privilege = core.privilege();
    let (_, state, bus) = core.parts();
    let result = body(state, &i, &mut Elements { bus, base, limit_checked, privilege });
    core.check(result)
}

/// MASKMOVQ, MASKMOVDQU.
pub(crate) fn masked_move(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        match op.dst {
            0 => host_exec::check_mmx(core)?,
            1 => host_exec::check_sse(core)?,
            _ => host_exec::check_avx(core)?,
        }
        if op.dst == 0 && crate::thunk::x87::error_pending(&core.state.x87) {
            return core.raise(Exception::plain(x86::addr::Vector::MF));
        }
        with_elements(core, op, |state, i, bus| masked::masked_move(state, i, bus))
    };
    step(body(core))
}

/// VGATHER, VPGATHER.
pub(crate) fn gather(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        host_exec::check_avx(core)?;
        with_elements(core, op, |state, i, bus| {
            if masked::gather_is_valid(i) {
                masked::gather(state, i, bus)
            } else {
                Err(Exception::ud().into())
            }
        })
    };
    step(body(core))
}

/// VZEROUPPER (`size` 0), VZEROALL (1).
pub(crate) fn zero_vectors(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        host_exec::check_avx(core)?;
        let long = core.mode == Mode::Long64;
        if op.size == 0 {
            masked::zero_upper(&mut core.state, long);
        } else {
            masked::zero_all(&mut core.state, long);
        }
        Ok(Step::Next)
    };
    step_to(body(core))
}
