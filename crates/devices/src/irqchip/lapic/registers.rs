//! Register indices and bits of the local APIC (SDM vol. 3, 12.4.1 and 12.12.1.2).
//!
//! An index is the xAPIC offset divided by 16, and the x2APIC MSR minus 800H.

/// Local APIC ID.
pub(super) const ID: u8 = 0x02;
/// Version.
pub(super) const VERSION: u8 = 0x03;
/// Task priority.
pub(super) const TPR: u8 = 0x08;
/// Arbitration priority (xAPIC only).
pub(super) const APR: u8 = 0x09;
/// Processor priority.
pub(super) const PPR: u8 = 0x0A;
/// End of interrupt.
pub(super) const EOI: u8 = 0x0B;
/// Remote read (xAPIC only).
pub(super) const RRD: u8 = 0x0C;
/// Logical destination.
pub(super) const LDR: u8 = 0x0D;
/// Destination format (xAPIC only).
pub(super) const DFR: u8 = 0x0E;
/// Spurious interrupt vector.
pub(super) const SVR: u8 = 0x0F;
/// In-service, eight registers.
pub(super) const ISR: u8 = 0x10;
/// Trigger mode, eight registers.
pub(super) const TMR: u8 = 0x18;
/// Interrupt request, eight registers.
pub(super) const IRR: u8 = 0x20;
/// Error status.
pub(super) const ESR: u8 = 0x28;
/// Interrupt command, low half (x2APIC: all of it).
pub(super) const ICR_LOW: u8 = 0x30;
/// Interrupt command, high half (xAPIC only).
pub(super) const ICR_HIGH: u8 = 0x31;
/// LVT timer: the first of the six LVT registers.
pub(super) const LVT_TIMER: u8 = 0x32;
/// LVT error: the last of them.
pub(super) const LVT_ERROR: u8 = 0x37;
/// Initial count.
pub(super) const INITIAL_COUNT: u8 = 0x38;
/// Current count.
pub(super) const CURRENT_COUNT: u8 = 0x39;
/// Divide configuration.
pub(super) const DIVIDE: u8 = 0x3E;
/// Self IPI (x2APIC only).
pub(super) const SELF_IPI: u8 = 0x3F;

/// Version 14H with six LVT entries; no EOI-broadcast suppression.
pub(super) const VERSION_VALUE: u32 = 0x0005_0014;

/// SVR: the APIC is software-enabled.
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// SVR: focus-processor checking, kept without effect.
pub(super) const SVR_FOCUS: u32 = 1 << 9;

/// SVR: the bits that exist.
pub(super) const SVR_BITS: u32 = 0xFF | SVR_ENABLE | SVR_FOCUS;

/// LVT: the vector.
pub(super) const LVT_VECTOR: u32 = 0xFF;
/// LVT: the delivery mode.
pub(super) const LVT_MODE: u32 = 7 << 8;
/// LVT: delivery status (read-only, always idle here).
pub(super) const LVT_STATUS: u32 = 1 << 12;
/// LVT LINTx: input polarity, kept without effect (inputs carry assertion).
pub(super) const LVT_POLARITY: u32 = 1 << 13;
/// LVT LINTx: remote IRR (read-only).
pub(super) const LVT_REMOTE_IRR: u32 = 1 << 14;
/// LVT LINTx: level-triggered.
pub(super) const LVT_LEVEL: u32 = 1 << 15;
/// LVT: masked.
pub(super) const LVT_MASK: u32 = 1 << 16;
/// LVT timer: its mode.
pub(super) const LVT_TIMER_MODE: u32 = 3 << 17;

/// Positions in the LVT.
pub(super) mod lvt {
    pub(in super::super) const TIMER: usize = 0;
    pub(in super::super) const THERMAL: usize = 1;
    pub(in super::super) const PERFORMANCE: usize = 2;
    pub(in super::super) const LINT0: usize = 3;
    pub(in super::super) const LINT1: usize = 4;
    pub(in super::super) const ERROR: usize = 5;
    pub(in super::super) const COUNT: usize = 6;
}

/// The bits of LVT entry `index` that exist.
pub(super) const fn lvt_bits(index: usize) -> u32 {
    let common = LVT_VECTOR | LVT_STATUS | LVT_MASK;
    match index {
        lvt::TIMER => common | LVT_TIMER_MODE,
        lvt::THERMAL | lvt::PERFORMANCE => common | LVT_MODE,
        lvt::LINT0 | lvt::LINT1 => common | LVT_MODE | LVT_POLARITY | LVT_REMOTE_IRR | LVT_LEVEL,
        _ => common,
    }
}

/// The bits of LVT entries that software cannot write.
pub(super) const LVT_READ_ONLY: u32 = LVT_STATUS | LVT_REMOTE_IRR;

/// ESR: an IPI was to be sent with a vector below 16.
pub(super) const ESR_SEND_ILLEGAL: u32 = 1 << 5;
/// ESR: an interrupt was received with a vector below 16.
pub(super) const ESR_RECEIVE_ILLEGAL: u32 = 1 << 6;
/// ESR: an access to a register that is not there (xAPIC only).
pub(super) const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// The bits of ICR_LOW that software can write.
pub(super) const ICR_LOW_BITS: u32 = 0x000C_CFFF;
/// ICR: level (asserted).
pub(super) const ICR_ASSERT: u32 = 1 << 14;
/// ICR: level-triggered.
pub(super) const ICR_LEVEL: u32 = 1 << 15;
/// ICR: logical destination.
pub(super) const ICR_LOGICAL: u32 = 1 << 11;
/// ICR: destination shorthand.
pub(super) const ICR_SHORTHAND: u32 = 3 << 18;

/// The bits of the divide configuration register that exist.
pub(super) const DIVIDE_BITS: u32 = 0b1011;

/// IA32_APIC_BASE.
pub(super) const MSR_APIC_BASE: u32 = 0x1B;
/// IA32_TSC_DEADLINE.
pub(super) const MSR_TSC_DEADLINE: u32 = 0x6E0;
/// The first x2APIC MSR.
pub(super) const MSR_X2APIC: u32 = 0x800;
/// The last of the block reserved for them.
pub(super) const MSR_X2APIC_LAST: u32 = 0x8FF;

/// IA32_APIC_BASE: the bootstrap processor.
pub(super) const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: x2APIC mode.
pub(super) const BASE_EXTD: u64 = 1 << 10;
/// IA32_APIC_BASE: enabled.
pub(super) const BASE_EN: u64 = 1 << 11;
/// IA32_APIC_BASE: the page's address (52 physical-address bits).
pub(super) const BASE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Where the page is after reset.
pub(super) const BASE_RESET: u64 = 0xFEE0_0000;
