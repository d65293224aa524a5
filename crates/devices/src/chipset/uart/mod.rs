//! The 16550A UART.
use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::time::{Clock, ExpireMut, TimerQueue};
use std::io::Write;
use std::sync::{Arc, Mutex};

/// What a UART is built from.
pub struct UartConfig {
    /// Its first port of eight (COM1: 3F8H).
    pub base: u16,
    /// VM time.
    pub clock: Arc<dyn Clock>,
    /// Where its timer is queued.
    pub timers: Arc<TimerQueue>,
    /// Its interrupt (COM1: IRQ4).
    pub irq: IrqLine,
    /// Where transmitted bytes go; written on the vCPU's thread with the UART locked, so it must not block for long.
    pub output: Box<dyn Write + Send>,
}

/// A 16550A.
pub struct Uart {}

impl Uart {
    /// As after reset.
    pub fn new(config: UartConfig) -> Arc<Mutex<Self>> {
        let _ = config;
        Arc::new(Mutex::new(Self {}))
    }

    /// Offers received bytes; returns how many were accepted. Offer the rest when the drain callback rings.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let _ = bytes;
        0
    }

    /// How many bytes [`Uart::receive`] would accept now.
    pub fn wants_input(&self) -> usize {
        0
    }

    /// `drained` is called when [`Uart::wants_input`] has risen from 0. It is called with the UART locked and must only ring
    /// a bell (an eventfd).
    pub fn on_drain(&mut self, drained: impl Fn() + Send + 'static) {
        let _ = drained;
    }
}

impl PioDevice for Uart {
    fn read(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn write(&mut self, _port: u16, _size: u8, _value: u32) {}
}

impl ExpireMut for Uart {
    fn expired(&mut self, _now: u64) {}
}
