//! Delivery through the 32-bit IDT: interrupt, trap and task gates of both sizes, from protected
//! and virtual-8086 mode (SDM vol. 3, 6.11, 6.12, 20.3.1).

use super::Delivery;
use crate::addr::{La, Vector, Width};
use crate::bus::{Privilege, SystemBus};
use crate::descriptor::{Gate, GateKind, Selector};
use crate::exception::Exception;
use crate::regs::Rflags;
use crate::segment::{CodeTarget, Stack, gate_target, stack_segment};
use crate::state::{CpuState, Seg, Segment, gpr};
use crate::task;

pub(super) fn deliver<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    delivery: &Delivery,
) -> Result<(), Exception> {
    let gate = read_gate(state, bus, delivery)?;
    if gate.kind == GateKind::Task {
        return through_task(state, bus, delivery, gate.selector);
    }
    let target = gate_target(state, bus, gate.selector, true)?;
    let from_8086 = state.flags.has(Rflags::VM);
    if from_8086 && target.cpl != 0 {
        return Err(gate.selector.fault(Vector::GP));
    }
    let inner = inner_stack(state, bus, &target)?;
    let mut stack = match inner {
        Some((segment, pointer)) => {
            let code = u32::from(segment.selector & !3);
            Stack::segmented(segment, pointer, target.cpl, code)
        }
        None => Stack::current(state),
    };
    target.check_ip(gate.offset)?;
    target.mark_accessed(bus)?;
    push_frame(state, bus, &mut stack, &gate, delivery, inner.is_some())?;

    if let Some((segment, _)) = inner {
        state.seg[Seg::Ss as usize] = segment;
    }
    stack.store_pointer(state);
    if from_8086 {
        for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            state.seg[seg as usize] = Segment::null(0);
        }
    }
    target.enter(state, gate.offset);
    let masked = if gate.kind == GateKind::Interrupt { Rflags::IF } else { Rflags::empty() };
    state.flags.set(Rflags::TF | Rflags::NT | Rflags::RF | Rflags::VM | masked, false);
    Ok(())
}

fn read_gate<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    delivery: &Delivery,
) -> Result<Gate, Exception> {
    let fault = |vector| Err(delivery.idt_fault(vector));
    let offset = 8 * u64::from(delivery.vector.0);
    if offset + 7 > u64::from(state.idtr.limit) {
        return fault(Vector::GP);
    }
    let la = state.idtr.base.wrapping_add(offset) & 0xffff_ffff;
    let raw = bus.read(La(la), Width::B8, Privilege::Implicit)?;
    match Gate::decode(raw, 0, false) {
        Some(gate) if gate.kind != GateKind::Call => {
            if delivery.software && gate.dpl < state.cpl {
                fault(Vector::GP)
            } else if !gate.present {
                fault(Vector::NP)
            } else {
                Ok(gate)
            }
        }
        _ => fault(Vector::GP),
    }
}

/// SS and ESP of the new level, judged; `None` at the same level.
fn inner_stack<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    target: &CodeTarget,
) -> Result<Option<(Segment, u64)>, Exception> {
    if target.cpl == state.cpl {
        return Ok(None);
    }
    let (selector, pointer) = task::stack_segment_pointer(state, bus, target.cpl)?;
    let segment = stack_segment(state, bus, target.cpl, selector, Vector::TS)?;
    Ok(Some((segment, pointer)))
}

fn push_frame<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    stack: &mut Stack,
    gate: &Gate,
    delivery: &Delivery,
    inward: bool,
) -> Result<(), Exception> {
    let selector = |seg: Seg| u64::from(state.seg[seg as usize].selector);
    if state.flags.has(Rflags::VM) {
        for seg in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
            stack.push(bus, gate.size, selector(seg))?;
        }
    }
    if inward {
        stack.push(bus, gate.size, selector(Seg::Ss))?;
        stack.push(bus, gate.size, state.gpr[gpr::RSP])?;
    }
    stack.push(bus, gate.size, delivery.image)?;
    stack.push(bus, gate.size, selector(Seg::Cs))?;
    stack.push(bus, gate.size, delivery.return_rip)?;
    match delivery.error_code {
        Some(code) => stack.push(bus, gate.size, code.into()),
        None => Ok(()),
    }
}

/// A task gate: the handler is a task, which finds the error code on its own stack (SDM vol. 3,
/// 6.12.2).
fn through_task<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    delivery: &Delivery,
    selector: Selector,
) -> Result<(), Exception> {
    let cause = task::Cause::Interrupt { error_code: delivery.error_code };
    task::switch(state, bus, selector, cause, delivery.return_rip, delivery.image)
}
