//! System instructions: each checks what the manual says through `x86`'s functions, then lets the
//! run loop take stock.

use super::stack;
use crate::cpu::{Cpu, LEGACY, SEGMENTS};
use crate::mmu::Mmu;
use crate::op::{Fallible, Op, Step, step, step_to};
use vcpu::CpuIo;
use x86::bus::{AccessKind, SystemBus};
use x86::debug::DataAccess;
use x86::exception::Exception;
use x86::interrupt::{self, Event};
use x86::msr::names;
use x86::regs::{Cr4, Rflags};
use x86::state::{Activity, CpuState, Mode, Seg, TableRegister, gpr};
use x86::{control, debug, far, flags, ioperm, iret, msr, protect, segment, syscall};

/// CPUID.01H:EDX.APIC.
const CPUID_APIC: u32 = 1 << 9;
/// DR6.BS: single step.
pub(crate) const DR6_BS: u64 = 1 << 14;
/// DR6.B0 to B3.
const DR6_BREAKPOINTS: u64 = 0xf;

/// Runs one of `x86`'s operations and goes on behind the instruction, with everything derived from
/// the state renewed.
fn system(
    cpu: &mut Cpu,
    op: &Op,
    operation: impl FnOnce(&mut CpuState, &mut Mmu) -> Result<(), Exception>,
) -> Step {
    let next = cpu.next_ip(op);
    let result = operation(&mut cpu.state, &mut cpu.mmu);
    step_to(cpu.check(result).map(|()| {
        cpu.state.rip = next;
        Step::Sync
    }))
}

/// As [`system`], for operations that set RIP themselves.
fn transfer(
    cpu: &mut Cpu,
    op: &Op,
    operation: impl FnOnce(&mut CpuState, &mut Mmu, u64) -> Result<(), Exception>,
) -> Step {
    let next = cpu.next_ip(op);
    cpu.state.rip = cpu.ip(op);
    match operation(&mut cpu.state, &mut cpu.mmu, next) {
        Ok(()) => Step::Sync,
        Err(exception) => {
            cpu.fault = exception;
            Step::FaultHere
        }
    }
}

/// #GP(0) unless at level 0.
fn privileged(cpu: &mut Cpu) -> Fallible {
    if cpu.state.cpl == 0 { Ok(()) } else { cpu.gp() }
}

/// #GP(0) above level 0 while CR4.UMIP is set (SDM vol. 3, 2.5).
fn user_may_look(cpu: &mut Cpu) -> Fallible {
    if cpu.state.cpl > 0 && cpu.state.paging.cr4.contains(Cr4::UMIP) { cpu.gp() } else { Ok(()) }
}

/// #UD in real and virtual-8086 mode.
fn protected(cpu: &mut Cpu) -> Fallible {
    if matches!(cpu.mode, Mode::Real | Mode::Virtual8086) { cpu.ud() } else { Ok(()) }
}

/// UD0, UD1, UD2 and everything that is no instruction.
pub(crate) fn undefined(cpu: &mut Cpu, _: &Op) -> Step {
    step(cpu.ud())
}

/// An instruction longer than 15 bytes, or another decode-time #GP(0).
pub(crate) fn general_protection(cpu: &mut Cpu, _: &Op) -> Step {
    step(cpu.gp())
}

/// CLI.
pub(crate) fn cli(cpu: &mut Cpu, _: &Op) -> Step {
    let result = flags::cli(&mut cpu.state);
    step(cpu.check(result))
}

/// STI.
pub(crate) fn sti(cpu: &mut Cpu, op: &Op) -> Step {
    system(cpu, op, |state, _| flags::sti(state))
}

/// STAC and CLAC: #UD above level 0.
pub(crate) fn set_ac<const ON: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    system(cpu, op, |state, _| {
        if state.cpl != 0 {
            return Err(Exception::ud());
        }
        state.flags.set(Rflags::AC, ON);
        Ok(())
    })
}

/// HLT.
pub(crate) fn hlt(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.stats.halts += 1;
    system(cpu, op, |state, _| {
        if state.cpl != 0 {
            return Err(Exception::gp(0));
        }
        state.activity = Activity::Halted;
        Ok(())
    })
}

