//! The chipset's single-register ports.

mod saved;
#[cfg(test)]
mod tests;

pub use saved::LatchState;
use x86::addr::{Port, PortWidth};

use crate::bus::PioDevice;
use crate::power::{PowerEvent, PowerSink};
use crate::saved::RestoreError;
use std::sync::{Arc, Mutex};

/// The reset control register, CF9H, inside the dword of the PCI configuration address, CF8H to
/// CFBH.
///
/// It is a byte port ([`crate::bus::Bus::add_byte_port`]): a dword written to CF8H is no write to
/// CF9H, and all else there is PCI's.
#[derive(Debug)]
pub struct ResetPort {
    power: PowerSink,
    control: u8,
}

impl ResetPort {
    /// SYS_RST: hard rather than soft reset.
    const SYS_RST: u8 = 1 << 1;
    /// RST_CPU: its rise resets.
    const RST_CPU: u8 = 1 << 2;
    /// FULL_RST: cycle the power, too.
    const FULL_RST: u8 = 1 << 3;

    /// Resets are reported to `power`. The ACPI reset register is port CF9H with value 06H.
    pub fn new(power: PowerSink) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { power, control: 0 }))
    }

    /// The saved state.
    pub fn save(&self) -> LatchState {
        let Self { power: _, control } = self;
        LatchState::new(*control)
    }

    /// Goes on from `state`; nothing is reset.
    ///
    /// # Errors
    /// The state is another version's or another port's; nothing was changed.
    pub fn restore(&mut self, state: &LatchState) -> Result<(), RestoreError> {
        self.control = state.value_of("reset register", 0, Self::SYS_RST | Self::FULL_RST)?;
        Ok(())
    }
}

impl PioDevice for ResetPort {
    fn read(&mut self, _port: Port, _width: PortWidth) -> u32 {
        u32::from(self.control)
    }

    fn write(&mut self, _port: Port, _width: PortWidth, value: u32) {
        let before = self.control;
        let value = value as u8 & (Self::SYS_RST | Self::RST_CPU | Self::FULL_RST);
        // RST_CPU does not stick: the reset clears it.
        self.control = value & !Self::RST_CPU;
        if value & Self::RST_CPU != 0 && before & Self::RST_CPU == 0 {
            self.power.send(PowerEvent::Reset);
        }
    }
}

/// The debug-exit port (by custom F4H): a byte written there ends the process with `byte << 1 | 1`.
#[derive(Debug)]
pub struct DebugExit {
    power: PowerSink,
}

impl DebugExit {
    /// Exits are reported to `power`.
    pub fn new(power: PowerSink) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { power }))
    }
}

impl PioDevice for DebugExit {
    fn read(&mut self, _port: Port, _width: PortWidth) -> u32 {
        0
    }

    fn write(&mut self, _port: Port, _width: PortWidth, value: u32) {
        self.power.send(PowerEvent::DebugExit(value as u8));
    }

    // A wide write is one exit, with its low byte.
    fn max_width(&self) -> PortWidth {
        PortWidth::B4
    }
}

/// The POST code port, 80H: a latch, also written by guests as a delay.
#[derive(Debug, Default)]
pub struct PostPort {
    code: u8,
}

impl PostPort {
    /// Zero.
    pub fn new() -> Arc<Mutex<Self>> {
        Arc::default()
    }

    /// The saved state.
    pub fn save(&self) -> LatchState {
        let Self { code } = self;
        LatchState::new(*code)
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// The state is another version's or another port's; nothing was changed.
    pub fn restore(&mut self, state: &LatchState) -> Result<(), RestoreError> {
        self.code = state.value_of("POST port", 0, u8::MAX)?;
        Ok(())
    }
}

impl PioDevice for PostPort {
    fn read(&mut self, _port: Port, _width: PortWidth) -> u32 {
        u32::from(self.code)
    }

    fn write(&mut self, _port: Port, _width: PortWidth, value: u32) {
        if self.code != value as u8 {
            tracing::debug!(target: "post", code = value as u8, "POST code");
        }
        self.code = value as u8;
    }
}

/// System control port A, 92H: fast reset, and an A20 gate that is always open.
#[derive(Debug)]
pub struct FastA20 {
    power: PowerSink,
    control: u8,
}

impl FastA20 {
    /// Its rise resets.
    const FAST_INIT: u8 = 1 << 0;
    /// A20 enabled.
    const A20: u8 = 1 << 1;

    /// Resets are reported to `power`.
    pub fn new(power: PowerSink) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { power, control: Self::A20 }))
    }

    /// The saved state.
    pub fn save(&self) -> LatchState {
        let Self { power: _, control } = self;
        LatchState::new(*control)
    }

    /// Goes on from `state`; nothing is reset.
    ///
    /// # Errors
    /// The state is another version's or another port's; nothing was changed.
    pub fn restore(&mut self, state: &LatchState) -> Result<(), RestoreError> {
        self.control = state.value_of("fast A20 port", Self::A20, !Self::FAST_INIT)?;
        Ok(())
    }
}

impl PioDevice for FastA20 {
    fn read(&mut self, _port: Port, _width: PortWidth) -> u32 {
        u32::from(self.control)
    }

    fn write(&mut self, _port: Port, _width: PortWidth, value: u32) {
        let value = value as u8 | Self::A20;
        let reset = value & !self.control & Self::FAST_INIT != 0;
        self.control = value & !Self::FAST_INIT;
        if reset {
            self.power.send(PowerEvent::Reset);
        }
    }
}
