//! Layout of the local APIC (SDM vol. 3, chapter 12), under the manual's names.
//!
//! Constants and functions of them alone; the nucleus includes this file. Offsets are those of the
//! memory-mapped page; register `r` of an x2APIC is MSR [`X2APIC_MSR_BASE`]` + (r >> 4)`.

/// Where the page lies after RESET.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;
/// First MSR of the x2APIC.
pub const X2APIC_MSR_BASE: u32 = 0x800;
/// Last MSR of the x2APIC's range.
pub const X2APIC_MSR_LAST: u32 = 0x8ff;

/// IA32_APIC_BASE, MSR 1BH (12.4.4, 12.12.1).
pub mod base {
    /// This is the bootstrap processor.
    pub const BSP: u64 = 1 << 8;
    /// x2APIC mode.
    pub const EXTD: u64 = 1 << 10;
    /// The APIC is enabled.
    pub const EN: u64 = 1 << 11;
    /// The page's physical address, of MAXPHYADDR bits.
    pub const ADDRESS: u64 = 0x3fff_ffff_f000;
}

/// Register offsets (tables 12-1 and 12-6).
#[allow(missing_docs)] // the manual's names
pub mod reg {
    pub const ID: u32 = 0x020;
    pub const VERSION: u32 = 0x030;
    pub const TPR: u32 = 0x080;
    pub const APR: u32 = 0x090;
    pub const PPR: u32 = 0x0a0;
    pub const EOI: u32 = 0x0b0;
    pub const RRD: u32 = 0x0c0;
    pub const LDR: u32 = 0x0d0;
    pub const DFR: u32 = 0x0e0;
    pub const SVR: u32 = 0x0f0;
    /// In-service: eight registers, 10H apart.
    pub const ISR: u32 = 0x100;
    /// Trigger mode: eight registers.
    pub const TMR: u32 = 0x180;
    /// Interrupt request: eight registers.
    pub const IRR: u32 = 0x200;
    pub const ESR: u32 = 0x280;
    pub const LVT_CMCI: u32 = 0x2f0;
    pub const ICR_LOW: u32 = 0x300;
    pub const ICR_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_LINT0: u32 = 0x350;
    pub const LVT_LINT1: u32 = 0x360;
    pub const LVT_ERROR: u32 = 0x370;
    pub const TIMER_INITIAL_COUNT: u32 = 0x380;
    pub const TIMER_CURRENT_COUNT: u32 = 0x390;
    pub const TIMER_DIVIDE: u32 = 0x3e0;
    /// x2APIC only.
    pub const SELF_IPI: u32 = 0x3f0;
}

/// Version register (12.4.8).
pub mod version {
    /// An integrated APIC.
    pub const INTEGRATED: u32 = 0x14;
    /// Bits 16–23: number of LVT entries less one.
    pub const MAX_LVT_SHIFT: u32 = 16;
}

/// Spurious-interrupt vector register (12.9).
pub mod svr {
    /// The spurious vector.
    pub const VECTOR: u32 = 0xff;
    /// Software enable.
    pub const ENABLE: u32 = 1 << 8;
    /// Focus processor checking disabled.
    pub const FOCUS_DISABLED: u32 = 1 << 9;
    /// After RESET: disabled, vector FFH.
    pub const RESET: u32 = 0xff;
}

/// Local vector table entries and the low half of the ICR (12.5.1, 12.6.1).
pub mod lvt {
    /// The vector.
    pub const VECTOR: u32 = 0xff;
    /// Where the delivery mode begins.
    pub const DELIVERY_SHIFT: u32 = 8;
    /// Its bits.
    pub const DELIVERY: u32 = 7 << 8;
    /// Send pending.
    pub const PENDING: u32 = 1 << 12;
    /// LINT pins: active low.
    pub const ACTIVE_LOW: u32 = 1 << 13;
    /// LINT pins: accepted, awaiting EOI.
    pub const REMOTE_IRR: u32 = 1 << 14;
    /// Level rather than edge.
    pub const LEVEL: u32 = 1 << 15;
    /// Masked.
    pub const MASKED: u32 = 1 << 16;
    /// Timer: the bits of the mode.
    pub const TIMER_MODE: u32 = 3 << TIMER_MODE_SHIFT;
    /// Timer: where the mode begins.
    pub const TIMER_MODE_SHIFT: u32 = 17;
    /// Timer: one shot.
    pub const TIMER_ONE_SHOT: u32 = 0;
    /// Timer: periodic.
    pub const TIMER_PERIODIC: u32 = 1;
    /// Timer: TSC deadline.
    pub const TIMER_TSC_DEADLINE: u32 = 2;
    /// After RESET: masked.
    pub const RESET: u32 = MASKED;
}

