//! The MC146818 real-time clock with the AT's CMOS RAM, on ports 70H (index) and 71H (data).

mod calendar;
mod core;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use saved::{HeldTime, RtcState};

use self::core::{Core, Now};
use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::saved::RestoreError;
use crate::time::{Clock, Expire, ExpireMut, Timer, TimerQueue};
use registers::{DATA_PORT, INDEX_PORT};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use x86::addr::{Port, PortWidth};

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
    /// Wall time, which the chip keeps until the guest sets it, and from then on with an offset.
    pub wall: Arc<dyn WallClock>,
    /// IRQ8.
    pub irq8: IrqLine,
    /// RAM below 4 GiB in bytes, for the CMOS memory-size registers.
    pub ram_below_4g: u64,
    /// RAM above 4 GiB in bytes.
    pub ram_above_4g: u64,
}

/// The RTC on ports 70H and 71H.
pub struct Rtc {
    core: Core,
    clock: Arc<dyn Clock>,
    wall: Arc<dyn WallClock>,
    timer: Timer,
    irq8: IrqLine,
}

impl Rtc {
    /// With the wall clock's time and a valid CMOS.
    pub fn new(config: RtcConfig) -> Arc<Mutex<Self>> {
        let RtcConfig { clock, timers, wall, irq8, ram_below_4g, ram_above_4g } = config;
        let timer = timers.timer("rtc");
        let mut core = Core::new(Now { wall: wall.unix_ns(), vm: clock.now() });
        write_memory_sizes(&mut core.ram, ram_below_4g, ram_above_4g);
        let rtc = Arc::new(Mutex::new(Self { core, clock, wall, timer: timer.clone(), irq8 }));
        let owner: Arc<dyn Expire> = Arc::clone(&rtc) as _;
        timer.connect(Arc::downgrade(&owner));
        rtc
    }

    /// The saved state, with IRQ8 driven up to now: save the chips that it leads to afterwards.
    pub fn save(&mut self) -> RtcState {
        self.drive();
        let Self { core, clock: _, wall: _, timer: _, irq8: _ } = self;
        core.save()
    }

    /// Goes on from `state`. The time goes on with the wall clock, not from where it was saved.
    ///
    /// # Errors
    /// The state is another version's or no RTC's; nothing was changed.
    pub fn restore(&mut self, state: &RtcState) -> Result<(), RestoreError> {
        self.core = Core::restored(state, self.clock.now())?;
        self.drive();
        Ok(())
    }

    fn now(&self) -> Now {
        Now { wall: self.wall.unix_ns(), vm: self.clock.now() }
    }

    fn drive(&mut self) {
        let now = self.now();
        self.core.advance(now);
        self.irq8.set(self.core.interrupt());
        self.timer.set(self.core.wait(now).map(|ns| now.vm.saturating_add(ns)));
    }
}

/// The memory-size registers that firmware leaves: 15H base memory and 17H, 30H extended memory in
/// KiB, 34H memory from 16 MiB and 5BH memory from 4 GiB in 64 KiB.
fn write_memory_sizes(ram: &mut [u8], below_4g: u64, above_4g: u64) {
    let mut put = |at: usize, value: u64, bytes: usize| {
        let top = (1 << (8 * bytes)) - 1;
        let value = value.min(top).to_le_bytes();
        if let Some(field) = ram.get_mut(at..at + bytes) {
            field.copy_from_slice(&value[..bytes]);
        }
    };
    let extended = below_4g.saturating_sub(1 << 20) >> 10;
    // Equipment: a coprocessor.
    put(0x14, 0x02, 1);
    put(0x15, (below_4g >> 10).min(640), 2);
    put(0x17, extended, 2);
    put(0x30, extended, 2);
    put(0x34, below_4g.saturating_sub(16 << 20) >> 16, 2);
    put(0x5B, above_4g >> 16, 3);
}

impl PioDevice for Rtc {
    fn read(&mut self, port: Port, _width: PortWidth) -> u32 {
        if port != DATA_PORT {
            // The index cannot be read.
            return 0xFF;
        }
        let value = self.core.read(self.core.index, self.now());
        self.drive();
        u32::from(value)
    }

    fn write(&mut self, port: Port, _width: PortWidth, value: u32) {
        match port {
            INDEX_PORT => self.core.index = value as u8,
            DATA_PORT => {
                self.core.write(self.core.index, value as u8, self.now());
                self.drive();
            }
            _ => {}
        }
    }
}

impl ExpireMut for Rtc {
    fn expired(&mut self, _now: u64) {
        self.drive();
    }
}

impl std::fmt::Debug for Rtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rtc({:?})", self.core)
    }
}
