//! The 8254's control word and status (datasheet 231164, "Programming the 8254"), and port 61H.

use x86::addr::Port;

/// Ports of the counters 0 to 2.
pub(super) const COUNTER_0: Port = Port(0x40);
pub(super) const COUNTER_2: Port = Port(0x42);
/// Port of the control word, which cannot be read.
pub(super) const CONTROL: Port = Port(0x43);
/// Port B of the AT: NMI status and control.
pub(super) const PORT_B: Port = Port(0x61);

/// Control word, SC1:SC0: the counter; 3 is the read-back command.
pub(super) const SC_SHIFT: u32 = 6;
/// Control word, RW1:RW0: 0 latches the count, 1 low byte, 2 high byte, 3 low then high.
pub(super) const RW: u8 = 3 << RW_SHIFT;
pub(super) const RW_SHIFT: u32 = 4;
/// Control word, M2:M0: the mode; 6 and 7 are 2 and 3.
pub(super) const MODE_SHIFT: u32 = 1;
/// Control word: the counter counts in decimal.
pub(super) const BCD: u8 = 1 << 0;
/// What the status repeats of a control word.
pub(super) const WORD: u8 = 0x3F;

/// Read-back command: the counts are *not* latched.
pub(super) const NO_COUNT: u8 = 1 << 5;
/// Read-back command: the status is *not* latched.
pub(super) const NO_STATUS: u8 = 1 << 4;
/// Read-back command: counter 0; the others' bits follow.
pub(super) const READ_BACK_0: u8 = 1 << 1;

/// Status: the OUT pin.
pub(super) const STATUS_OUT_SHIFT: u32 = 7;
/// Status: the count written has not reached the counting element yet.
pub(super) const STATUS_NULL_SHIFT: u32 = 6;

/// Port 61H: counter 2's gate.
pub(super) const GATE2: u8 = 1 << 0;
/// Port 61H: bits that read back as written (gate, speaker, parity and channel-check disable).
pub(super) const PORT_B_WRITABLE: u8 = 0x0F;
/// Port 61H: refresh toggle.
pub(super) const REFRESH: u8 = 1 << 4;
/// Port 61H: counter 2's OUT.
pub(super) const OUT2: u8 = 1 << 5;
