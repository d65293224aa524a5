//! Far JMP, CALL and RET (SDM vol. 3, 5.8; vol. 2, JMP, CALL, RET).
//!
//! Operand sizes are 2, 4 or 8 bytes. On error the state is unchanged, but for a task switch that
//! fails late ([`crate::task::switch`]). `next_rip` is the instruction after: what CALL pushes and
//! a task switch saves.

mod gate;
mod ret;

pub use ret::far_return;

use crate::addr::{Vector, Width};
use crate::bus::SystemBus;
use crate::descriptor::{self, Entry, GateKind, Selector, system};
use crate::exception::Exception;
use crate::segment::{Stack, check_ip, jump_target, real_mode_code, virtual_8086};
use crate::state::{CpuState, Mode, Seg, Segment};
use crate::task;

/// What distinguishes the two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Jump,
    Call,
}

/// The instruction under way.
struct Transfer {
    verb: Verb,
    selector: Selector,
    offset: u64,
    size: Width,
    next_rip: u64,
}

/// JMP far to `selector:offset`: a code segment, call gate, TSS or task gate.
///
/// # Errors
/// #GP, #NP, #TS, #SS, #PF.
pub fn far_jump<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    selector: u16,
    offset: u64,
    operand_size: Width,
    next_rip: u64,
) -> Result<(), Exception> {
    let selector = Selector(selector);
    let verb = Verb::Jump;
    transfer(state, bus, &Transfer { verb, selector, offset, size: operand_size, next_rip })
}

/// CALL far to `selector:offset`: a code segment, call gate, TSS or task gate.
///
/// # Errors
/// #GP, #NP, #TS, #SS, #PF.
pub fn far_call<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    selector: u16,
    offset: u64,
    operand_size: Width,
    next_rip: u64,
) -> Result<(), Exception> {
    let selector = Selector(selector);
    let verb = Verb::Call;
    transfer(state, bus, &Transfer { verb, selector, offset, size: operand_size, next_rip })
}

fn transfer<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    to: &Transfer,
) -> Result<(), Exception> {
    match state.mode() {
        Mode::Real => {
            let cs = real_mode_code(state.seg[Seg::Cs as usize], to.selector.0);
            without_descriptor(state, bus, to, cs)
        }
        Mode::Virtual8086 => without_descriptor(state, bus, to, virtual_8086(to.selector.0)),
        _ => {
            let entry = descriptor::read(state, bus, to.selector, Vector::GP)?;
            if entry.segment.is_system() {
                to_system(state, bus, to, &entry)
            } else {
                to_code(state, bus, to, entry)
            }
        }
    }
}

impl Transfer {
    fn ip(&self) -> u64 {
        match self.size {
            Width::B2 => self.offset & 0xffff,
            Width::B4 => self.offset & 0xffff_ffff,
            _ => self.offset,
        }
    }

    /// Pushes CS and the return address on the current stack, for a CALL.
    fn push_return<B: SystemBus + ?Sized>(
        &self,
        state: &CpuState,
        bus: &mut B,
        size: Width,
    ) -> Result<Stack, Exception> {
        let mut stack = Stack::current(state);
        if self.verb == Verb::Call {
            stack.push(bus, size, state.seg[Seg::Cs as usize].selector.into())?;
            stack.push(bus, size, self.next_rip)?;
        }
        Ok(stack)
    }
}

fn without_descriptor<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    to: &Transfer,
    cs: Segment,
) -> Result<(), Exception> {
    check_ip(&cs, false, to.ip())?;
    to.push_return(state, bus, to.size)?.store_pointer(state);
    state.seg[Seg::Cs as usize] = cs;
    state.rip = to.ip();
    Ok(())
}

fn to_code<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    to: &Transfer,
    entry: Entry,
) -> Result<(), Exception> {
    let target = jump_target(state, entry)?;
    target.check_ip(to.ip())?;
    target.mark_accessed(bus)?;
    to.push_return(state, bus, to.size)?.store_pointer(state);
    target.enter(state, to.ip());
    Ok(())
}

/// A gate or a TSS; in IA-32e mode only call gates (SDM vol. 3, 5.8.3.1, 7.7).
fn to_system<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    to: &Transfer,
    entry: &Entry,
) -> Result<(), Exception> {
    let segment = entry.segment;
    let known = match segment.kind() {
        system::CALL_GATE => true,
        system::CALL_GATE16 | system::TASK_GATE => !state.long_mode(),
        _ => segment.is_tss() && !state.long_mode(),
    };
    if !known || segment.dpl() < to.selector.rpl().max(state.cpl) {
        return Err(to.selector.fault(Vector::GP));
    }
    if segment.is_tss() {
        return to_task(state, bus, to, to.selector);
    }
    if !segment.present() {
        return Err(to.selector.fault(Vector::NP));
    }
    let high = entry.upper(state, bus, Vector::GP)?;
    match entry.gate(high, state.long_mode()) {
        Some(gate) if gate.kind == GateKind::Task => to_task(state, bus, to, gate.selector),
        Some(gate) => gate::through(state, bus, to, &gate),
        None => Err(to.selector.fault(Vector::GP)),
    }
}

fn to_task<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    to: &Transfer,
    tss: Selector,
) -> Result<(), Exception> {
    let cause = if to.verb == Verb::Call { task::Cause::Call } else { task::Cause::Jump };
    let image = state.flags.bits();
    task::switch(state, bus, tss, cause, to.next_rip, image)
}
