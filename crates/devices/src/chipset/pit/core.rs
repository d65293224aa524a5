//! The three counters and port 61H. Pure: VM nanoseconds are passed in.

use super::counter::{Counter, Tick};
use super::registers::*;
use crate::time::SECOND;
use x86::addr::Port;

/// The counters' input frequency in Hz.
const PIT_HZ: u64 = 1_193_182;

/// The refresh toggle of port 61H changes this often.
pub(super) const REFRESH_NS: u64 = 15_085;

/// The chip, and the port that gates counter 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Core {
    pub(super) counters: [Counter; 3],
    pub(super) port_b: u8,
}

/// The tick that VM time `ns` is in.
pub(super) fn tick(ns: u64) -> Tick {
    (u128::from(ns) * u128::from(PIT_HZ) / u128::from(SECOND)) as Tick
}

/// The first nanosecond of `tick`.
pub(super) fn time_of(tick: Tick) -> u64 {
    let tick = u128::from(tick.unsigned_abs());
    u64::try_from((tick * u128::from(SECOND)).div_ceil(u128::from(PIT_HZ))).unwrap_or(u64::MAX)
}

impl Core {
    pub(super) fn new() -> Self {
        let counters = [true, true, false].map(Counter::new);
        Self { counters, port_b: 0 }
    }

    pub(super) fn read(&mut self, port: Port, ns: u64) -> u8 {
        let now = tick(ns);
        match port {
            _ if (COUNTER_0..=COUNTER_2).contains(&port) => {
                self.counters[usize::from(port.0 & 3)].read(now)
            }
            PORT_B => {
                self.counters[2].advance(now);
                let refresh = if (ns / REFRESH_NS) & 1 != 0 { REFRESH } else { 0 };
                let out2 = if self.counters[2].out(now) { OUT2 } else { 0 };
                self.port_b | refresh | out2
            }
            _ => 0xFF,
        }
    }

    pub(super) fn write(&mut self, port: Port, value: u8, ns: u64) {
        let now = tick(ns);
        match port {
            _ if (COUNTER_0..=COUNTER_2).contains(&port) => {
                self.counters[usize::from(port.0 & 3)].write(value, now);
            }
            CONTROL => self.control(value, now),
            PORT_B => {
                self.port_b = value & PORT_B_WRITABLE;
                self.counters[2].set_gate(value & GATE2 != 0, now);
            }
            _ => {}
        }
    }

    fn control(&mut self, word: u8, now: Tick) {
        match self.counters.get_mut(usize::from(word >> SC_SHIFT)) {
            Some(counter) if word & RW == 0 => counter.latch_count(now),
            Some(counter) => counter.control(word),
            None => self.read_back(word, now),
        }
    }

    fn read_back(&mut self, word: u8, now: Tick) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if word & READ_BACK_0 << index == 0 {
                continue;
            }
            if word & NO_STATUS == 0 {
                counter.latch_status(now);
            }
            if word & NO_COUNT == 0 {
                counter.latch_count(now);
            }
        }
    }
}
