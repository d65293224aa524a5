//! Model-specific registers, the time-stamp counter and IA32_TSC_AUX.
//!
//! The machine answers for its own registers (the local APIC's), `x86` for the rest.

use super::{drain_stores, pair, privileged, set_pair};
use crate::core::Core;
use crate::core::Op;
use crate::op::{Fallible, Step, step, step_to};
use x86::msr::{self, names};
use x86::regs::Cr4;

/// RDTSC, and RDTSCP if `P`: #GP(0) above level 0 while CR4.TSD is set.
pub(crate) fn rdtsc<const P: bool>(core: &mut Core, _: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        if core.state.cpl > 0 && core.state.paging.cr4.contains(Cr4::TSD) {
            return core.gp();
        }
        set_pair(core, core.ticks().wrapping_add(core.state.tsc_offset));
        if P {
            core.set_reg::<u32>(1, core.state.msr.tsc_aux as u32);
        }
        Ok(())
    };
    step(body(core))
}

/// RDPID.
pub(crate) fn rdpid(core: &mut Core, op: &Op) -> Step {
    core.set_reg::<u64>(op.dst, core.state.msr.tsc_aux);
    Step::Next
}

/// RDPMC: no counters.
pub(crate) fn rdpmc(core: &mut Core, _: &Op) -> Step {
    step(core.gp())
}

/// RDMSR.
pub(crate) fn rdmsr(core: &mut Core, _: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        privileged(core)?;
        core.stats.msr += 1;
        let register = core.reg::<u32>(1);
        let value = match core.machine.io().and_then(|io| io.msr_read(register)) {
            Some(Ok(value)) => value,
            Some(Err(vcpu::MsrFault)) => return core.gp(),
            None => {
                let tsc = core.ticks();
                let value = msr::read(&core.model, &core.state, register, tsc);
                tracing::trace!(target: "msr", register, ?value, "rdmsr");
                core.check(value)?
            }
        };
        set_pair(core, value);
        Ok(())
    };
    step(body(core))
}

/// WRMSR.
pub(crate) fn wrmsr(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        privileged(core)?;
        core.stats.msr += 1;
        drain_stores(core);
        let (register, value) = (core.reg::<u32>(1), pair(core));
        if register == names::IA32_APIC_BASE {
            let verdict = msr::check_apic_base(&core.model, value);
            core.check(verdict)?;
        }
        match core.machine.io().and_then(|io| io.msr_write(register, value)) {
            Some(Ok(())) => {}
            Some(Err(vcpu::MsrFault)) => return core.gp(),
            None => write_own_msr(core, register, value)?,
        }
        core.state.rip = core.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(core))
}

fn write_own_msr(core: &mut Core, register: u32, value: u64) -> Fallible {
    let (offset, tsc) = (core.state.tsc_offset, core.ticks());
    let effect = msr::write(&core.model, &mut core.state, register, value, tsc);
    tracing::trace!(target: "msr", register, value, ok = effect.is_ok(), "wrmsr");
    let effect = core.check(effect)?;
    let paging = core.state.paging;
    core.mmu.paging_changed(&paging, effect);
    if core.state.tsc_offset != offset {
        let offset = core.state.tsc_offset;
        if let Some(io) = core.machine.io() {
            io.tsc_offset_changed(offset);
        }
    }
    Ok(())
}
