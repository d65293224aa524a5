//! The chipset's single-register ports.

use crate::bus::PioDevice;
use crate::power::{PowerEvent, PowerSink};
use std::sync::{Arc, Mutex};

/// The reset control register, CF9H, inside the dword of the PCI configuration address, CF8H to CFBH.
///
/// It claims all four ports, so that a dword written to CF8H is not split into a write to CF9H; a machine
/// without PCI reads all-ones there.
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
    const REGISTER: u16 = 0xCF9;

    /// Resets are reported to `power`. The ACPI reset register is port CF9H with value 06H.
    pub fn new(power: PowerSink) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { power, control: 0 }))
    }
}

impl PioDevice for ResetPort {
    fn read(&mut self, port: u16, size: u8) -> u32 {
        if port == Self::REGISTER && size == 1 { u32::from(self.control) } else { u32::MAX }
    }

    fn write(&mut self, port: u16, size: u8, value: u32) {
        if port != Self::REGISTER || size != 1 {
            return;
        }
        let before = self.control;
        let value = value as u8 & (Self::SYS_RST | Self::RST_CPU | Self::FULL_RST);
        // RST_CPU does not stick: the reset clears it.
        self.control = value & !Self::RST_CPU;
        if value & Self::RST_CPU != 0 && before & Self::RST_CPU == 0 {
            self.power.send(PowerEvent::Reset);
        }
    }

    fn max_width(&self) -> u8 {
        4
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
    fn read(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }

    fn write(&mut self, _port: u16, _size: u8, value: u32) {
        self.power.send(PowerEvent::DebugExit(value as u8));
    }

    // A wide write is one exit, with its low byte.
    fn max_width(&self) -> u8 {
        4
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
}

impl PioDevice for PostPort {
    fn read(&mut self, _port: u16, _size: u8) -> u32 {
        u32::from(self.code)
    }

    fn write(&mut self, _port: u16, _size: u8, value: u32) {
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
}

impl PioDevice for FastA20 {
    fn read(&mut self, _port: u16, _size: u8) -> u32 {
        u32::from(self.control)
    }

    fn write(&mut self, _port: u16, _size: u8, value: u32) {
        let value = value as u8 | Self::A20;
        let reset = value & !self.control & Self::FAST_INIT != 0;
        self.control = value & !Self::FAST_INIT;
        if reset {
            self.power.send(PowerEvent::Reset);
        }
    }
}
