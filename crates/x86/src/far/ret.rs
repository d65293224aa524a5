//! Far RET (SDM vol. 2, RET; vol. 3, 5.8.6).

use crate::addr::Width;
use crate::bus::SystemBus;
use crate::exception::Exception;
use crate::segment::{
    Stack, check_ip, drop_privileged, new_stack, real_mode_code, return_stack, return_target,
    virtual_8086,
};
use crate::state::{CpuState, Mode, Seg, Segment};

/// RET far with an operand size of 2, 4 or 8 bytes, releasing `pop_bytes` of parameters (on both
/// stacks if the level changes).
///
/// # Errors
/// #GP, #NP, #SS, #PF; the state is unchanged.
pub fn far_return<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    operand_size: Width,
    pop_bytes: u16,
) -> Result<(), Exception> {
    let mut stack = Stack::current(state);
    let ip = stack.pop(bus, operand_size)?;
    let selector = stack.pop(bus, operand_size)? as u16;
    stack.release(pop_bytes.into());
    match state.mode() {
        Mode::Real => {
            let cs = real_mode_code(state.seg[Seg::Cs as usize], selector);
            return without_descriptor(state, &stack, cs, ip);
        }
        Mode::Virtual8086 => return without_descriptor(state, &stack, virtual_8086(selector), ip),
        _ => {}
    }

    let target = return_target(state, bus, selector)?;
    let outward = target.cpl > state.cpl;
    let mut segment = None;
    if outward {
        let pointer = stack.pop(bus, operand_size)?;
        let selector = stack.pop(bus, operand_size)? as u16;
        let ss = return_stack(state, bus, &target, selector)?;
        stack = new_stack(&target, ss, pointer);
        stack.release(pop_bytes.into());
        segment = Some(ss);
    }
    target.check_ip(ip)?;
    target.mark_accessed(bus)?;

    stack.store_pointer(state);
    if let Some(ss) = segment {
        state.seg[Seg::Ss as usize] = ss;
    }
    target.enter(state, ip);
    if outward {
        drop_privileged(state);
    }
    Ok(())
}

fn without_descriptor(
    state: &mut CpuState,
    stack: &Stack,
    cs: Segment,
    ip: u64,
) -> Result<(), Exception> {
    check_ip(&cs, false, ip)?;
    stack.store_pointer(state);
    state.seg[Seg::Cs as usize] = cs;
    state.rip = ip;
    Ok(())
}
