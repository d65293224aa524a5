//! Software interrupts, the return from any, and HLT, which waits for one (SDM vol. 3, ch. 7).

use super::{drain_stores, system, transfer};
use crate::core::Core;
use crate::core::Op;
use crate::op::Step;
use x86::addr::Vector;
use x86::exception::Exception;
use x86::interrupt::{self, Event};
use x86::iret;
use x86::state::Activity;

/// DR6.B0 to B3.
const DR6_BREAKPOINTS: u64 = 0xf;

/// HLT.
pub(crate) fn hlt(core: &mut Core, op: &Op) -> Step {
    core.stats.halts += 1;
    system(core, op, |state, _| {
        if state.cpl != 0 {
            return Err(Exception::gp(0));
        }
        state.activity = Activity::Halted;
        Ok(())
    })
}

/// INT n.
pub(crate) fn int_n(core: &mut Core, op: &Op) -> Step {
    core.stats.software_interrupts += 1;
    let vector = op.imm as u8;
    // In virtual-8086 mode below IOPL 3 the redirection bitmap decides; `deliver` reads it.
    transfer(core, op, |state, bus, next_rip| {
        interrupt::deliver(state, bus, Event::SoftwareInt { vector: Vector(vector), next_rip })
    })
}

/// INT3.
pub(crate) fn int3(core: &mut Core, op: &Op) -> Step {
    core.stats.software_interrupts += 1;
    transfer(core, op, |state, bus, next_rip| {
        interrupt::deliver(state, bus, Event::Int3 { next_rip })
    })
}

/// INT1 (ICEBP).
pub(crate) fn int1(core: &mut Core, op: &Op) -> Step {
    let hits = std::mem::take(&mut core.data_hits);
    transfer(core, op, |state, bus, next_rip| {
        interrupt::deliver(state, bus, Event::Icebp { next_rip })?;
        if hits != 0 {
            // This #DB reports breakpoints that MOV SS held back; they get none of their own.
            state.dr.dr6 = state.dr.dr6 & !DR6_BREAKPOINTS | hits;
        }
        Ok(())
    })
}

/// INTO.
pub(crate) fn into(core: &mut Core, op: &Op) -> Step {
    if core.state.flags.arith & crate::alu::OF == 0 {
        return Step::Next;
    }
    transfer(core, op, |state, bus, next_rip| {
        interrupt::deliver(state, bus, Event::Into { next_rip })
    })
}

/// IRET.
pub(crate) fn iret(core: &mut Core, op: &Op) -> Step {
    let size = op.width();
    drain_stores(core);
    transfer(core, op, |state, bus, next| iret::iret(state, bus, size, next))
}
