//! The 8254 interval timer (datasheet 231164) and port 61H (NMI status and control).
//!
//! Counter 0's OUT is IRQ0; counter 1 is free; counter 2's gate and OUT are bits of port 61H. The
//! host timer is armed for the changes of counter 0's OUT alone.

mod counter;
#[cfg(test)]
mod tests;

use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::sync::lock;
use crate::time::{Clock, Expire, ExpireMut, SECOND, Timer, TimerQueue};
use counter::{Counter, Tick};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// The counters' input frequency in Hz.
pub const PIT_HZ: u64 = 1_193_182;

/// The host timer fires no more often than this.
const PERIOD_MIN_NS: u64 = 20_000;
/// The refresh toggle of port 61H changes this often.
const REFRESH_NS: u64 = 15_085;

/// Port 61H: counter 2's gate.
const GATE2: u8 = 1 << 0;
/// Port 61H: bits that read back as written (gate, speaker, parity and channel-check disable).
const PORT61_WRITABLE: u8 = 0x0F;
/// Port 61H: refresh toggle.
const REFRESH: u8 = 1 << 4;
/// Port 61H: counter 2's OUT.
const OUT2: u8 = 1 << 5;

/// The three counters and port 61H. Its fields are its saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Core {
    counters: [Counter; 3],
    port61: u8,
}

/// The tick that VM time `ns` is in.
fn tick(ns: u64) -> Tick {
    (u128::from(ns) * u128::from(PIT_HZ) / u128::from(SECOND)) as Tick
}

/// The first nanosecond of `tick`.
fn time_of(tick: Tick) -> u64 {
    let tick = u128::from(tick.unsigned_abs());
    u64::try_from((tick * u128::from(SECOND)).div_ceil(u128::from(PIT_HZ))).unwrap_or(u64::MAX)
}

impl Core {
    fn new() -> Self {
        Self { counters: [Counter::new(true), Counter::new(true), Counter::new(false)], port61: 0 }
    }

    fn read(&mut self, port: u16, ns: u64) -> u8 {
        let now = tick(ns);
        match port {
            0x40..=0x42 => self.counters[usize::from(port & 3)].read(now),
            0x61 => {
                self.counters[2].advance(now);
                let refresh = if (ns / REFRESH_NS) & 1 != 0 { REFRESH } else { 0 };
                let out2 = if self.counters[2].out(now) { OUT2 } else { 0 };
                self.port61 | refresh | out2
            }
            // The control word register cannot be read.
            _ => 0xFF,
        }
    }

    fn write(&mut self, port: u16, value: u8, ns: u64) {
        let now = tick(ns);
        match port {
            0x40..=0x42 => self.counters[usize::from(port & 3)].write(value, now),
            0x43 => self.control(value, now),
            0x61 => {
                self.port61 = value & PORT61_WRITABLE;
                self.counters[2].set_gate(value & GATE2 != 0, now);
            }
            _ => {}
        }
    }

    fn control(&mut self, word: u8, now: Tick) {
        match self.counters.get_mut(usize::from(word >> 6)) {
            Some(counter) if word & 0x30 == 0 => counter.latch_count(now),
            Some(counter) => counter.control(word),
            None => self.read_back(word, now),
        }
    }

    /// The read-back command: bit 5 clear latches counts, bit 4 clear the status, bits 3:1 select
    /// counters.
    fn read_back(&mut self, word: u8, now: Tick) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if word & 2 << index == 0 {
                continue;
            }
            if word & 1 << 4 == 0 {
                counter.latch_status(now);
            }
            if word & 1 << 5 == 0 {
                counter.latch_count(now);
            }
        }
    }
}

/// The 8254 on ports 40H to 43H with port 61H (speaker gate, refresh toggle).
pub struct Pit {
    core: Core,
    clock: Arc<dyn Clock>,
    timer: Timer,
    irq0: IrqLine,
    /// Up to which tick counter 0's OUT has been driven.
    driven: Tick,
}

/// The state of the 8254, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PitState {
    /// 1.
    pub version: u32,
    core: Core,
    driven: Tick,
}

impl Pit {
    /// As after reset; counter 0's output drives `irq0`.
    pub fn new(clock: Arc<dyn Clock>, timers: &Arc<TimerQueue>, irq0: IrqLine) -> Arc<Mutex<Self>> {
        let timer = timers.timer("pit");
        let pit = Self { core: Core::new(), clock, timer: timer.clone(), irq0, driven: 0 };
        let pit = Arc::new(Mutex::new(pit));
        let owner: Arc<dyn Expire> = Arc::clone(&pit) as _;
        timer.connect(Arc::downgrade(&owner));
        lock(&pit).drive(0);
        pit
    }

    /// A reset.
    pub fn reset(&mut self) {
        self.core = Core::new();
        self.drive(0);
    }

    /// The saved state.
    pub fn save(&self) -> PitState {
        let Self { core, clock: _, timer: _, irq0: _, driven } = self;
        PitState { version: 1, core: core.clone(), driven: *driven }
    }

    /// Takes over `state`, and drives the line and the timer.
    pub fn restore(&mut self, state: &PitState) {
        let PitState { version: _, core, driven } = state.clone();
        (self.core, self.driven) = (core, driven);
        self.drive(0);
    }

    /// Brings IRQ0 up to date and arms the timer for the next change, no sooner than `pause` from
    /// now.
    fn drive(&mut self, pause: u64) {
        let ns = self.clock.now();
        let now = tick(ns);
        let counter = &mut self.core.counters[0];
        if counter.last_rise(now).is_some_and(|rise| rise > self.driven) {
            self.irq0.set(false);
            self.irq0.set(true);
        }
        counter.advance(now);
        self.irq0.set(counter.out(now));
        self.driven = now;
        let next = counter.next_change(now).map(time_of);
        self.timer.set(next.map(|at| at.max(ns.saturating_add(pause))));
    }
}

impl PioDevice for Pit {
    fn read(&mut self, port: u16, _size: u8) -> u32 {
        u32::from(self.core.read(port, self.clock.now()))
    }

    fn write(&mut self, port: u16, _size: u8, value: u32) {
        // A rise that is due comes before the write.
        if matches!(port, 0x40 | 0x43) {
            self.drive(0);
        }
        self.core.write(port, value as u8, self.clock.now());
        if matches!(port, 0x40 | 0x43) {
            self.drive(0);
        }
    }
}

impl ExpireMut for Pit {
    fn expired(&mut self, _now: u64) {
        self.drive(PERIOD_MIN_NS);
    }
}

impl std::fmt::Debug for Pit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pit({:?})", self.core)
    }
}
