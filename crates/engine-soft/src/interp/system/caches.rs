//! TLB invalidation, caches, fences and PAUSE.

use super::{privileged, protected};
use crate::cpu::Op;
use crate::cpu::{Cpu, LEGACY};
use crate::op::{Fallible, Step, step, step_to};
use x86::addr::La;
use x86::bus::AccessKind;
use x86::control;
use x86::state::{Mode, Seg};

/// INVLPG.
pub(crate) fn invlpg(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        // Segmentation applies without faults: a non-canonical or out-of-limit address has no
        // translation to drop.
        let offset = cpu.offset(op);
        let long = cpu.mode == Mode::Long64;
        let base = if long && op.seg < Seg::Fs as u8 {
            0
        } else {
            cpu.state.seg[usize::from(op.seg) % 6].base
        };
        let la = base.wrapping_add(offset);
        let la = if long { la } else { la & 0xffff_ffff };
        let (_, state, mut bus) = cpu.parts();
        let result = control::invlpg(state, &mut bus, La(la));
        cpu.check(result)?;
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Jump)
    };
    step_to(body(cpu))
}

/// INVPCID: type in `dst`, descriptor in memory.
pub(crate) fn invpcid(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        protected(cpu)?;
        privileged(cpu)?;
        let kind =
            if op.size == 8 { cpu.reg::<u64>(op.dst) } else { u64::from(cpu.reg::<u32>(op.dst)) };
        let operand = cpu.operand(op);
        let (model, state, mut bus) = cpu.parts();
        let result = control::invpcid(model, state, &mut bus, kind, operand);
        cpu.check(result)?;
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Jump)
    };
    step_to(body(cpu))
}

/// INVD, WBINVD: privileged, and nothing to do on a coherent host.
pub(crate) fn cache_control(cpu: &mut Cpu, _: &Op) -> Step {
    step(privileged(cpu))
}

/// CLFLUSH, CLFLUSHOPT, CLWB: judged as a byte load (SDM vol. 2).
pub(crate) fn flush_line(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let la = cpu.linear::<LEGACY>(op, 1, AccessKind::Read)?;
        cpu.load::<u8>(la).map(drop)
    };
    step(body(cpu))
}

/// LFENCE, MFENCE, SFENCE: the host's full fence, since MFENCE also holds back later loads.
pub(crate) fn fence(_: &mut Cpu, _: &Op) -> Step {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Step::Next
}

/// PAUSE.
pub(crate) fn pause(_: &mut Cpu, _: &Op) -> Step {
    std::hint::spin_loop();
    Step::Next
}
