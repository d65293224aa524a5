//! Registers and bits of the IOAPIC (82093AA, section 3).

/// Index register.
pub(super) const IOREGSEL: u64 = 0x00;
/// Data window.
pub(super) const IOWIN: u64 = 0x10;
/// EOI register: the vector completed.
pub(super) const EOI: u64 = 0x40;

/// Interrupt inputs.
pub(super) const PINS: usize = 24;

/// IOAPICID.
pub(super) const IOAPICID: u8 = 0x00;
/// IOAPICID: the largest id, of four bits.
pub(super) const ID_MAX: u8 = 15;
/// IOAPICVER: 24 entries, version 20H, which has the EOI register.
pub(super) const IOAPICVER: u8 = 0x01;
pub(super) const IOAPICVER_VALUE: u32 = (PINS as u32 - 1) << 16 | 0x20;
/// IOAPICARB.
pub(super) const IOAPICARB: u8 = 0x02;
/// IOREDTBL: two registers per entry.
pub(super) const IOREDTBL: u8 = 0x10;
pub(super) const IOREDTBL_LAST: u8 = IOREDTBL + 2 * PINS as u8 - 1;

/// Entry: delivery status, read-only and always idle here.
pub(super) const DELIVERY_STATUS: u64 = 1 << 12;
/// Entry: a level-triggered interrupt is in flight; read-only.
pub(super) const REMOTE_IRR: u64 = 1 << 14;
/// Entry: level-triggered.
pub(super) const LEVEL: u64 = 1 << 15;
/// Entry: masked.
pub(super) const MASKED: u64 = 1 << 16;
/// Entry: logical destination.
pub(super) const LOGICAL: u64 = 1 << 11;
/// Entry: trigger mode, delivery mode, vector, which are the message's data.
pub(super) const MESSAGE: u64 = LEVEL | 0x7FF;
/// Entry: the bits that software can write.
pub(super) const WRITABLE: u64 = 0xFF00_0000_0001_FFFF & !(DELIVERY_STATUS | REMOTE_IRR);
