//! What becomes of faults and events: delivery through the IDT (SDM vol. 3, 6.9).

use crate::cpu::{Cpu, Op};
use x86::exception::Exception;
use x86::interrupt::{self, Event};
use x86::regs::Rflags;
use x86::state::{Activity, Seg};

/// An interrupt or trap between the iterations of a string instruction pushes RF set (SDM vol. 3,
/// 18.3.1.1).
pub(super) fn resume_flag(cpu: &mut Cpu) {
    if std::mem::take(&mut cpu.mid_repeat) {
        cpu.state.flags.system |= Rflags::RF.bits();
    }
}

/// Delivers the exception of `op`, which has faulted, at its RIP.
#[cold]
pub(crate) fn fault(cpu: &mut Cpu, op: &Op) {
    cpu.state.rip = cpu.ip(op);
    cpu.data_hits = 0;
    let on_stack = op.seg == Seg::Ss as u8;
    let exception = if on_stack { cpu.fault.on_stack() } else { cpu.fault.into() };
    raise(cpu, exception);
}

/// Delivers `Cpu::fault` with the state as it is: RIP could not be fetched, or an operation set RIP
/// itself.
#[cold]
pub(crate) fn fault_here(cpu: &mut Cpu) {
    raise(cpu, cpu.fault.into());
}

fn raise(cpu: &mut Cpu, exception: Exception) {
    cpu.stats.exceptions[exception.vector.0 as usize & 31] += 1;
    deliver(cpu, Event::Exception(exception));
}

/// Delivers through the IDT. A fault during delivery ends in a double fault or in shutdown.
pub(crate) fn deliver(cpu: &mut Cpu, event: Event) {
    if let Event::Exception(e) = event {
        tracing::trace!(target: "exceptions", vector = e.vector.name().unwrap_or("?"),
            error_code = ?e.error_code, payload = format_args!("{:#x}", e.payload),
            rip = format_args!("{:#x}", cpu.state.rip), cpl = cpu.state.cpl, "exception");
    }
    cpu.mmu.ac = cpu.state.flags.system & Rflags::AC.bits() != 0;
    let (_, state, mut bus) = cpu.parts();
    if interrupt::deliver_or_escalate(state, &mut bus, event).is_err() {
        cpu.state.activity = Activity::Shutdown;
    }
    cpu.state.blocking.sti = false;
    cpu.state.blocking.mov_ss = false;
    cpu.refresh();
}