/// Delivery modes, of LVT, ICR, IOAPIC and MSI alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeliveryMode {
    /// The vector, to every destination.
    Fixed = 0,
    /// The vector, to the least busy destination.
    LowestPriority = 1,
    /// System management.
    Smi = 2,
    /// Non-maskable.
    Nmi = 4,
    /// INIT.
    Init = 5,
    /// Start-up, the vector naming a page.
    StartUp = 6,
    /// As if from an 8259.
    ExtInt = 7,
}

impl DeliveryMode {
    /// From the three bits; `None` for the reserved value 3.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

/// Interrupt command register (12.6.1).
pub mod icr {
    /// Logical rather than physical destination.
    pub const LOGICAL: u64 = 1 << 11;
    /// Delivery status: send pending.
    pub const PENDING: u64 = 1 << 12;
    /// Level: assert.
    pub const ASSERT: u64 = 1 << 14;
    /// Trigger mode: level.
    pub const LEVEL: u64 = 1 << 15;
    /// The destination shorthand.
    pub const SHORTHAND: u64 = 3 << SHORTHAND_SHIFT;
    /// Where the destination shorthand begins.
    pub const SHORTHAND_SHIFT: u32 = 18;
    /// Shorthand: none, the destination field counts.
    pub const NO_SHORTHAND: u64 = 0;
    /// Shorthand: self.
    pub const SELF: u64 = 1;
    /// Shorthand: all including self.
    pub const ALL: u64 = 2;
    /// Shorthand: all but self.
    pub const OTHERS: u64 = 3;
    /// Where an xAPIC's 8-bit destination begins.
    pub const XAPIC_DESTINATION_SHIFT: u32 = 56;
    /// Where an x2APIC's 32-bit destination begins.
    pub const X2APIC_DESTINATION_SHIFT: u32 = 32;
}

/// Error status register (12.5.3).
pub mod esr {
    /// An illegal vector was sent.
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    /// An illegal vector was received.
    pub const RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
    /// An access to a register that does not exist.
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// Destination format register: flat model (12.6.2.2).
pub const DFR_FLAT: u32 = 0xffff_ffff;
/// Destination format register: cluster model.
pub const DFR_CLUSTER: u32 = 0x0fff_ffff;

/// The bits of the divide configuration register.
pub const TIMER_DIVIDE_BITS: u32 = 0b1011;

/// The divisor that the divide configuration register's value selects (12.5.4).
pub const fn timer_divisor(divide: u32) -> u32 {
    match divide & 3 | divide >> 1 & 4 {
        7 => 1,
        n => 2 << n,
    }
}

/// The logical ID of x2APIC `id`: cluster in the upper half, one bit in the lower (12.12.10.2).
pub const fn x2apic_logical_id(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_of_figure_12_10() {
        let figure = [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)];
        for (bits, divisor) in figure {
            assert_eq!(timer_divisor(bits), divisor);
        }
    }

    #[test]
    fn the_page_is_within_the_physical_addresses() {
        assert_eq!(base::ADDRESS, ((1 << crate::paging::MAXPHYADDR) - 1) & !0xfff);
    }

    #[test]
    fn logical_ids() {
        assert_eq!(x2apic_logical_id(0), 1);
        assert_eq!(x2apic_logical_id(0x25), 0x2_0020);
    }

    #[test]
    fn delivery_modes_round_trip() {
        for bits in 0..8 {
            assert_eq!(
                DeliveryMode::from_bits(bits).map(|m| m as u32),
                (bits != 3).then_some(bits)
            );
        }
    }
}