/// INT n.
pub(crate) fn int_n(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.stats.software_interrupts += 1;
    let vector = op.imm as u8;
    // In virtual-8086 mode below IOPL 3 the redirection bitmap decides; `deliver` knows.
    transfer(cpu, op, |state, bus, next_rip| {
        interrupt::deliver(state, bus, Event::SoftwareInt { vector, next_rip })
    })
}

/// INT3.
pub(crate) fn int3(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.stats.software_interrupts += 1;
    transfer(cpu, op, |state, bus, next_rip| {
        interrupt::deliver(state, bus, Event::Int3 { next_rip })
    })
}

/// INT1 (ICEBP).
pub(crate) fn int1(cpu: &mut Cpu, op: &Op) -> Step {
    let hits = std::mem::take(&mut cpu.data_hits);
    transfer(cpu, op, |state, bus, next_rip| {
        interrupt::deliver(state, bus, Event::Icebp { next_rip })?;
        if hits != 0 {
            // Breakpoints that MOV SS held back are told by this #DB, not by one of their own.
            state.dr.dr6 = state.dr.dr6 & !DR6_BREAKPOINTS | hits;
        }
        Ok(())
    })
}

/// INTO.
pub(crate) fn into(cpu: &mut Cpu, op: &Op) -> Step {
    if cpu.state.flags.arith & crate::alu::OF == 0 {
        return Step::Next;
    }
    transfer(cpu, op, |state, bus, next_rip| {
        interrupt::deliver(state, bus, Event::Into { next_rip })
    })
}

/// IRET.
pub(crate) fn iret(cpu: &mut Cpu, op: &Op) -> Step {
    let size = op.size;
    transfer(cpu, op, |state, bus, next| iret::iret(state, bus, size, next))
}

/// SYSCALL.
pub(crate) fn syscall(cpu: &mut Cpu, op: &Op) -> Step {
    let step = transfer(cpu, op, |state, _, next| syscall::syscall(state, next));
    step_by_new_flag(cpu, step)
}

/// SYSCALL and SYSRET trap by the TF that they leave, not the one they found: IA32_FMASK keeps the
/// kernel from being stepped, and a return with TF traps before the program goes on, as if SYSCALL
/// had just completed.
fn step_by_new_flag(cpu: &mut Cpu, step: Step) -> Step {
    if step != Step::Sync || !cpu.state.flags.has(Rflags::TF) {
        return step;
    }
    cpu.fault = Exception::db(DR6_BS | std::mem::take(&mut cpu.data_hits));
    Step::FaultHere
}

/// SYSRET; operand size 8: to 64-bit mode.
pub(crate) fn sysret(cpu: &mut Cpu, op: &Op) -> Step {
    let wide = op.size == 8;
    let step = transfer(cpu, op, |state, _, _| syscall::sysret(state, wide));
    step_by_new_flag(cpu, step)
}

/// SYSENTER.
pub(crate) fn sysenter(cpu: &mut Cpu, op: &Op) -> Step {
    transfer(cpu, op, |state, _, _| syscall::sysenter(state))
}

/// SYSEXIT.
pub(crate) fn sysexit(cpu: &mut Cpu, op: &Op) -> Step {
    let wide = op.size == 8;
    transfer(cpu, op, |state, _, _| syscall::sysexit(state, wide))
}

/// SWAPGS. Ends nothing: only the base of GS changes.
pub(crate) fn swapgs(cpu: &mut Cpu, _: &Op) -> Step {
    let result = syscall::swapgs(&mut cpu.state);
    step(cpu.check(result))
}

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
    let result = control::write_cr(&cpu.model, &mut cpu.state, &mut cpu.mmu, n, value);
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
    if let Some(io) = cpu.mmu.io() {
        io.set_task_priority(value as u8);
    }
    Ok(())
}

/// MOV from CRn (`src`).
pub(crate) fn mov_from_cr(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let value = if op.src == 8 {
            privileged(cpu)?;
            u64::from(cpu.mmu.io().map_or(0, CpuIo::task_priority))
        } else {
            let value = control::read_cr(&cpu.state, op.src);
            cpu.check(value)?
        };
        set_long_or_double(cpu, op, value);
        Ok(())
    };
    step(body(cpu))
}

