//! Registers and bits of the MC146818A (Motorola datasheet), and of the AT's two ports.

use x86::addr::Port;

/// Port 70H: the register's number, and bit 7, the AT's NMI mask.
pub(super) const INDEX_PORT: Port = Port(0x70);
/// Port 71H: the register.
pub(super) const DATA_PORT: Port = Port(0x71);

/// Bytes of RAM, the clock's registers included.
pub(super) const RAM: usize = 128;

pub(super) const SECONDS: u8 = 0x00;
pub(super) const SECONDS_ALARM: u8 = 0x01;
pub(super) const MINUTES: u8 = 0x02;
pub(super) const MINUTES_ALARM: u8 = 0x03;
pub(super) const HOURS: u8 = 0x04;
pub(super) const HOURS_ALARM: u8 = 0x05;
pub(super) const DAY_OF_WEEK: u8 = 0x06;
pub(super) const DAY_OF_MONTH: u8 = 0x07;
pub(super) const MONTH: u8 = 0x08;
pub(super) const YEAR: u8 = 0x09;
/// Register A.
pub(super) const A: u8 = 0x0A;
/// Register B.
pub(super) const B: u8 = 0x0B;
/// Register C.
pub(super) const C: u8 = 0x0C;
/// Register D.
pub(super) const D: u8 = 0x0D;
/// The century, by the PC's custom (and the FADT's).
pub(super) const CENTURY: u8 = 0x32;

/// A: update in progress.
pub(super) const A_UIP: u8 = 1 << 7;
/// A, DV2:DV1: the divider is held in reset.
pub(super) const A_RESET: u8 = 0x60;
/// A, RS3:RS0: the periodic interrupt's rate (table 5).
pub(super) const A_RATE: u8 = 0x0F;
/// B: time is being set.
pub(super) const B_SET: u8 = 1 << 7;
/// B and C: periodic, alarm and update interrupt.
pub(super) const PERIODIC: u8 = 1 << 6;
pub(super) const ALARM: u8 = 1 << 5;
pub(super) const UPDATE: u8 = 1 << 4;
/// B: binary rather than BCD.
pub(super) const B_DM: u8 = 1 << 2;
/// B: 24-hour form.
pub(super) const B_24: u8 = 1 << 1;
/// C: interrupt request.
pub(super) const C_IRQF: u8 = 1 << 7;
/// D: RAM and time are valid.
pub(super) const D_VRT: u8 = 1 << 7;

/// Hours in 12-hour form: afternoon.
pub(super) const PM: u8 = 1 << 7;
