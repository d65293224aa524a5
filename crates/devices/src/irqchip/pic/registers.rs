//! Command words of the 8259A (datasheet 231468), and the pair's ports.

use x86::addr::Port;

/// The master's ports, with A0 = 0 and 1.
pub(super) const MASTER_A0: Port = Port(0x20);
pub(super) const MASTER_A1: Port = Port(0x21);
/// The slave's.
pub(super) const SLAVE_A0: Port = Port(0xA0);
pub(super) const SLAVE_A1: Port = Port(0xA1);
/// The edge/level control registers of the PIIX, the master's and the slave's.
pub(super) const ELCR1: Port = Port(0x4D0);
pub(super) const ELCR2: Port = Port(0x4D1);
/// ELCR bits that exist: IRQ0, 1, 2, 8 and 13 are always edge-triggered.
pub(super) const ELCR_BITS: [u8; 2] = [0xF8, 0xDE];
/// The master's input for the slave.
pub(super) const CASCADE: u8 = 2;

/// ICW1: begins initialization (bit 4 of a write to A0 = 0).
pub(super) const ICW1: u8 = 1 << 4;
/// ICW1.IC4: ICW4 follows.
pub(super) const ICW1_IC4: u8 = 1 << 0;
/// ICW1.SNGL: no ICW3.
pub(super) const ICW1_SNGL: u8 = 1 << 1;
/// ICW4.AEOI.
pub(super) const ICW4_AEOI: u8 = 1 << 1;
/// ICW4.SFNM: special fully nested mode.
pub(super) const ICW4_SFNM: u8 = 1 << 4;
/// OCW3 (bits 4:3 = 01).
pub(super) const OCW3: u8 = 1 << 3;
/// OCW3.ESMM: SMM is valid.
pub(super) const OCW3_ESMM: u8 = 1 << 6;
/// OCW3.SMM: special mask mode.
pub(super) const OCW3_SMM: u8 = 1 << 5;
/// OCW3.P: poll.
pub(super) const OCW3_POLL: u8 = 1 << 2;
/// OCW3.RR: RIS is valid.
pub(super) const OCW3_RR: u8 = 1 << 1;
/// OCW3.RIS: reads give the ISR.
pub(super) const OCW3_RIS: u8 = 1 << 0;
/// ICW2: the part of a vector that it gives; the input is the rest.
pub(super) const ICW2_BASE: u8 = 0xF8;