fn set_long_or_double(cpu: &mut Cpu, op: &Op, value: u64) {
    if op.size == 8 {
        cpu.set_reg::<u64>(op.dst, value);
    } else {
        cpu.set_reg::<u32>(op.dst, value as u32);
    }
}

/// MOV to DRn.
pub(crate) fn mov_to_dr(cpu: &mut Cpu, op: &Op) -> Step {
    let value =
        if op.size == 8 { cpu.reg::<u64>(op.src) } else { u64::from(cpu.reg::<u32>(op.src)) };
    let n = op.dst;
    let step = system(cpu, op, |state, _| debug::write_dr(state, n, value));
    cpu.rewatch();
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
    system(cpu, op, control::clts)
}

/// LMSW r/m16.
pub(crate) fn lmsw<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        privileged(cpu)?;
        let source = word_operand::<MEMORY>(cpu, op)?;
        let next = cpu.next_ip(op);
        let result = control::lmsw(&cpu.model, &mut cpu.state, &mut cpu.mmu, source);
        cpu.check(result)?;
        cpu.state.rip = next;
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

fn word_operand<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Fallible<u16> {
    if MEMORY {
        let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Read)?;
        cpu.load::<u16>(la)
    } else {
        Ok(cpu.reg::<u16>(op.dst))
    }
}

/// Stores a selector-like value: 16 bits to memory, `op.size` bytes to a register.
fn store_word<const MEMORY: bool>(cpu: &mut Cpu, op: &Op, value: u64) -> Fallible {
    if MEMORY {
        let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Write)?;
        return cpu.store::<u16>(la, value as u16);
    }
    match op.size {
        2 => cpu.set_reg::<u16>(op.dst, value as u16),
        4 => cpu.set_reg::<u32>(op.dst, value as u32),
        _ => cpu.set_reg::<u64>(op.dst, value),
    }
    Ok(())
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

/// SLDT (`imm` 0), STR (1).
pub(crate) fn sldt_str<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        user_may_look(cpu)?;
        let register = if op.imm == 0 { cpu.state.ldtr } else { cpu.state.tr };
        store_word::<MEMORY>(cpu, op, u64::from(register.selector))
    };
    step(body(cpu))
}

/// LLDT (`imm` 0), LTR (1).
pub(crate) fn lldt_ltr<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        privileged(cpu)?;
        let selector = word_operand::<MEMORY>(cpu, op)?;
        let result = if op.imm == 0 {
            segment::lldt(&mut cpu.state, &mut cpu.mmu, selector)
        } else {
            segment::ltr(&mut cpu.state, &mut cpu.mmu, selector)
        };
        cpu.check(result)
    };
    step(body(cpu))
}

/// Bytes of a table register's base in memory, behind its limit's two.
fn base_size(cpu: &Cpu) -> u8 {
    if cpu.mode == Mode::Long64 { 8 } else { 4 }
}

/// SGDT (`imm` 0), SIDT (1).
pub(crate) fn sgdt_sidt(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        user_may_look(cpu)?;
        let table = if op.imm == 0 { cpu.state.gdtr } else { cpu.state.idtr };
        let parts = [(0, 2, table.limit.into()), (2, base_size(cpu), table.base)];
        let privilege = cpu.privilege();
        // Both must be writable before one is written.
        for (at, size, _) in parts {
            let la = cpu.part(op, at, size.into(), AccessKind::Write)?;
            let probe = cpu.mmu.probe_write(la, size.into(), privilege);
            cpu.check(probe)?;
        }
        for (at, size, value) in parts {
            let la = cpu.part(op, at, size.into(), AccessKind::Write)?;
            let written = cpu.mmu.write(la, size, value, privilege);
            cpu.check(written)?;
            cpu.watch(la, size, DataAccess::Write);
        }
        Ok(())
    };
    step(body(cpu))
}

