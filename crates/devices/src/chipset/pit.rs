//! The 8254 and port 61H.
use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::time::{Clock, ExpireMut, TimerQueue};
use std::sync::{Arc, Mutex};

/// The counters' input frequency in Hz.
pub const PIT_HZ: u64 = 1_193_182;

/// The 8254 on ports 40H to 43H with port 61H (speaker gate, refresh toggle).
#[derive(Debug)]
pub struct Pit {}

impl Pit {
    /// As after reset; counter 0's output drives `irq0`.
    pub fn new(clock: Arc<dyn Clock>, timers: &Arc<TimerQueue>, irq0: IrqLine) -> Arc<Mutex<Self>> {
        let _ = (clock, timers, irq0);
        Arc::new(Mutex::new(Self {}))
    }
}

impl PioDevice for Pit {
    fn read(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn write(&mut self, _port: u16, _size: u8, _value: u32) {}
}

impl ExpireMut for Pit {
    fn expired(&mut self, _now: u64) {}
}
