//! The 8042's registers and rules. Pure.

use super::registers::*;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Core {
    pub(super) ram: [u8; RAM],
    pub(super) output: u8,
    /// OBF, AUX, TIMEOUT, CMD.
    pub(super) status: u8,
    /// The command whose data byte is to come.
    pub(super) command: Option<u8>,
}

impl Core {
    pub(super) fn new() -> Self {
        let mut ram = [0; RAM];
        ram[0] = CTR_SYS | CTR_KBD_OFF | CTR_AUX_OFF | CTR_XLATE;
        Self { ram, output: 0, status: 0, command: None }
    }

    fn answer(&mut self, byte: u8, flags: u8) {
        self.output = byte;
        self.status = self.status & CMD | OBF | flags;
    }

    pub(super) fn read_data(&mut self) -> u8 {
        self.status &= CMD;
        self.output
    }

    pub(super) fn read_status(&self) -> u8 {
        self.status | UNLOCKED | if self.ram[0] & CTR_SYS != 0 { SYS } else { 0 }
    }

    pub(super) fn interrupt(&self) -> bool {
        self.status & (OBF | AUX) == OBF && self.ram[0] & CTR_IRQ1 != 0
    }

    /// A write to 64H. True: reset.
    pub(super) fn command(&mut self, command: u8) -> bool {
        self.status |= CMD;
        self.command = None;
        match command {
            0x20..=0x3F => self.answer(self.ram[usize::from(command & RAM_INDEX)], 0),
            _ if takes_data(command) => self.command = Some(command),
            AUX_DISABLE => self.ram[0] |= CTR_AUX_OFF,
            AUX_ENABLE => self.ram[0] &= !CTR_AUX_OFF,
            // Interface tests: the auxiliary device's clock line is stuck; the keyboard's lines are
            // well.
            AUX_TEST => self.answer(0x02, 0),
            SELF_TEST => {
                self.ram[0] |= CTR_SYS;
                self.answer(0x55, 0);
            }
            KBD_TEST => self.answer(0x00, 0),
            KBD_DISABLE => self.ram[0] |= CTR_KBD_OFF,
            KBD_ENABLE => self.ram[0] &= !CTR_KBD_OFF,
            READ_INPUT => self.answer(0x80, 0),
            READ_OUTPUT => self.answer(OUTPUT_PORT, 0),
            // Pulse output lines: line 0 is the processor's reset.
            PULSE..=0xFF => return command & NO_RESET == 0,
            _ => {}
        }
        false
    }

    /// A write to 60H. True: reset.
    pub(super) fn data(&mut self, byte: u8) -> bool {
        self.status &= !CMD;
        match self.command.take() {
            Some(command @ 0x60..=0x7F) => self.ram[usize::from(command & RAM_INDEX)] = byte,
            Some(WRITE_OUTPUT) => return byte & NO_RESET == 0,
            // To the output buffer as from the keyboard, and, there being no auxiliary interface,
            // as from it.
            Some(WRITE_KBD_OUTPUT | WRITE_AUX_OUTPUT) => self.answer(byte, 0),
            Some(_) => self.answer(RESEND, AUX | TIMEOUT),
            None => {
                // A byte to the keyboard enables its interface.
                self.ram[0] &= !CTR_KBD_OFF;
                self.answer(RESEND, TIMEOUT);
            }
        }
        false
    }
}

/// Whether `command` takes a byte of data.
pub(super) fn takes_data(command: u8) -> bool {
    matches!(command, 0x60..=0x7F | WRITE_OUTPUT..=WRITE_AUX)
}