/// LGDT (`imm` 0), LIDT (1).
pub(crate) fn lgdt_lidt(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        privileged(cpu)?;
        let mut values = [0; 2];
        for (value, (at, size)) in values.iter_mut().zip([(0, 2), (2, base_size(cpu))]) {
            let la = cpu.part(op, at, size.into(), AccessKind::Read)?;
            let read = cpu.mmu.read(la, size, cpu.privilege());
            *value = cpu.check(read)?;
            cpu.watch(la, size, DataAccess::Read);
        }
        let [limit, mut base] = values;
        if cpu.mode == Mode::Long64 && !x86::paging::is_canonical(base) {
            return cpu.gp();
        }
        if op.size == 2 && cpu.mode != Mode::Long64 {
            base &= 0xff_ffff;
        }
        let table = TableRegister { base, limit: limit as u16 };
        if op.imm == 0 {
            cpu.state.gdtr = table;
        } else {
            cpu.state.idtr = table;
        }
        Ok(())
    };
    step(body(cpu))
}

fn load_segment(cpu: &mut Cpu, seg: u8, selector: u16) -> Fallible {
    let seg = SEGMENTS[usize::from(seg) % 6];
    let result = segment::load_data_segment(&mut cpu.state, &mut cpu.mmu, seg, selector);
    cpu.check(result)?;
    if seg == Seg::Ss {
        cpu.state.blocking.mov_ss = true;
    }
    Ok(())
}

/// MOV Sreg (`dst`), r/m16.
pub(crate) fn mov_seg<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let selector = if MEMORY {
            let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Read)?;
            cpu.load::<u16>(la)?
        } else {
            cpu.reg::<u16>(op.src)
        };
        load_segment(cpu, op.dst, selector)?;
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

/// POP Sreg.
pub(crate) fn pop_seg(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let selector = stack::peek(cpu, 2, 0)?;
        // The stack pointer moves by the old segment's size.
        let before = cpu.state.gpr[gpr::RSP];
        stack::release(cpu, u64::from(op.size));
        if let Err(fault) = load_segment(cpu, op.dst, selector as u16) {
            cpu.state.gpr[gpr::RSP] = before;
            return Err(fault);
        }
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

/// A far pointer in memory: offset of `op.size` bytes, then the selector.
fn far_pointer(cpu: &mut Cpu, op: &Op) -> Fallible<(u16, u64)> {
    let size = u64::from(op.size);
    let la = cpu.part(op, 0, size, AccessKind::Read)?;
    let offset = match op.size {
        2 => u64::from(cpu.load::<u16>(la)?),
        4 => u64::from(cpu.load::<u32>(la)?),
        _ => cpu.load::<u64>(la)?,
    };
    let la = cpu.part(op, size, 2, AccessKind::Read)?;
    Ok((cpu.load::<u16>(la)?, offset))
}

/// LES, LDS, LSS, LFS, LGS: register `dst`, segment `src`.
pub(crate) fn load_far(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let (selector, offset) = far_pointer(cpu, op)?;
        load_segment(cpu, op.src, selector)?;
        cpu.state.blocking.mov_ss = false;
        match op.size {
            2 => cpu.set_reg::<u16>(op.dst, offset as u16),
            4 => cpu.set_reg::<u32>(op.dst, offset as u32),
            _ => cpu.set_reg::<u64>(op.dst, offset),
        }
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Sync)
    };
    step_to(body(cpu))
}

/// JMP far and CALL far; the pointer is immediate (`imm`: offset, selector in `disp`) or in memory.
pub(crate) fn far_branch<const CALL: bool, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let pointer = if MEMORY { far_pointer(cpu, op) } else { Ok((op.disp as u16, op.imm)) };
    let Ok((selector, offset)) = pointer else { return Step::Fault };
    let size = op.size;
    transfer(cpu, op, |state, bus, next| {
        if CALL {
            far::far_call(state, bus, selector, offset, size, next)
        } else {
            far::far_jump(state, bus, selector, offset, size, next)
        }
    })
}

/// RET far, releasing `imm` bytes.
pub(crate) fn far_return(cpu: &mut Cpu, op: &Op) -> Step {
    let (size, bytes) = (op.size, op.imm as u16);
    transfer(cpu, op, |state, bus, _| far::far_return(state, bus, size, bytes))
}

