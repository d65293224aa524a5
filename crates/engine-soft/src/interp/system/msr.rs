//! Model-specific registers, the time-stamp counter and IA32_TSC_AUX.
//!
//! The machine answers for its own registers (the local APIC's), `x86` for the rest.

use super::{pair, privileged, set_pair};
use crate::cpu::Cpu;
use crate::cpu::Op;
use crate::op::{Fallible, Step, step, step_to};
use x86::msr::{self, names};
use x86::regs::Cr4;

/// RDTSC, and RDTSCP if `P`: #GP(0) above level 0 while CR4.TSD is set.
pub(crate) fn rdtsc<const P: bool>(cpu: &mut Cpu, _: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        if cpu.state.cpl > 0 && cpu.state.paging.cr4.contains(Cr4::TSD) {
            return cpu.gp();
        }
        set_pair(cpu, vcpu::host_tsc().wrapping_add(cpu.state.tsc_offset));
        if P {
            cpu.set_reg::<u32>(1, cpu.state.msr.tsc_aux as u32);
        }
        Ok(())
    };
    step(body(cpu))
}

/// RDPID.
pub(crate) fn rdpid(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.set_reg::<u64>(op.dst, cpu.state.msr.tsc_aux);
    Step::Next
}

/// RDPMC: no counters.
pub(crate) fn rdpmc(cpu: &mut Cpu, _: &Op) -> Step {
    step(cpu.gp())
}

/// RDMSR.
pub(crate) fn rdmsr(cpu: &mut Cpu, _: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        privileged(cpu)?;
        cpu.stats.msr += 1;
        let register = cpu.reg::<u32>(1);
        let value = match cpu.machine.io().and_then(|io| io.msr_read(register)) {
            Some(Ok(value)) => value,
            Some(Err(vcpu::MsrFault)) => return cpu.gp(),
            None => {
                let tsc = vcpu::host_tsc();
                let value = msr::read(&cpu.model, &cpu.state, register, tsc);
                tracing::trace!(target: "msr", register, ?value, "rdmsr");
                cpu.check(value)?
            }
        };
        set_pair(cpu, value);
        Ok(())
    };
    step(body(cpu))
}

/// WRMSR.
pub(crate) fn wrmsr(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        privileged(cpu)?;
        cpu.stats.msr += 1;
        let (register, value) = (cpu.reg::<u32>(1), pair(cpu));
        if register == names::IA32_APIC_BASE {
            let verdict = msr::check_apic_base(&cpu.model, value);
            cpu.check(verdict)?;
        }
        match cpu.machine.io().and_then(|io| io.msr_write(register, value)) {
            Some(Ok(())) => {}
            Some(Err(vcpu::MsrFault)) => return cpu.gp(),
            None => write_own_msr(cpu, register, value)?,
        }
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

fn write_own_msr(cpu: &mut Cpu, register: u32, value: u64) -> Fallible {
    let (offset, tsc) = (cpu.state.tsc_offset, vcpu::host_tsc());
    let effect = msr::write(&cpu.model, &mut cpu.state, register, value, tsc);
    tracing::trace!(target: "msr", register, value, ok = effect.is_ok(), "wrmsr");
    let effect = cpu.check(effect)?;
    let paging = cpu.state.paging;
    cpu.mmu.paging_changed(&paging, effect);
    if cpu.state.tsc_offset != offset {
        let offset = cpu.state.tsc_offset;
        if let Some(io) = cpu.machine.io() {
            io.tsc_offset_changed(offset);
        }
    }
    Ok(())
}
