//! The 8042 keyboard controller (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and
//! Auxiliary Device Controller") with nothing plugged in.
//!
//! A byte sent to the absent keyboard or mouse is answered at once as the controller answers a
//! device that is silent: FEH with the timeout bit, so that drivers give up fast. A20 is always
//! open.

use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::power::{PowerEvent, PowerSink};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// Status: the output buffer is full.
const OBF: u8 = 1 << 0;
/// Status: system flag.
const SYS: u8 = 1 << 2;
/// Status: the last byte written was a command.
const CMD: u8 = 1 << 3;
/// Status: not inhibited by the key lock.
const UNLOCKED: u8 = 1 << 4;
/// Status: the output buffer holds a byte of the auxiliary device.
const AUX: u8 = 1 << 5;
/// Status: timeout.
const TIMEOUT: u8 = 1 << 6;

/// Command byte: keyboard interrupt.
const CTR_IRQ1: u8 = 1 << 0;
/// Command byte: system flag.
const CTR_SYS: u8 = 1 << 2;
/// Command byte: keyboard disabled.
const CTR_KBD_OFF: u8 = 1 << 4;
/// Command byte: scan codes are translated to set 1.
const CTR_XLATE: u8 = 1 << 6;
/// Command byte: auxiliary device disabled.
const CTR_AUX_OFF: u8 = 1 << 5;

/// What a device that does not answer is reported as.
const RESEND: u8 = 0xFE;
/// Output port: not in reset, A20 open.
const OUTPUT_PORT: u8 = 0b1100_1111;

/// The registers. Its fields are its saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Core {
    ram: [u8; 32],
    output: u8,
    /// OBF, AUX, TIMEOUT, CMD.
    status: u8,
    /// The command whose data byte is to come.
    command: Option<u8>,
}

impl Core {
    fn new() -> Self {
        let mut ram = [0; 32];
        ram[0] = CTR_SYS | CTR_KBD_OFF | CTR_AUX_OFF | CTR_XLATE;
        Self { ram, output: 0, status: 0, command: None }
    }

    fn answer(&mut self, byte: u8, flags: u8) {
        self.output = byte;
        self.status = self.status & CMD | OBF | flags;
    }

    fn read_data(&mut self) -> u8 {
        self.status &= CMD;
        self.output
    }

    fn read_status(&self) -> u8 {
        self.status | UNLOCKED | if self.ram[0] & CTR_SYS != 0 { SYS } else { 0 }
    }

    fn interrupt(&self) -> bool {
        self.status & (OBF | AUX) == OBF && self.ram[0] & CTR_IRQ1 != 0
    }

    /// A write to 64H. True: reset.
    fn command(&mut self, command: u8) -> bool {
        self.status |= CMD;
        self.command = None;
        match command {
            0x20..=0x3F => self.answer(self.ram[usize::from(command & 31)], 0),
            0x60..=0x7F | 0xD1..=0xD4 => self.command = Some(command),
            0xA7 => self.ram[0] |= CTR_AUX_OFF,
            0xA8 => self.ram[0] &= !CTR_AUX_OFF,
            // Interface tests: the auxiliary device's clock line is stuck; the keyboard's lines are
            // well.
            0xA9 => self.answer(0x02, 0),
            0xAA => {
                self.ram[0] |= CTR_SYS;
                self.answer(0x55, 0);
            }
            0xAB => self.answer(0x00, 0),
            0xAD => self.ram[0] |= CTR_KBD_OFF,
            0xAE => self.ram[0] &= !CTR_KBD_OFF,
            0xC0 => self.answer(0x80, 0),
            0xD0 => self.answer(OUTPUT_PORT, 0),
            // Pulse output lines: line 0 is the processor's reset.
            0xF0..=0xFF => return command & 1 == 0,
            _ => {}
        }
        false
    }