/// LAR (`imm` 0), LSL (1): destination `dst`, selector in `src` or memory.
pub(crate) fn lar_lsl<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        let selector = selector_source::<MEMORY>(cpu, op)?;
        let result = if op.imm == 0 {
            protect::lar(&cpu.state, &mut cpu.mmu, selector)
        } else {
            protect::lsl(&cpu.state, &mut cpu.mmu, selector)
        };
        let found = cpu.check(result)?;
        set_zf(cpu, found.is_some());
        if let Some(value) = found {
            match op.size {
                2 => cpu.set_reg::<u16>(op.dst, value as u16),
                4 => cpu.set_reg::<u32>(op.dst, value),
                _ => cpu.set_reg::<u64>(op.dst, u64::from(value)),
            }
        }
        Ok(())
    };
    step(body(cpu))
}

fn selector_source<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Fallible<u16> {
    if MEMORY {
        let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Read)?;
        cpu.load::<u16>(la)
    } else {
        Ok(cpu.reg::<u16>(op.src))
    }
}

fn set_zf(cpu: &mut Cpu, on: bool) {
    let zf = crate::alu::ZF;
    cpu.state.flags.arith = cpu.state.flags.arith & !zf | if on { zf } else { 0 };
}

/// VERR (`imm` 0), VERW (1).
pub(crate) fn verr_verw<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        let selector = word_operand::<MEMORY>(cpu, op)?;
        let result = if op.imm == 0 {
            protect::verr(&cpu.state, &mut cpu.mmu, selector)
        } else {
            protect::verw(&cpu.state, &mut cpu.mmu, selector)
        };
        let ok = cpu.check(result)?;
        set_zf(cpu, ok);
        Ok(())
    };
    step(body(cpu))
}

/// ARPL dst, src.
pub(crate) fn arpl<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        let source = cpu.reg::<u16>(op.src);
        if MEMORY {
            // Written only if it changes: until then it is a read.
            let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Read)?;
            let new = protect::arpl(cpu.load::<u16>(la)?, source);
            if let Some(value) = new {
                let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Write)?;
                cpu.store::<u16>(la, value)?;
            }
            set_zf(cpu, new.is_some());
        } else {
            let new = protect::arpl(cpu.reg::<u16>(op.dst), source);
            if let Some(value) = new {
                cpu.set_reg::<u16>(op.dst, value);
            }
            set_zf(cpu, new.is_some());
        }
        Ok(())
    };
    step(body(cpu))
}

/// Reads a port the guest may use.
pub(crate) fn port_in(cpu: &mut Cpu, port: u16, size: u8) -> u64 {
    cpu.stats.pio += 1;
    let value = cpu.mmu.io().map_or(u32::MAX, |io| io.pio_read(port, size));
    cpu.watch(u64::from(port), size, DataAccess::Io);
    u64::from(value)
}

/// Writes a port the guest may use.
pub(crate) fn port_out(cpu: &mut Cpu, port: u16, size: u8, value: u64) {
    cpu.stats.pio += 1;
    if let Some(io) = cpu.mmu.io() {
        io.pio_write(port, size, value as u32);
    }
    cpu.watch(u64::from(port), size, DataAccess::Io);
}

/// The port operand: immediate, or DX if `BY_DX`.
fn port<const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Fallible<u16> {
    let port = if BY_DX { cpu.reg::<u16>(2) } else { op.imm as u16 };
    let allowed = ioperm::check(&cpu.state, &mut cpu.mmu, port, op.size);
    cpu.check(allowed)?;
    Ok(port)
}

/// IN.
pub(crate) fn input<const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let port = port::<BY_DX>(cpu, op)?;
        let value = port_in(cpu, port, op.size);
        match op.size {
            1 => cpu.set_reg::<u8>(0, value as u8),
            2 => cpu.set_reg::<u16>(0, value as u16),
            _ => cpu.set_reg::<u32>(0, value as u32),
        }
        Ok(())
    };
    step(body(cpu))
}

