//! One counter of the 8254 (datasheet 231164, "Mode Definitions"). Pure.
//!
//! Time is a tick number of the 1.193182 MHz clock. A counter is not stepped: it remembers the tick
//! at which its counting element was loaded, and count and OUT are functions of the ticks since. In
//! every mode the element is loaded one tick after the count is written or the gate triggers.

use super::registers::*;

/// A tick number; signed, since a half-cycle may have begun, in theory, before tick 0.
pub(super) type Tick = i64;

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counter {
    /// 0 to 5.
    pub(super) mode: u8,
    /// Bits 5:0 of the control word as written, which the status tells (mode 6 is 2, and reads as
    /// 6).
    pub(super) word: u8,
    /// RW1:RW0: 1 low byte, 2 high byte, 3 low then high.
    pub(super) access: u8,
    pub(super) bcd: bool,
    pub(super) gate: bool,
    /// The count register, as a number of ticks (1 to 65536); `None` until it is written.
    pub(super) count: Option<u32>,
    /// The count that the counting element runs on.
    pub(super) loaded: u32,
    /// The tick at which the element was loaded, while it counts.
    pub(super) since: Option<Tick>,
    /// Ticks counted when the gate stopped it.
    pub(super) held: Option<Tick>,
    /// Modes 2 and 3: a new count, taken over at this tick.
    pub(super) reload_at: Option<Tick>,
    /// The low byte, until the high byte follows.
    pub(super) low_byte: Option<u8>,
    /// The next read is the high byte.
    pub(super) high_next: bool,
    pub(super) latched_count: Option<u16>,
    pub(super) latched_status: Option<u8>,
}

impl Counter {
    pub(super) fn new(gate: bool) -> Self {
        Self::programmed(RW, gate)
    }

    /// After control word `word`, which is no latch command.
    pub(super) fn programmed(word: u8, gate: bool) -> Self {
        let mode = word >> MODE_SHIFT & 7;
        Self {
            // Modes 6 and 7 are 2 and 3.
            mode: if mode > 5 { mode - 4 } else { mode },
            word: word & WORD,
            access: (word & RW) >> RW_SHIFT,
            bcd: word & BCD != 0,
            gate,
            count: None,
            loaded: 0,
            since: None,
            held: None,
            reload_at: None,
            low_byte: None,
            high_next: false,
            latched_count: None,
            latched_status: None,
        }
    }

    /// A control word for this counter, other than the latch command.
    pub(super) fn control(&mut self, word: u8) {
        *self = Self::programmed(word, self.gate);
    }

    /// A byte written to the counter.
    pub(super) fn write(&mut self, byte: u8, now: Tick) {
        self.advance(now);
        match (self.access, self.low_byte.take()) {
            (1, _) => self.set_count(u16::from(byte), now),
            (2, _) => self.set_count(u16::from(byte) << 8, now),
            (_, Some(low)) => self.set_count(u16::from_le_bytes([low, byte]), now),
            (_, None) => {
                self.low_byte = Some(byte);
                // Mode 0: the first byte stops the count, and OUT goes low.
                if self.mode == 0 {
                    (self.since, self.held) = (None, None);
                }
            }
        }
    }

    fn set_count(&mut self, raw: u16, now: Tick) {
        let count = self.decode(raw);
        self.count = Some(count);
        match self.mode {
            // Started by the gate's rise alone.
            1 | 5 => {}
            2 | 3 if self.since.is_some() => {
                if self.held.is_none() {
                    self.reload_at = self.next_boundary(now);
                }
            }
            _ => self.load(now),
        }
    }

    /// Loads the counting element at the next tick.
    fn load(&mut self, now: Tick) {
        let Some(count) = self.count else { return };
        self.loaded = count;
        self.since = Some(now + 1);
        self.reload_at = None;
        let stopped = !self.gate && !matches!(self.mode, 1 | 5);
        self.held = stopped.then_some(0);
    }

    /// The gate input.
    pub(super) fn set_gate(&mut self, gate: bool, now: Tick) {
        self.advance(now);
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match (self.mode, gate) {
            (1 | 5, true) | (2 | 3, true) => self.load(now),
            (1 | 5, false) => {}
            (_, false) => self.held = self.elapsed(now),
            (_, true) => {
                if let Some(held) = self.held.take() {
                    self.since = Some(now - held);
                }
            }
        }
    }

    /// Takes over a new count whose time has come.
    pub(super) fn advance(&mut self, now: Tick) {
        let (Some(at), Some(count)) = (self.reload_at, self.count) else { return };
        if now < at {
            return;
        }
        // A boundary in mid-cycle (mode 3) goes on with the low half.
        let low_half = self.mode == 3 && !self.out(at);
        self.since = Some(at - if low_half { high_half(count) } else { 0 });
        self.loaded = count;
        self.reload_at = None;
    }

    /// The end of the current cycle (mode 2) or half-cycle (mode 3) after `now`.
    fn next_boundary(&self, now: Tick) -> Option<Tick> {
        let since = self.since?;
        let n = Tick::from(self.loaded.max(1));
        let elapsed = (now - since).max(0);
        let cycle = since + elapsed / n * n;
        let middle = cycle + high_half(self.loaded);
        Some(if self.mode == 3 && now < middle { middle } else { cycle + n })
    }

