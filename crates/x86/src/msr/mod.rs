//! Model-specific registers that hold processor state (SDM vol. 4, chapter 2).
//!
//! RDMSR and WRMSR as pure functions of the model and the state. The caller has checked CPL
//! ([`permitted`]) and has asked the machine first, whose local APIC owns IA32_APIC_BASE,
//! IA32_TSC_DEADLINE and 800H–8FFH. What no processor of the model has raises #GP(0), and so does a
//! value it refuses.

mod memory_type;
pub mod names;
pub mod speculation;

use crate::addr::La;
pub use memory_type::MTRRCAP;

use crate::apic::base;
use crate::bus::TlbEffect;
use crate::cpuid::model::{BUS_HZ, MICROCODE_REVISION};
use crate::cpuid::{CpuModel, Feature};
use crate::exception::Exception;
use crate::regs::{Cr0, Efer};
use crate::state::{CpuState, Seg};
use crate::xsave::layout;
use names::*;

/// IA32_MISC_ENABLE: fast strings.
pub const FAST_STRING: u64 = 1 << 0;
/// IA32_MISC_ENABLE: CPUID stops at leaf 3.
pub const LIMIT_CPUID_MAXVAL: u64 = 1 << 22;
/// IA32_MISC_ENABLE: what has no counterpart in a virtual processor and merely keeps its value:
/// automatic thermal control, SpeedStep, no xTPR messages.
const PLATFORM: u64 = 1 << 3 | 1 << 16 | 1 << 23;
/// IA32_MISC_ENABLE: MONITOR and MWAIT, which no model has: it keeps its value where there is SSE3,
/// as the manual asks.
const MONITOR_FSM: u64 = 1 << 18;
/// IA32_MISC_ENABLE: CPUID shows no execute-disable bit, and EFER has none.
pub const XD_DISABLE: u64 = 1 << 34;
/// IA32_MISC_ENABLE: no branch trace storage, no PEBS. Read-only.
const TRACING_UNAVAILABLE: u64 = 1 << 11 | 1 << 12;
/// IA32_DEBUGCTL: single step on branches.
const BTF: u64 = 1 << 1;
/// IA32_DEBUGCTL: last-branch records, of which we have none: the bit does not stick.
const LBR: u64 = 1 << 0;
/// IA32_MCG_STATUS: RIPV, EIPV, MCIP.
const MCG_STATUS_BITS: u64 = 7;

const GP: Exception = Exception::gp(0);

/// RDMSR and WRMSR belong to level 0: #GP(0) elsewhere, virtual-8086 mode included.
pub fn permitted(state: &CpuState) -> Result<(), Exception> {
    if state.cpl == 0 { Ok(()) } else { Err(GP) }
}

/// RDMSR. `host_tsc` is the host's time-stamp counter now.
///
/// # Errors
/// #GP(0) for a register that the model does not have, or that cannot be read.
pub fn read(model: &CpuModel, state: &CpuState, msr: u32, host_tsc: u64) -> Result<u64, Exception> {
    if let Some(slot) = memory_type::slot(model, msr) {
        return Ok(slot.get(&state.msr));
    }
    need(exists(model, msr))?;
    let regs = &state.msr;
    Ok(match msr {
        IA32_TIME_STAMP_COUNTER => tsc(state, host_tsc),
        IA32_FEATURE_CONTROL => regs.feature_control,
        IA32_TSC_ADJUST => regs.tsc_adjust,
        IA32_SPEC_CTRL => regs.spec_ctrl,
        IA32_BIOS_SIGN_ID => u64::from(MICROCODE_REVISION) << 32,
        MSR_PLATFORM_INFO => ratio(model) << 8 | ratio(model) << 40,
        IA32_PERF_STATUS => ratio(model) << 8,
        IA32_MTRRCAP => MTRRCAP,
        IA32_ARCH_CAPABILITIES => speculation::capabilities(model),
        IA32_SYSENTER_CS => regs.sysenter_cs,
        IA32_SYSENTER_ESP => regs.sysenter_esp,
        IA32_SYSENTER_EIP => regs.sysenter_eip,
        IA32_MCG_STATUS => regs.mcg_status,
        IA32_MISC_ENABLE => regs.misc_enable | TRACING_UNAVAILABLE,
        IA32_DEBUGCTL => regs.debugctl,
        IA32_XSS => regs.xss,
        IA32_EFER => state.paging.efer.bits(),
        IA32_STAR => regs.star,
        IA32_LSTAR => regs.lstar,
        IA32_CSTAR => regs.cstar,
        IA32_FMASK => regs.fmask,
        IA32_FS_BASE => state.seg[Seg::Fs as usize].base,
        IA32_GS_BASE => state.seg[Seg::Gs as usize].base,
        IA32_KERNEL_GS_BASE => regs.kernel_gs_base,
        IA32_TSC_AUX => regs.tsc_aux,
        // No machine-check banks (MCG_CAP's count), a platform of type 0, no old Pentium errors.
        IA32_MCG_CAP | IA32_PLATFORM_ID | IA32_P5_MC_ADDR | IA32_P5_MC_TYPE => 0,
        _ => return Err(GP),
    })
}