/// OUT. Ends the block: the machine may have asked the processor to stop.
pub(crate) fn output<const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let port = port::<BY_DX>(cpu, op)?;
        port_out(cpu, port, op.size, cpu.state.gpr[gpr::RAX]);
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Jump)
    };
    step_to(body(cpu))
}

/// CPUID.
pub(crate) fn cpuid(cpu: &mut Cpu, _: &Op) -> Step {
    cpu.stats.cpuid += 1;
    let (leaf, subleaf) = (cpu.reg::<u32>(0), cpu.reg::<u32>(1));
    let [a, b, c, mut d] = x86::cpuid::cpuid(&cpu.model, &cpu.state, leaf, subleaf);
    if leaf == 1 && !apic_enabled(cpu) {
        d &= !CPUID_APIC;
    }
    cpu.set_reg::<u32>(0, a);
    cpu.set_reg::<u32>(3, b);
    cpu.set_reg::<u32>(1, c);
    cpu.set_reg::<u32>(2, d);
    Step::Next
}

/// IA32_APIC_BASE.EN, which CPUID.01H:EDX.APIC shows (SDM vol. 3, 12.4.3).
fn apic_enabled(cpu: &mut Cpu) -> bool {
    let base = cpu.mmu.io().and_then(|io| io.msr_read(names::IA32_APIC_BASE));
    !matches!(base, Some(Ok(base)) if base & x86::apic::base::EN == 0)
}

fn set_pair(cpu: &mut Cpu, value: u64) {
    cpu.set_reg::<u32>(0, value as u32);
    cpu.set_reg::<u32>(2, (value >> 32) as u32);
}

fn pair(cpu: &Cpu) -> u64 {
    u64::from(cpu.reg::<u32>(2)) << 32 | u64::from(cpu.reg::<u32>(0))
}

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
        let value = match cpu.mmu.io().and_then(|io| io.msr_read(register)) {
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
        match cpu.mmu.io().and_then(|io| io.msr_write(register, value)) {
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
        if let Some(io) = cpu.mmu.io() {
            io.tsc_offset_changed(offset);
        }
    }
    Ok(())
}

/// INVLPG.
pub(crate) fn invlpg(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        // Segmentation applies without faults: a non-canonical or out-of-limit address simply has
        // no translation.
        let offset = cpu.offset(op);
        let long = cpu.mode == Mode::Long64;
        let base = if long && op.seg < Seg::Fs as u8 {
            0
        } else {
            cpu.state.seg[usize::from(op.seg) % 6].base
        };
        let la = base.wrapping_add(offset);
        let la = if long { la } else { la & 0xffff_ffff };
        let result = control::invlpg(&cpu.state, &mut cpu.mmu, la);
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
        let result = control::invpcid(&cpu.model, &cpu.state, &mut cpu.mmu, kind, operand);
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

/// LFENCE, MFENCE, SFENCE: MFENCE must also hold back this thread's later loads; the host's own
/// fence does.
pub(crate) fn fence(_: &mut Cpu, _: &Op) -> Step {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Step::Next
}

/// PAUSE.
pub(crate) fn pause(_: &mut Cpu, _: &Op) -> Step {
    std::hint::spin_loop();
    Step::Next
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

/// RDFSBASE (`imm` 4), RDGSBASE (5), into `dst`.
pub(crate) fn read_base(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        fsgsbase(cpu)?;
        let base = cpu.state.seg[op.imm as usize % 6].base;
        set_long_or_double(cpu, op, base);
        Ok(())
    };
    step(body(cpu))
}

/// WRFSBASE, WRGSBASE from `dst`.
pub(crate) fn write_base(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        fsgsbase(cpu)?;
        let base =
            if op.size == 8 { cpu.reg::<u64>(op.dst) } else { u64::from(cpu.reg::<u32>(op.dst)) };
        if !x86::paging::is_canonical(base) {
            return cpu.gp();
        }
        cpu.state.seg[op.imm as usize % 6].base = base;
        Ok(())
    };
    step(body(cpu))
}

fn fsgsbase(cpu: &mut Cpu) -> Fallible {
    if cpu.state.paging.cr4.contains(Cr4::FSGSBASE) { Ok(()) } else { cpu.ud() }
}
