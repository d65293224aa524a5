//! Delivery through the 64-bit IDT (SDM vol. 3, 6.14).

use super::Delivery;
use crate::addr::{La, Vector, Width};
use crate::bus::{Privilege, SystemBus};
use crate::descriptor::{Gate, GateKind, table_address};
use crate::exception::Exception;
use crate::regs::Rflags;
use crate::segment::{CodeTarget, Stack, gate_target, null_stack};
use crate::state::{CpuState, Seg, gpr};
use crate::task;

pub(super) fn deliver<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    delivery: &Delivery,
) -> Result<(), Exception> {
    let gate = read_gate(state, bus, delivery)?;
    let target = gate_target(state, bus, gate.selector, true)?;
    let inward = target.cpl < state.cpl;
    let mut stack = Stack::flat(new_pointer(state, bus, &gate, &target)?, target.cpl);
    target.check_ip(gate.offset)?;
    target.mark_accessed(bus)?;
    let frame = [
        state.seg[Seg::Ss as usize].selector.into(),
        state.gpr[gpr::RSP],
        delivery.image,
        state.seg[Seg::Cs as usize].selector.into(),
        delivery.return_rip,
    ];
    for item in frame {
        stack.push(bus, Width::B8, item)?;
    }
    if let Some(code) = delivery.error_code {
        stack.push(bus, Width::B8, code.into())?;
    }

    stack.store_pointer(state);
    if inward {
        state.seg[Seg::Ss as usize] = null_stack(target.cpl);
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
    let offset = 16 * u64::from(delivery.vector.0);
    let la = match table_address(state, state.idtr.base, offset, 16) {
        Some(la) if offset + 15 <= u64::from(state.idtr.limit) => la,
        _ => return fault(Vector::GP),
    };
    let low = bus.read(la, Width::B8, Privilege::Implicit)?;
    let high = bus.read(la.wrapping_add(8), Width::B8, Privilege::Implicit)?;
    match Gate::decode(low, high, true) {
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

/// Where the frame begins: IST, the new level's RSP, or the current one; aligned down to 16 bytes
/// (6.14.2).
fn new_pointer<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    gate: &Gate,
    target: &CodeTarget,
) -> Result<u64, Exception> {
    let pointer = if gate.ist != 0 {
        task::interrupt_stack(state, bus, gate.ist)?
    } else if target.cpl < state.cpl {
        task::stack_pointer(state, bus, target.cpl)?
    } else {
        state.gpr[gpr::RSP]
    };
    if La(pointer).is_canonical() {
        Ok(pointer & !15)
    } else {
        Err(Exception::with_code(Vector::SS, 0))
    }
}