/// WRMSR. Hands an effect other than `None` on to [`crate::bus::SystemBus::paging_changed`] with
/// the new `state.paging`; `None` means that the paging registers are as they were.
///
/// # Errors
/// #GP(0) for a register that the model does not have or that is read-only, and for a reserved bit,
/// a non-canonical address or an undefined memory type. The state is then unchanged.
pub fn write(
    model: &CpuModel,
    state: &mut CpuState,
    msr: u32,
    value: u64,
    host_tsc: u64,
) -> Result<TlbEffect, Exception> {
    if let Some(slot) = memory_type::slot(model, msr) {
        slot.check(value)?;
        *slot.of(&mut state.msr) = value;
        return Ok(TlbEffect::None);
    }
    need(exists(model, msr))?;
    if msr == IA32_EFER {
        return write_efer(model, state, value);
    }
    if let Some(register) = address_register(state, msr) {
        need(La(value).is_canonical())?;
        *register = value;
        return Ok(TlbEffect::None);
    }
    write_plain(model, state, msr, value, host_tsc)?;
    Ok(TlbEffect::None)
}

/// Whether the processor takes `value` for IA32_APIC_BASE, before its local APIC is asked (SDM vol.
/// 3, 12.4.4 and 12.12.1): no address beyond MAXPHYADDR, x2APIC mode only where CPUID tells of it.
///
/// # Errors
/// #GP(0).
pub fn check_apic_base(model: &CpuModel, value: u64) -> Result<(), Exception> {
    let mode = if model.has(Feature::X2apic) { base::EXTD } else { 0 };
    only(value, base::BSP | base::EN | base::ADDRESS | mode).map(|_| ())
}

/// The guest's time-stamp counter: what RDTSC reads.
pub const fn tsc(state: &CpuState, host_tsc: u64) -> u64 {
    host_tsc.wrapping_add(state.tsc_offset)
}

fn need(condition: bool) -> Result<(), Exception> {
    if condition { Ok(()) } else { Err(GP) }
}

/// Whether `model` has `msr`, as far as that depends on features.
fn exists(model: &CpuModel, msr: u32) -> bool {
    let any = |features: &[Feature]| features.iter().any(|&f| model.has(f));
    match msr {
        IA32_TIME_STAMP_COUNTER => any(&[Feature::Tsc]),
        IA32_TSC_ADJUST => any(&[Feature::TscAdjust]),
        IA32_SPEC_CTRL => speculation::controls(model) != 0,
        IA32_MTRRCAP => any(&[Feature::Mtrr]),
        IA32_ARCH_CAPABILITIES => any(&[Feature::ArchCapabilities]),
        IA32_SYSENTER_CS | IA32_SYSENTER_ESP | IA32_SYSENTER_EIP => any(&[Feature::Sep]),
        IA32_MCG_CAP | IA32_MCG_STATUS => any(&[Feature::Mca]),
        IA32_XSS => any(&[Feature::Xsaves]),
        IA32_EFER => any(&[Feature::Lm, Feature::Nx, Feature::Syscall]),
        IA32_STAR | IA32_LSTAR | IA32_CSTAR | IA32_FMASK => any(&[Feature::Syscall]),
        IA32_FS_BASE | IA32_GS_BASE | IA32_KERNEL_GS_BASE => any(&[Feature::Lm]),
        IA32_TSC_AUX => any(&[Feature::Rdtscp, Feature::Rdpid]),
        _ => true,
    }
}

/// The maximum non-turbo ratio to the bus clock.
fn ratio(model: &CpuModel) -> u64 {
    (model.tsc_hz / BUS_HZ) & 0xff
}

