//! The chipset's single-register ports.

use crate::bus::PioDevice;
use crate::power::{PowerEvent, PowerSink};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// The state of a port with one register, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatchState {
    /// 1.
    pub version: u32,
    /// The register.
    pub value: u8,
}

impl LatchState {
    fn new(value: u8) -> Self {
        Self { version: 1, value }
    }
}

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

    /// Takes over `state`; nothing is reset.
    pub fn restore(&mut self, state: &LatchState) {
        let &LatchState { version: _, value } = state;
        self.control = value;
    }
}

impl PioDevice for ResetPort {
    fn read(&mut self, _port: u16, _size: u8) -> u32 {
        u32::from(self.control)
    }

    fn write(&mut self, _port: u16, _size: u8, value: u32) {
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

    /// The saved state.
    pub fn save(&self) -> LatchState {
        let Self { code } = self;
        LatchState::new(*code)
    }

    /// Takes over `state`.
    pub fn restore(&mut self, state: &LatchState) {
        let &LatchState { version: _, value } = state;
        self.code = value;
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

    /// The saved state.
    pub fn save(&self) -> LatchState {
        let Self { power: _, control } = self;
        LatchState::new(*control)
    }

    /// Takes over `state`; nothing is reset.
    pub fn restore(&mut self, state: &LatchState) {
        let &LatchState { version: _, value } = state;
        self.control = value;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::sync::lock;

    type Events = Arc<Mutex<Vec<PowerEvent>>>;

    fn sink() -> (PowerSink, Events) {
        let events = Events::default();
        let noted = Arc::clone(&events);
        (PowerSink::new(move |event| lock(&noted).push(event)), events)
    }

    #[test]
    fn the_reset_register_resets_on_the_rise_of_rst_cpu() {
        let (power, events) = sink();
        let mut bus = Bus::new();
        bus.add_byte_port("reset", 0xCF9, ResetPort::new(power)).unwrap();
        bus.pio_write(0xCF9, 1, 0x02);
        assert_eq!(bus.pio_read(0xCF9, 1), 0x02);
        assert!(lock(&events).is_empty());
        bus.pio_write(0xCF9, 1, 0x06);
        assert_eq!(*lock(&events), [PowerEvent::Reset]);
        bus.pio_write(0xCF9, 1, 0x0E);
        assert_eq!(lock(&events).len(), 2);
    }

    #[test]
    fn a_pci_configuration_address_is_no_reset() {
        let (power, events) = sink();
        let mut bus = Bus::new();
        bus.add_byte_port("reset", 0xCF9, ResetPort::new(power)).unwrap();
        bus.pio_write(0xCF8, 4, 0x8000_FFFC);
        bus.pio_write(0xCF8, 2, 0x06FF);
        bus.pio_write(0xCF9, 2, 0x0006);
        bus.pio_write(0xCFB, 1, 0x06);
        assert_eq!((bus.pio_read(0xCF8, 4), bus.pio_read(0xCFB, 1)), (u32::MAX, 0xFF));
        assert!(lock(&events).is_empty());
        // A PCI root may have all of these ports beside it.
        let root = PostPort::new();
        bus.add_pio("root", 0xCF8..=0xCFF, Arc::clone(&root) as _).unwrap();
        bus.pio_write(0xCF9, 1, 0x02);
        bus.pio_write(0xCF8, 4, 0x5A06_0606);
        assert_eq!((bus.pio_read(0xCF9, 1), bus.pio_read(0xCF8, 1)), (0x02, 0x5A));
        assert!(lock(&events).is_empty());
    }

    #[test]
    fn debug_exit_is_one_event_with_the_low_byte() {
        let (power, events) = sink();
        let mut bus = Bus::new();
        bus.add_pio("debug exit", 0xF4..=0xF7, DebugExit::new(power)).unwrap();
        bus.pio_write(0xF4, 1, 0x10);
        bus.pio_write(0xF4, 4, 0x2A);
        assert_eq!(*lock(&events), [PowerEvent::DebugExit(0x10), PowerEvent::DebugExit(0x2A)]);
    }

    #[test]
    fn a20_is_always_open_and_fast_init_resets() {
        let (power, events) = sink();
        let port = FastA20::new(power);
        let mut port = lock(&port);
        port.write(0x92, 1, 0x00);
        assert_eq!(port.read(0x92, 1), 0x02);
        port.write(0x92, 1, 0x01);
        assert_eq!(*lock(&events), [PowerEvent::Reset]);
    }

    #[test]
    fn latches_keep_their_state() {
        let (power, _) = sink();
        let (post, reset, a20) =
            (PostPort::new(), ResetPort::new(power.clone()), FastA20::new(power.clone()));
        lock(&post).write(0x80, 1, 0x5A);
        lock(&reset).write(0xCF9, 1, 0x0A);
        lock(&a20).write(0x92, 1, 0xC0);
        let others = (PostPort::new(), ResetPort::new(power.clone()), FastA20::new(power));
        lock(&others.0).restore(&lock(&post).save());
        lock(&others.1).restore(&lock(&reset).save());
        lock(&others.2).restore(&lock(&a20).save());
        assert_eq!(lock(&others.0).read(0x80, 1), 0x5A);
        assert_eq!(lock(&others.1).read(0xCF9, 1), 0x0A);
        assert_eq!(lock(&others.2).read(0x92, 1), 0xC2);
    }
}
