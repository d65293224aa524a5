//! Control registers, debug registers, XCR0 and PKRU (SDM vol. 3, 2.5 to 2.7).

use super::{pair, privileged, set_long_or_double, set_pair, store_word, system, word_operand};
use crate::cpu::Cpu;
use crate::cpu::Op;
use crate::op::{Fallible, Step, step, step_to};
use vcpu::CpuIo;
use x86::{control, debug};

/// MOV to CRn (`dst`), from register `src`.
pub(crate) fn mov_to_cr(cpu: &mut Cpu, op: &Op) -> Step {
    let value =
        if op.size == 8 { cpu.reg::<u64>(op.src) } else { u64::from(cpu.reg::<u32>(op.src)) };
    if op.dst == 8 {
        return step(write_cr8(cpu, value));
    }
    if op.dst == 3 {
        cpu.stats.cr3_loads += 1;
    }
    let n = op.dst;
    let next = cpu.next_ip(op);
    let (model, state, mut bus) = cpu.parts();
    let result = control::write_cr(model, state, &mut bus, n, value);
    step_to(cpu.check(result).map(|()| {
        cpu.state.rip = next;
        Step::Sync
    }))
}

fn write_cr8(cpu: &mut Cpu, value: u64) -> Fallible {
    privileged(cpu)?;
    if value > 15 {
        return cpu.gp();
    }
    if let Some(io) = cpu.machine.io() {
        io.set_task_priority(value as u8);
    }
    Ok(())
}

/// MOV from CRn (`src`).
pub(crate) fn mov_from_cr(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let value = if op.src == 8 {
            privileged(cpu)?;
            u64::from(cpu.machine.io().map_or(0, CpuIo::task_priority))
        } else {
            let value = control::read_cr(&cpu.state, op.src);
            cpu.check(value)?
        };
        set_long_or_double(cpu, op, value);
        Ok(())
    };
    step(body(cpu))
}

/// MOV to DRn.
pub(crate) fn mov_to_dr(cpu: &mut Cpu, op: &Op) -> Step {
    let value =
        if op.size == 8 { cpu.reg::<u64>(op.src) } else { u64::from(cpu.reg::<u32>(op.src)) };
    let n = op.dst;
    let step = system(cpu, op, |state, _| debug::write_dr(state, n, value));
    cpu.update_watchpoints();
    step
}

/// MOV from DRn.
pub(crate) fn mov_from_dr(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let value = debug::read_dr(&cpu.state, op.src);
        let value = cpu.check(value)?;
        set_long_or_double(cpu, op, value);
        Ok(())
    };
    step(body(cpu))
}

/// CLTS.
pub(crate) fn clts(cpu: &mut Cpu, op: &Op) -> Step {
    system(cpu, op, |state, bus| control::clts(state, bus))
}

/// LMSW r/m16.
pub(crate) fn lmsw<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        privileged(cpu)?;
        let source = word_operand::<MEMORY>(cpu, op)?;
        let next = cpu.next_ip(op);
        let (model, state, mut bus) = cpu.parts();
        let result = control::lmsw(model, state, &mut bus, source);
        cpu.check(result)?;
        cpu.state.rip = next;
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

/// SMSW.
pub(crate) fn smsw<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let value = control::smsw(&cpu.state);
        let value = cpu.check(value)?;
        store_word::<MEMORY>(cpu, op, value)
    };
    step(body(cpu))
}

/// XGETBV.
pub(crate) fn xgetbv(cpu: &mut Cpu, _: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let value = control::xgetbv(&cpu.model, &cpu.state, cpu.reg::<u32>(1));
        let value = cpu.check(value)?;
        set_pair(cpu, value);
        Ok(())
    };
    step(body(cpu))
}

/// XSETBV.
pub(crate) fn xsetbv(cpu: &mut Cpu, _: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let (index, value) = (cpu.reg::<u32>(1), pair(cpu));
        let result = control::xsetbv(&cpu.model, &mut cpu.state, index, value);
        cpu.check(result)
    };
    step(body(cpu))
}

/// RDPKRU.
pub(crate) fn rdpkru(cpu: &mut Cpu, _: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let value = control::rdpkru(&cpu.state, cpu.reg::<u32>(1));
        let value = cpu.check(value)?;
        set_pair(cpu, u64::from(value));
        Ok(())
    };
    step(body(cpu))
}

/// WRPKRU.
pub(crate) fn wrpkru(cpu: &mut Cpu, op: &Op) -> Step {
    let (value, ecx, edx) = (cpu.reg::<u32>(0), cpu.reg::<u32>(1), cpu.reg::<u32>(2));
    system(cpu, op, |state, bus| control::wrpkru(state, bus, value, ecx, edx))
}