    /// A write to 60H. True: reset.
    fn data(&mut self, byte: u8) -> bool {
        self.status &= !CMD;
        match self.command.take() {
            Some(command @ 0x60..=0x7F) => self.ram[usize::from(command & 31)] = byte,
            Some(0xD1) => return byte & 1 == 0,
            // To the output buffer as from the keyboard, and, there being no auxiliary interface,
            // as from it.
            Some(0xD2 | 0xD3) => self.answer(byte, 0),
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

/// The keyboard controller on ports 60H and 64H, with no keyboard.
#[derive(Debug)]
pub struct I8042 {
    core: Core,
    power: PowerSink,
    irq1: IrqLine,
}

/// The state of the keyboard controller, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct I8042State {
    /// 1.
    pub version: u32,
    core: Core,
}

impl I8042 {
    /// As after power-up; pulsing the reset line tells `power`.
    pub fn new(power: PowerSink) -> Arc<Mutex<Self>> {
        let irq1 = IrqLine::unconnected();
        Arc::new(Mutex::new(Self { core: Core::new(), power, irq1 }))
    }

    /// Connects the keyboard interrupt.
    pub fn connect_irq1(&mut self, irq1: IrqLine) {
        self.irq1 = irq1;
    }

    /// The saved state.
    pub fn save(&self) -> I8042State {
        let Self { core, power: _, irq1: _ } = self;
        I8042State { version: 1, core: core.clone() }
    }

    /// Takes over `state`.
    pub fn restore(&mut self, state: &I8042State) {
        let I8042State { version: _, core } = state.clone();
        self.core = core;
        self.irq1.set(self.core.interrupt());
    }
}

impl PioDevice for I8042 {
    fn read(&mut self, port: u16, _size: u8) -> u32 {
        let value = match port {
            0x60 => self.core.read_data(),
            0x64 => self.core.read_status(),
            _ => 0xFF,
        };
        self.irq1.set(self.core.interrupt());
        u32::from(value)
    }

    fn write(&mut self, port: u16, _size: u8, value: u32) {
        let reset = match port {
            0x60 => self.core.data(value as u8),
            0x64 => self.core.command(value as u8),
            _ => false,
        };
        self.irq1.set(self.core.interrupt());
        if reset {
            self.power.send(PowerEvent::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::lock;

    #[test]
    fn self_test_command_byte_and_absent_devices() {
        let mut core = Core::new();
        core.command(0xAA);
        assert_eq!((core.read_status() & OBF, core.read_data()), (OBF, 0x55));
        assert_eq!(core.read_status() & OBF, 0);
        core.command(0x60);
        core.data(0x05);
        core.command(0x20);
        assert_eq!(core.read_data(), 0x05);
        core.data(0xED);
        assert_eq!(core.read_status() & (OBF | AUX | TIMEOUT), OBF | TIMEOUT);
        assert!(core.interrupt());
        assert_eq!(core.read_data(), RESEND);
        core.command(0xD4);
        core.data(0xF2);
        assert_eq!(core.read_status() & (OBF | AUX | TIMEOUT), OBF | AUX | TIMEOUT);
        assert!(!core.interrupt());
    }

    #[test]
    fn reset_lines_and_saved_state() {
        let events = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&events);
        let power = PowerSink::new(move |event| lock(&noted).push(event));
        let chip = I8042::new(power.clone());
        let mut chip = lock(&chip);
        chip.write(0x64, 1, 0xFE);
        assert_eq!(*lock(&events), [PowerEvent::Reset]);
        chip.write(0x64, 1, 0xFF);
        chip.write(0x64, 1, 0xD1);
        chip.write(0x60, 1, 0x03);
        assert_eq!(lock(&events).len(), 1);
        chip.write(0x64, 1, 0xD1);
        let saved = chip.save();
        let other = I8042::new(power);
        lock(&other).restore(&saved);
        assert_eq!(lock(&other).save(), saved);
        lock(&other).write(0x60, 1, 0x02);
        assert_eq!(lock(&events).len(), 2);
    }
}