/// The registers that hold a linear address and take canonical ones only.
fn address_register(state: &mut CpuState, msr: u32) -> Option<&mut u64> {
    Some(match msr {
        IA32_SYSENTER_ESP => &mut state.msr.sysenter_esp,
        IA32_SYSENTER_EIP => &mut state.msr.sysenter_eip,
        IA32_LSTAR => &mut state.msr.lstar,
        IA32_CSTAR => &mut state.msr.cstar,
        IA32_FS_BASE => &mut state.seg[Seg::Fs as usize].base,
        IA32_GS_BASE => &mut state.seg[Seg::Gs as usize].base,
        IA32_KERNEL_GS_BASE => &mut state.msr.kernel_gs_base,
        _ => return None,
    })
}

fn write_plain(
    model: &CpuModel,
    state: &mut CpuState,
    msr: u32,
    value: u64,
    host_tsc: u64,
) -> Result<(), Exception> {
    let regs = &mut state.msr;
    match msr {
        IA32_TIME_STAMP_COUNTER => {
            let delta = value.wrapping_sub(tsc(state, host_tsc));
            shift_tsc(state, delta);
        }
        IA32_TSC_ADJUST => {
            let delta = value.wrapping_sub(regs.tsc_adjust);
            shift_tsc(state, delta);
        }
        IA32_SPEC_CTRL => regs.spec_ctrl = only(value, speculation::controls(model))?,
        IA32_PRED_CMD => speculation::command(model.has(Feature::SpecCtrl), value)?,
        IA32_FLUSH_CMD => speculation::command(model.has(Feature::FlushL1d), value)?,
        // A microcode update finds nothing to patch; clearing the signature precedes reading it.
        IA32_BIOS_UPDT_TRIG | IA32_BIOS_SIGN_ID => {}
        IA32_SYSENTER_CS => regs.sysenter_cs = value & 0xffff_ffff,
        IA32_MCG_STATUS => regs.mcg_status = only(value, MCG_STATUS_BITS)?,
        IA32_MISC_ENABLE => regs.misc_enable = misc_enable(model, value)?,
        IA32_DEBUGCTL => regs.debugctl = only(value, LBR | BTF)? & BTF,
        IA32_XSS => regs.xss = only(value, layout::supported_xss(model))?,
        IA32_STAR => regs.star = value,
        IA32_FMASK => regs.fmask = only(value, 0xffff_ffff)?,
        IA32_TSC_AUX => regs.tsc_aux = only(value, 0xffff_ffff)?,
        // Among them IA32_FEATURE_CONTROL, which firmware has locked.
        _ => return Err(GP),
    }
    Ok(())
}

/// `value` if it has no bit outside `allowed`.
fn only(value: u64, allowed: u64) -> Result<u64, Exception> {
    if value & !allowed == 0 { Ok(value) } else { Err(GP) }
}

/// Writing the TSC moves IA32_TSC_ADJUST by the same amount, and the other way round (SDM vol. 3,
/// 18.17.3).
fn shift_tsc(state: &mut CpuState, delta: u64) {
    state.tsc_offset = state.tsc_offset.wrapping_add(delta);
    state.msr.tsc_adjust = state.msr.tsc_adjust.wrapping_add(delta);
}

/// What the model's processor has of IA32_MISC_ENABLE (SDM vol. 4, table 2-2); the read-only bits
/// may be written as they read.
fn misc_enable(model: &CpuModel, value: u64) -> Result<u64, Exception> {
    let mut writable = FAST_STRING | LIMIT_CPUID_MAXVAL | PLATFORM;
    if model.has(Feature::Sse3) {
        writable |= MONITOR_FSM;
    }
    if model.has(Feature::Nx) {
        writable |= XD_DISABLE;
    }
    only(value, writable | TRACING_UNAVAILABLE).map(|v| v & writable)
}

/// IA32_EFER (SDM vol. 3, 2.2.1): LME only changes while paging is off; LMA is the processor's own.
fn write_efer(model: &CpuModel, state: &mut CpuState, value: u64) -> Result<TlbEffect, Exception> {
    let mut allowed = Efer::LMA;
    allowed.set(Efer::SCE, model.has(Feature::Syscall));
    allowed.set(Efer::LME, model.has(Feature::Lm));
    allowed.set(Efer::NXE, model.has(Feature::Nx) && state.msr.misc_enable & XD_DISABLE == 0);
    let old = state.paging.efer;
    let mut new = Efer::from_bits_retain(only(value, allowed.bits())?);
    new.set(Efer::LMA, old.contains(Efer::LMA));
    if state.paging.cr0.contains(Cr0::PG) {
        need(new.contains(Efer::LME) == old.contains(Efer::LME))?;
    }
    state.paging.efer = new;
    // NXE turns a reserved bit into a right: what was cached under the other meaning must go.
    Ok(if new == old { TlbEffect::None } else { TlbEffect::FlushAll })
}

#[cfg(test)]
mod tests;
