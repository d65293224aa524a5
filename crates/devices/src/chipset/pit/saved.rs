//! Saved state of the 8254.

use super::core::{Core, tick};
use super::counter::{Counter, Tick};
use super::registers::*;
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of the 8254 with port 61H. Times are ticks of its clock since VM time 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PitState {
    /// [`PitState::VERSION`] of the writer.
    pub version: u32,
    /// Counters 0 to 2.
    pub counters: [CounterState; 3],
    /// Port 61H, the bits that were written; bit 0 is counter 2's gate.
    pub port_b: u8,
    /// Up to which tick counter 0's OUT has been driven.
    pub driven: i64,
}

/// The state of a counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterState {
    /// Bits 5:0 of the control word.
    pub word: u8,
    /// The count register as a number, 1 to 65536, once it is written.
    pub count: Option<u32>,
    /// The count that the counting element runs on; 0 before the first.
    pub loaded: u32,
    /// When the element was loaded, while it counts.
    pub since: Option<i64>,
    /// Ticks counted when the gate stopped it.
    pub held: Option<i64>,
    /// Modes 2 and 3: when a new count is taken over.
    pub reload_at: Option<i64>,
    /// The low byte written, until the high byte follows.
    pub low_byte: Option<u8>,
    /// The next read is the high byte.
    pub high_next: bool,
    /// A latched count that is not read yet.
    pub latched_count: Option<u16>,
    /// A latched status that is not read yet.
    pub latched_status: Option<u8>,
}

impl PitState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 2;
}

/// The largest count.
const COUNT_MAX: u32 = 1 << 16;
/// A count-down begins so many ticks before 0 at the earliest: half a cycle that ends at once.
const EARLIEST: Tick = -(1 << 17);

impl Core {
    pub(super) fn save(&self, driven: Tick) -> PitState {
        let Self { counters, port_b } = self;
        let counters = counters.each_ref().map(Counter::save);
        PitState { version: PitState::VERSION, counters, port_b: *port_b, driven }
    }

    /// The chip of `state` at VM time `now`, and up to which tick it has been driven.
    pub(super) fn restored(state: &PitState, now: u64) -> Result<(Self, Tick), RestoreError> {
        let PitState { version, counters, port_b, driven } = state;
        let check = Check::version("8254", *version, PitState::VERSION)?;
        let now = tick(now);
        check.bits("port_b", *port_b, PORT_B_WRITABLE)?;
        check.within("driven", *driven, 0..=now)?;
        let gates = [true, true, port_b & GATE2 != 0];
        let mut restored = gates.map(Counter::new);
        for ((counter, state), gate) in restored.iter_mut().zip(counters).zip(gates) {
            *counter = state.counter(check, gate, now)?;
        }
        Ok((Self { counters: restored, port_b: *port_b }, *driven))
    }
}

impl Counter {
    fn save(&self) -> CounterState {
        // The mode, the access and the code are the control word's; the gate is wired.
        let Self {
            mode: _,
            word,
            access: _,
            bcd: _,
            gate: _,
            count,
            loaded,
            since,
            held,
            reload_at,
            low_byte,
            high_next,
            latched_count,
            latched_status,
        } = *self;
        CounterState {
            word,
            count,
            loaded,
            since,
            held,
            reload_at,
            low_byte,
            high_next,
            latched_count,
            latched_status,
        }
    }
}

impl CounterState {
    fn counter(&self, check: Check, gate: bool, now: Tick) -> Result<Counter, RestoreError> {
        let Self {
            word,
            count,
            loaded,
            since,
            held,
            reload_at,
            low_byte,
            high_next,
            latched_count,
            latched_status,
        } = *self;
        check.bits("word", word, WORD)?;
        check.that(word & RW != 0, "word", word, "a control word with RW above 0")?;
        let programmed = Counter::programmed(word, gate);
        if let Some(count) = count {
            check.within("count", count, 1..=COUNT_MAX)?;
        }
        check.within("loaded", loaded, 0..=COUNT_MAX)?;
        if let Some(since) = since {
            check.within("since", since, EARLIEST..=now + 1)?;
            check.that(count.is_some(), "since", since, "null before there is a count")?;
            check.that(loaded > 0, "loaded", loaded, "above 0 while it counts")?;
        }
        if let Some(held) = held {
            check.within("held", held, 0..=now + 1 - EARLIEST)?;
            check.that(since.is_some(), "held", held, "null while it does not count")?;
        }
        if let Some(at) = reload_at {
            check.within("reload_at", at, EARLIEST..=now - EARLIEST)?;
            let counts = matches!(programmed.mode, 2 | 3) && since.is_some();
            check.that(counts, "reload_at", at, "null unless it counts in mode 2 or 3")?;
        }
        let two_bytes = word & RW == RW;
        check.that(two_bytes || low_byte.is_none(), "low_byte", "a byte", "null: one is all")?;
        check.that(two_bytes || !high_next, "high_next", high_next, "false: one is all")?;
        Ok(Counter {
            count,
            loaded,
            since,
            held,
            reload_at,
            low_byte,
            high_next,
            latched_count,
            latched_status,
            ..programmed
        })
    }
}
