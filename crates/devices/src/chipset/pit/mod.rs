//! The 8254 interval timer (datasheet 231164) and port 61H (NMI status and control).
//!
//! Counter 0's OUT is IRQ0; counter 1 is free; counter 2's gate and OUT are bits of port 61H. The
//! host timer is armed for the changes of counter 0's OUT alone.

mod core;
mod counter;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use saved::{CounterState, PitState};
use x86::addr::{Port, PortWidth};

use self::core::{Core, tick, time_of};
use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::saved::RestoreError;
use crate::time::{Clock, Expire, ExpireMut, Timer, TimerQueue};
use counter::Tick;
use registers::{CONTROL, COUNTER_0};
use std::sync::{Arc, Mutex};
use sync::lock;

/// The host timer fires no more often than this.
const PERIOD_MIN_NS: u64 = 20_000;

/// The 8254 on ports 40H to 43H with port 61H (speaker gate, refresh toggle).
pub struct Pit {
    core: Core,
    clock: Arc<dyn Clock>,
    timer: Timer,
    irq0: IrqLine,
    /// Up to which tick counter 0's OUT has been driven.
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

    /// The saved state, with IRQ0 driven up to now: save the chips that it leads to afterwards.
    pub fn save(&mut self) -> PitState {
        self.drive(0);
        let Self { core, clock: _, timer: _, irq0: _, driven } = self;
        core.save(*driven)
    }

    /// Goes on from `state`, and drives the line and the timer.
    ///
    /// # Errors
    /// The state is another version's or no 8254's; nothing was changed.
    pub fn restore(&mut self, state: &PitState) -> Result<(), RestoreError> {
        (self.core, self.driven) = Core::restored(state, self.clock.now())?;
        self.drive(0);
        Ok(())
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
    fn read(&mut self, port: Port, _width: PortWidth) -> u32 {
        u32::from(self.core.read(port, self.clock.now()))
    }

    fn write(&mut self, port: Port, _width: PortWidth, value: u32) {
        // A rise that is due comes before the write.
        if matches!(port, COUNTER_0 | CONTROL) {
            self.drive(0);
        }
        self.core.write(port, value as u8, self.clock.now());
        if matches!(port, COUNTER_0 | CONTROL) {
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