    /// Ticks since the element was loaded; 0 if that is still to come. `None`: it does not count.
    fn elapsed(&self, now: Tick) -> Option<Tick> {
        let running = now - self.since?;
        Some(self.held.unwrap_or(running).max(0))
    }

    /// The OUT pin at `now`.
    pub(super) fn out(&self, now: Tick) -> bool {
        let n = Tick::from(self.loaded.max(1));
        let Some(elapsed) = self.elapsed(now) else { return self.mode != 0 };
        let pending = self.since.is_some_and(|since| now < since);
        match self.mode {
            0 => elapsed >= n,
            1 => elapsed >= n || pending,
            2 => !self.gate || elapsed % n != n - 1 || n == 1,
            3 => !self.gate || elapsed % n < high_half(self.loaded),
            _ => elapsed != n,
        }
    }

    /// The last tick at or before `now` at which OUT rose by counting.
    pub(super) fn last_rise(&self, now: Tick) -> Option<Tick> {
        let (since, elapsed) = self.moving(now)?;
        let n = Tick::from(self.loaded.max(1));
        let rise = match self.mode {
            0 | 1 => n,
            2 | 3 => elapsed / n * n,
            _ => n + 1,
        };
        (rise > 0 && rise <= elapsed).then_some(since + rise)
    }

    /// The next tick after `now` at which OUT must be looked at: any change, but for mode 2's fall,
    /// one tick before its rise.
    pub(super) fn next_change(&self, now: Tick) -> Option<Tick> {
        let since = self.since?;
        if self.held.is_some() {
            return None;
        }
        let n = Tick::from(self.loaded.max(1));
        let elapsed = (now - since).max(0);
        let cycle = elapsed / n * n;
        let next = match self.mode {
            1 if now < since => 0,
            0 | 1 => n,
            3 if elapsed < cycle + high_half(self.loaded) => cycle + high_half(self.loaded),
            2 | 3 => cycle + n,
            _ if elapsed < n => n,
            _ => n + 1,
        };
        (since + next > now).then_some(since + next)
    }

    fn moving(&self, now: Tick) -> Option<(Tick, Tick)> {
        let since = self.since?;
        (self.held.is_none() && now >= since).then_some((since, now - since))
    }

    /// The counting element, as a number.
    fn value(&self, now: Tick) -> Tick {
        let n = Tick::from(self.loaded);
        let Some(elapsed) = self.elapsed(now) else { return n };
        match self.mode {
            2 => n - elapsed % n.max(1),
            3 => {
                let phase = elapsed % n.max(1);
                let high = high_half(self.loaded);
                let steps = if phase < high { phase } else { phase - high };
                // Counted by twos, from the even number at or below n.
                (n & !1) - 2 * steps
            }
            _ => n - elapsed,
        }
    }

    fn encoded(&self, now: Tick) -> u16 {
        self.encode(self.value(now))
    }

    /// The counter latch command: ignored while a latched count is unread.
    pub(super) fn latch_count(&mut self, now: Tick) {
        self.advance(now);
        if self.latched_count.is_none() {
            self.latched_count = Some(self.encoded(now));
            self.high_next = self.high_next && self.access == 3;
        }
    }

    /// Read-back of the status.
    pub(super) fn latch_status(&mut self, now: Tick) {
        self.advance(now);
        let null_count = self.since.is_none_or(|since| now < since) || self.reload_at.is_some();
        let out = u8::from(self.out(now)) << STATUS_OUT_SHIFT;
        let status = out | u8::from(null_count) << STATUS_NULL_SHIFT | self.word;
        self.latched_status.get_or_insert(status);
    }

    /// A byte read from the counter: a latched status first, then a latched count, then the count
    /// itself.
    pub(super) fn read(&mut self, now: Tick) -> u8 {
        self.advance(now);
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.encoded(now)).to_le_bytes();
        let take_high = match self.access {
            1 => false,
            2 => true,
            _ => {
                self.high_next = !self.high_next;
                !self.high_next
            }
        };
        if self.access != 3 || take_high {
            self.latched_count = None;
        }
        if take_high { high } else { low }
    }

    fn decode(&self, raw: u16) -> u32 {
        let digit = |n: u32| u32::from(raw >> (4 * n) & 15);
        match (raw, self.bcd) {
            (0, false) => 0x1_0000,
            (0, true) => 10_000,
            (_, false) => u32::from(raw),
            (_, true) => digit(0) + 10 * digit(1) + 100 * digit(2) + 1000 * digit(3),
        }
    }

    fn encode(&self, value: Tick) -> u16 {
        if !self.bcd {
            return value as u16;
        }
        let value = value.rem_euclid(10_000) as u16;
        [1000, 100, 10, 1].iter().fold(0, |bcd, unit| (bcd << 4) | (value / unit % 10))
    }
}

/// Mode 3: the ticks that OUT is high in a cycle of `count`.
fn high_half(count: u32) -> Tick {
    (Tick::from(count) + 1) / 2
}
