//! TLB invalidation, caches, fences and PAUSE.

use super::{drain_stores, privileged, protected};
use crate::core::Op;
use crate::core::{Core, LEGACY};
use crate::op::{Fallible, Step, step, step_to};
use vcpu::CpuIo;
use x86::addr::La;
use x86::bus::AccessKind;
use x86::control;
use x86::state::{Mode, Seg};

/// INVLPG.
pub(crate) fn invlpg(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        // Segmentation applies without faults: a non-canonical or out-of-limit address has no
        // translation to drop.
        let offset = core.offset(op);
        let long = core.mode == Mode::Long64;
        let base = if long && op.seg < Seg::Fs as u8 {
            0
        } else {
            core.state.seg[usize::from(op.seg) % 6].base
        };
        let la = base.wrapping_add(offset);
        let la = if long { la } else { la & 0xffff_ffff };
        drain_stores(core);
        let (_, state, mut bus) = core.parts();
        let result = control::invlpg(state, &mut bus, La(la));
        core.check(result)?;
        core.state.rip = core.next_ip(op);
        Ok(Step::Jump)
    };
    step_to(body(core))
}

/// INVPCID: type in `dst`, descriptor in memory.
pub(crate) fn invpcid(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        protected(core)?;
        privileged(core)?;
        let kind =
            if op.size == 8 { core.reg::<u64>(op.dst) } else { u64::from(core.reg::<u32>(op.dst)) };
        let operand = core.operand(op);
        drain_stores(core);
        let (model, state, mut bus) = core.parts();
        let result = control::invpcid(model, state, &mut bus, kind, operand);
        core.check(result)?;
        core.state.rip = core.next_ip(op);
        Ok(Step::Jump)
    };
    step_to(body(core))
}

/// INVD, WBINVD: privileged, and nothing to do on a coherent host.
pub(crate) fn cache_control(core: &mut Core, _: &Op) -> Step {
    drain_stores(core);
    step(privileged(core))
}

/// CLFLUSH, CLFLUSHOPT, CLWB: judged as a byte load (SDM vol. 2).
pub(crate) fn flush_line(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<LEGACY>(op, 1, AccessKind::Read)?;
        core.load::<u8>(la).map(drop)
    };
    step(body(core))
}

/// LFENCE, MFENCE, SFENCE: the host's full fence, since MFENCE also holds back later loads.
pub(crate) fn fence(_: &mut Core, _: &Op) -> Step {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Step::Next
}

/// PAUSE: one of many has the machine asked whether somebody waits for the host's thread.
pub(crate) fn pause(core: &mut Core, _: &Op) -> Step {
    core.pauses = core.pauses.saturating_sub(1);
    if core.pauses < 0 {
        let more = core.machine.io().map_or(u32::MAX, CpuIo::spins);
        core.pauses = i32::try_from(more).unwrap_or(i32::MAX) - 1;
    }
    std::hint::spin_loop();
    Step::Next
}
