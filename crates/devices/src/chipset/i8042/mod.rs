//! The 8042 keyboard controller (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and
//! Auxiliary Device Controller") with nothing plugged in.
//!
//! A byte sent to the absent keyboard or mouse is answered at once as the controller answers a
//! device that is silent: FEH with the timeout bit, so that drivers give up fast. A20 is always
//! open.

mod core;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use saved::I8042State;
use x86::addr::{Port, PortWidth};

use self::core::Core;
use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::power::{PowerEvent, PowerSink};
use crate::saved::RestoreError;
use registers::{COMMAND_PORT, DATA_PORT};
use std::sync::{Arc, Mutex};

/// The keyboard controller on ports 60H and 64H, with no keyboard.
#[derive(Debug)]
pub struct I8042 {
    core: Core,
    power: PowerSink,
    irq1: IrqLine,
}

impl I8042 {
    /// As after power-up; pulsing the reset line tells `power`, and `irq1` is the keyboard's
    /// interrupt.
    pub fn new(power: PowerSink, irq1: IrqLine) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { core: Core::new(), power, irq1 }))
    }

    /// The saved state.
    pub fn save(&self) -> I8042State {
        let Self { core, power: _, irq1: _ } = self;
        core.save()
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// The state is another version's or no keyboard controller's; nothing was changed.
    pub fn restore(&mut self, state: &I8042State) -> Result<(), RestoreError> {
        self.core = Core::restored(state)?;
        self.irq1.set(self.core.interrupt());
        Ok(())
    }
}

impl PioDevice for I8042 {
    fn read(&mut self, port: Port, _width: PortWidth) -> u32 {
        let value = match port {
            DATA_PORT => self.core.read_data(),
            COMMAND_PORT => self.core.read_status(),
            _ => 0xFF,
        };
        self.irq1.set(self.core.interrupt());
        u32::from(value)
    }

    fn write(&mut self, port: Port, _width: PortWidth, value: u32) {
        let reset = match port {
            DATA_PORT => self.core.data(value as u8),
            COMMAND_PORT => self.core.command(value as u8),
            _ => false,
        };
        self.irq1.set(self.core.interrupt());
        if reset {
            self.power.send(PowerEvent::Reset);
        }
    }
}
