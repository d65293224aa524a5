//! Control registers, debug registers, XCR0 and PKRU (SDM vol. 3, 2.5 to 2.7).

use super::{
    drain_stores, pair, privileged, set_long_or_double, set_pair, store_word, system, word_operand,
};
use crate::core::Core;
use crate::core::Op;
use crate::op::{Fallible, Step, step, step_to};
use vcpu::CpuIo;
use x86::{control, debug};

/// MOV to CRn (`dst`), from register `src`.
pub(crate) fn mov_to_cr(core: &mut Core, op: &Op) -> Step {
    let value =
        if op.size == 8 { core.reg::<u64>(op.src) } else { u64::from(core.reg::<u32>(op.src)) };
    if op.dst == 8 {
        return step(write_cr8(core, value));
    }
    drain_stores(core);
    if op.dst == 3 {
        core.stats.cr3_loads += 1;
    }
    let n = op.dst;
    let next = core.next_ip(op);
    let (model, state, mut bus) = core.parts();
    let result = control::write_cr(model, state, &mut bus, n, value);
    step_to(core.check(result).map(|()| {
        core.state.rip = next;
        Step::Sync
    }))
}

fn write_cr8(core: &mut Core, value: u64) -> Fallible {
    privileged(core)?;
    if value > 15 {
        return core.gp();
    }
    if let Some(io) = core.machine.io() {
        io.set_task_priority(value as u8);
    }
    Ok(())
}

/// MOV from CRn (`src`).
pub(crate) fn mov_from_cr(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let value = if op.src == 8 {
            privileged(core)?;
            u64::from(core.machine.io().map_or(0, CpuIo::task_priority))
        } else {
            let value = control::read_cr(&core.state, op.src);
            core.check(value)?
        };
        set_long_or_double(core, op, value);
        Ok(())
    };
    step(body(core))
}

/// MOV to DRn.
pub(crate) fn mov_to_dr(core: &mut Core, op: &Op) -> Step {
    let value =
        if op.size == 8 { core.reg::<u64>(op.src) } else { u64::from(core.reg::<u32>(op.src)) };
    let n = op.dst;
    drain_stores(core);
    let step = system(core, op, |state, _| debug::write_dr(state, n, value));
    core.update_watchpoints();
    step
}

/// MOV from DRn.
pub(crate) fn mov_from_dr(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let value = debug::read_dr(&core.state, op.src);
        let value = core.check(value)?;
        set_long_or_double(core, op, value);
        Ok(())
    };
    step(body(core))
}

/// CLTS.
pub(crate) fn clts(core: &mut Core, op: &Op) -> Step {
    system(core, op, |state, bus| control::clts(state, bus))
}

/// LMSW r/m16.
pub(crate) fn lmsw<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        privileged(core)?;
        let source = word_operand::<MEMORY>(core, op)?;
        let next = core.next_ip(op);
        let (model, state, mut bus) = core.parts();
        let result = control::lmsw(model, state, &mut bus, source);
        core.check(result)?;
        core.state.rip = next;
        Ok(Step::Sync)
    };
    step_to(body(core))
}

/// SMSW.
pub(crate) fn smsw<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let value = control::smsw(&core.state);
        let value = core.check(value)?;
        store_word::<MEMORY>(core, op, value)
    };
    step(body(core))
}

/// XGETBV.
pub(crate) fn xgetbv(core: &mut Core, _: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let value = control::xgetbv(&core.model, &core.state, core.reg::<u32>(1));
        let value = core.check(value)?;
        set_pair(core, value);
        Ok(())
    };
    step(body(core))
}

/// XSETBV.
pub(crate) fn xsetbv(core: &mut Core, _: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let (index, value) = (core.reg::<u32>(1), pair(core));
        let result = control::xsetbv(&core.model, &mut core.state, index, value);
        core.check(result)
    };
    step(body(core))
}

/// RDPKRU.
pub(crate) fn rdpkru(core: &mut Core, _: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let value = control::rdpkru(&core.state, core.reg::<u32>(1));
        let value = core.check(value)?;
        set_pair(core, u64::from(value));
        Ok(())
    };
    step(body(core))
}

/// WRPKRU.
pub(crate) fn wrpkru(core: &mut Core, op: &Op) -> Step {
    let (value, ecx, edx) = (core.reg::<u32>(0), core.reg::<u32>(1), core.reg::<u32>(2));
    system(core, op, |state, bus| control::wrpkru(state, bus, value, ecx, edx))
}
