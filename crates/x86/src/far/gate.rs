//! Through a call gate (SDM vol. 3, 5.8.3–5.8.5.1): the gate's own offset and size count, not the
//! instruction's.

use super::{Transfer, Verb};
use crate::addr::Vector;
use crate::bus::SystemBus;
use crate::descriptor::Gate;
use crate::exception::Exception;
use crate::segment::{CodeTarget, Stack, gate_target, null_stack, stack_segment};
use crate::state::{CpuState, Seg, Segment, gpr};
use crate::task;

pub(super) fn through<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    to: &Transfer,
    gate: &Gate,
) -> Result<(), Exception> {
    let target = gate_target(state, bus, gate.selector, to.verb == Verb::Call)?;
    if target.cpl < state.cpl {
        return inward(state, bus, to, gate, &target);
    }
    target.check_ip(gate.offset)?;
    target.mark_accessed(bus)?;
    to.push_return(state, bus, gate.size)?.store_pointer(state);
    target.enter(state, gate.offset);
    Ok(())
}

/// A CALL to an inner level: the stack is switched, the parameters are copied.
fn inward<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    to: &Transfer,
    gate: &Gate,
    target: &CodeTarget,
) -> Result<(), Exception> {
    let (segment, mut stack) = inner_stack(state, bus, target.cpl)?;
    target.check_ip(gate.offset)?;
    target.mark_accessed(bus)?;

    let mut parameters = [0u64; 31];
    let count = usize::from(gate.parameters).min(parameters.len());
    let mut outer = Stack::current(state);
    for parameter in parameters.iter_mut().take(count) {
        *parameter = outer.pop(bus, gate.size)?;
    }
    stack.push(bus, gate.size, state.seg[Seg::Ss as usize].selector.into())?;
    stack.push(bus, gate.size, state.gpr[gpr::RSP])?;
    for parameter in parameters.iter().take(count).rev() {
        stack.push(bus, gate.size, *parameter)?;
    }
    stack.push(bus, gate.size, state.seg[Seg::Cs as usize].selector.into())?;
    stack.push(bus, gate.size, to.next_rip)?;

    state.seg[Seg::Ss as usize] = segment;
    stack.store_pointer(state);
    target.enter(state, gate.offset);
    Ok(())
}

/// The stack that the TSS holds for level `cpl`.
fn inner_stack<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    cpl: u8,
) -> Result<(Segment, Stack), Exception> {
    if state.long_mode() {
        let pointer = task::stack_pointer(state, bus, cpl)?;
        return Ok((null_stack(cpl), Stack::flat(pointer, cpl)));
    }
    let (selector, pointer) = task::stack_segment_pointer(state, bus, cpl)?;
    let segment = stack_segment(state, bus, cpl, selector, Vector::TS)?;
    Ok((segment, Stack::segmented(segment, pointer, cpl, u32::from(selector & !3))))
}
