//! Bits and commands of the 8042 (IBM PS/2 Hardware Interface Technical Reference).

use x86::addr::Port;

/// Data.
pub(super) const DATA_PORT: Port = Port(0x60);
/// Status (read), command (write).
pub(super) const COMMAND_PORT: Port = Port(0x64);

/// Status: the output buffer is full.
pub(super) const OBF: u8 = 1 << 0;
/// Status: system flag.
pub(super) const SYS: u8 = 1 << 2;
/// Status: the last byte written was a command.
pub(super) const CMD: u8 = 1 << 3;
/// Status: not inhibited by the key lock.
pub(super) const UNLOCKED: u8 = 1 << 4;
/// Status: the output buffer holds a byte of the auxiliary device.
pub(super) const AUX: u8 = 1 << 5;
/// Status: timeout.
pub(super) const TIMEOUT: u8 = 1 << 6;

/// Command byte: keyboard interrupt.
pub(super) const CTR_IRQ1: u8 = 1 << 0;
/// Command byte: system flag.
pub(super) const CTR_SYS: u8 = 1 << 2;
/// Command byte: keyboard disabled.
pub(super) const CTR_KBD_OFF: u8 = 1 << 4;
/// Command byte: scan codes are translated to set 1.
pub(super) const CTR_XLATE: u8 = 1 << 6;
/// Command byte: auxiliary device disabled.
pub(super) const CTR_AUX_OFF: u8 = 1 << 5;

/// What the controller reports of a device that does not answer.
pub(super) const RESEND: u8 = 0xFE;
/// Output port: not in reset, A20 open.
pub(super) const OUTPUT_PORT: u8 = 0b1100_1111;

/// Commands 20H to 3FH and 60H to 7FH read and write the controller's RAM, of which byte 0 is the
/// command byte.
pub(super) const RAM: usize = 32;
/// Command: reads or writes that byte of the RAM.
pub(super) const RAM_INDEX: u8 = 31;
/// Command: the auxiliary device off and on.
pub(super) const AUX_DISABLE: u8 = 0xA7;
pub(super) const AUX_ENABLE: u8 = 0xA8;
/// Command: the auxiliary interface's test.
pub(super) const AUX_TEST: u8 = 0xA9;
/// Command: self-test.
pub(super) const SELF_TEST: u8 = 0xAA;
/// Command: the keyboard interface's test.
pub(super) const KBD_TEST: u8 = 0xAB;
/// Command: the keyboard off and on.
pub(super) const KBD_DISABLE: u8 = 0xAD;
pub(super) const KBD_ENABLE: u8 = 0xAE;
/// Command: reads the input port.
pub(super) const READ_INPUT: u8 = 0xC0;
/// Command: reads the output port.
pub(super) const READ_OUTPUT: u8 = 0xD0;
/// Command: writes the output port.
pub(super) const WRITE_OUTPUT: u8 = 0xD1;
/// Command: to the output buffer, as if from the keyboard.
pub(super) const WRITE_KBD_OUTPUT: u8 = 0xD2;
/// Command: to the output buffer, as if from the auxiliary device.
pub(super) const WRITE_AUX_OUTPUT: u8 = 0xD3;
/// Command: to the auxiliary device.
pub(super) const WRITE_AUX: u8 = 0xD4;
/// Commands F0H to FFH pulse the output lines of which their bit is clear; line 0 resets.
pub(super) const PULSE: u8 = 0xF0;
/// Output port and pulse commands: the processor is not in reset.
pub(super) const NO_RESET: u8 = 1 << 0;
