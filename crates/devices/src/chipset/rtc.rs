//! The MC146818 real-time clock.
use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::time::{Clock, ExpireMut, TimerQueue};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time.
pub trait WallClock: Send + Sync {
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    fn unix_ns(&self) -> i128;
}

/// The host's wall time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemWallClock;

impl WallClock for SystemWallClock {
    fn unix_ns(&self) -> i128 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        }
    }
}

/// What an RTC is built from.
#[derive(Clone)]
pub struct RtcConfig {
    /// VM time, which paces the interrupts.
    pub clock: Arc<dyn Clock>,
    /// Where its timer is queued.
    pub timers: Arc<TimerQueue>,
    /// Wall time at power-up.
    pub wall: Arc<dyn WallClock>,
    /// IRQ8.
    pub irq8: IrqLine,
    /// RAM below 4 GiB in bytes, for the CMOS memory-size registers.
    pub ram_below_4g: u64,
    /// RAM above 4 GiB in bytes.
    pub ram_above_4g: u64,
}

/// The RTC on ports 70H and 71H.
#[derive(Debug)]
pub struct Rtc {}

impl Rtc {
    /// With the wall clock's time and a valid CMOS.
    pub fn new(config: RtcConfig) -> Arc<Mutex<Self>> {
        let _ = config;
        Arc::new(Mutex::new(Self {}))
    }
}

impl PioDevice for Rtc {
    fn read(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn write(&mut self, _port: u16, _size: u8, _value: u32) {}
}

impl ExpireMut for Rtc {
    fn expired(&mut self, _now: u64) {}
}
