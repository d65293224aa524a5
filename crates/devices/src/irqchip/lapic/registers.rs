//! Which of the local APIC's registers and bits this one has (SDM vol. 3, 12.4.1 and 12.12.1.2). A
//! register is named by its offset in the page.

pub(super) use x86::apic::reg::*;
pub(super) use x86::apic::{
    DEFAULT_BASE, DFR_CLUSTER, DFR_FLAT, TIMER_DIVIDE_BITS, X2APIC_MSR_BASE, X2APIC_MSR_LAST, base,
    esr, icr, lvt, svr,
};
pub(super) use x86::msr::names::{IA32_APIC_BASE, IA32_TSC_DEADLINE};

use x86::apic::version;

/// Bytes from one register to the next: bits 3:0 of an offset are none of its number's.
pub(super) const STEP_SHIFT: u32 = 4;

/// Version 14H with six LVT entries; no EOI-broadcast suppression.
pub(super) const VERSION_VALUE: u32 =
    (slot::COUNT as u32 - 1) << version::MAX_LVT_SHIFT | version::INTEGRATED;

/// SVR: the bits that exist. Focus-processor checking is kept without effect.
pub(super) const SVR_BITS: u32 = svr::VECTOR | svr::ENABLE | svr::FOCUS_DISABLED;

/// Positions in the LVT.
pub(super) mod slot {
    pub(in super::super) const TIMER: usize = 0;
    pub(in super::super) const THERMAL: usize = 1;
    pub(in super::super) const PERFORMANCE: usize = 2;
    pub(in super::super) const LINT0: usize = 3;
    pub(in super::super) const LINT1: usize = 4;
    pub(in super::super) const ERROR: usize = 5;
    pub(in super::super) const COUNT: usize = 6;
}

/// The bits that exist in the LVT entry at position `index`. The polarity is kept without effect,
/// since inputs carry assertion.
pub(super) const fn lvt_bits(index: usize) -> u32 {
    let common = lvt::VECTOR | lvt::PENDING | lvt::MASKED;
    match index {
        slot::TIMER => common | lvt::TIMER_MODE,
        slot::THERMAL | slot::PERFORMANCE => common | lvt::DELIVERY,
        slot::LINT0 | slot::LINT1 => {
            common | lvt::DELIVERY | lvt::ACTIVE_LOW | lvt::REMOTE_IRR | lvt::LEVEL
        }
        _ => common,
    }
}

/// The bits of LVT entries that software cannot write. Nothing is ever pending here.
pub(super) const LVT_READ_ONLY: u32 = lvt::PENDING | lvt::REMOTE_IRR;

/// The errors that are noted. An access to a register that is not there is one in xAPIC mode only.
pub(super) const ESR_BITS: u32 =
    esr::SEND_ILLEGAL_VECTOR | esr::RECEIVED_ILLEGAL_VECTOR | esr::ILLEGAL_REGISTER;

/// The bits of ICR_LOW that software can write.
pub(super) const ICR_LOW_BITS: u32 =
    lvt::VECTOR | lvt::DELIVERY | (icr::LOGICAL | icr::ASSERT | icr::LEVEL | icr::SHORTHAND) as u32;
