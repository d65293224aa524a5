//! The MC146818's registers and rules (Motorola MC146818A datasheet). Pure.
//!
//! Two clocks: *wall* nanoseconds since 1970 drive time, update and alarm; VM nanoseconds the
//! periodic interrupt. The chip's time is wall time plus an offset that the guest moves by setting
//! the clock.

use super::calendar::{DAY, Fields};
use super::registers::*;
use crate::time::SECOND;

/// UIP rises this long before the update.
const UIP_NS: i128 = 244_000;
/// Crystal.
const CRYSTAL_HZ: u64 = 32_768;
const SECOND_I: i128 = SECOND as i128;

/// Now, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: i128,
    pub(super) vm: u64,
}

/// The chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Core {
    /// The RAM, of which the clock's registers are not part.
    pub(super) ram: [u8; RAM],
    /// The alarm's second, minute and hour, as written.
    pub(super) alarm: [u8; 3],
    pub(super) a: u8,
    pub(super) b: u8,
    pub(super) flags: u8,
    /// Chip time minus wall time, in nanoseconds.
    pub(super) offset: i128,
    /// The time registers, while SET or the divider's reset holds them.
    pub(super) held: Option<Fields>,
    /// The last second of chip time that was looked at.
    pub(super) seen_second: i64,
    /// The last crystal tick that was looked at.
    pub(super) seen_tick: u64,
    /// Port 70H: register number, and NMI mask in bit 7.
    pub(super) index: u8,
}

impl Core {
    pub(super) fn new(now: Now) -> Self {
        let mut core = Self {
            ram: [0; RAM],
            alarm: [0; 3],
            a: 0x26,
            b: B_24,
            flags: 0,
            offset: 0,
            held: None,
            seen_second: 0,
            seen_tick: ticks(now.vm),
            index: 0,
        };
        core.seen_second = core.second(now);
        core
    }

    pub(super) fn interrupt(&self) -> bool {
        self.flags & self.b & (PERIODIC | ALARM | UPDATE) != 0
    }

    /// Reads register `register` (0 to 127).
    pub(super) fn read(&mut self, register: u8, now: Now) -> u8 {
        self.advance(now);
        let fields = self.held.unwrap_or_else(|| Fields::at(self.second(now)));
        match register & 0x7F {
            SECONDS => self.encode(fields.second),
            MINUTES => self.encode(fields.minute),
            HOURS => self.encode_hour(fields.hour),
            DAY_OF_WEEK => self.encode(fields.weekday),
            DAY_OF_MONTH => self.encode(fields.day),
            MONTH => self.encode(fields.month),
            YEAR => self.encode(fields.year),
            CENTURY => self.encode(fields.century),
            register @ (SECONDS_ALARM | MINUTES_ALARM | HOURS_ALARM) => {
                self.alarm[usize::from(register / 2)]
            }
            A => self.a | if self.updating(now) { A_UIP } else { 0 },
            B => self.b,
            C => {
                let irqf = if self.interrupt() { C_IRQF } else { 0 };
                std::mem::take(&mut self.flags) | irqf
            }
            D => D_VRT,
            register => self.ram.get(usize::from(register)).copied().unwrap_or(0xFF),
        }
    }

    /// Writes register `register`.
    pub(super) fn write(&mut self, register: u8, value: u8, now: Now) {
        self.advance(now);
        match register & 0x7F {
            register @ (SECONDS | MINUTES | HOURS | DAY_OF_WEEK..=YEAR | CENTURY) => {
                self.write_time(register, value, now);
            }
            register @ (SECONDS_ALARM | MINUTES_ALARM | HOURS_ALARM) => {
                self.alarm[usize::from(register / 2)] = value;
            }
            A => self.write_a(value & !A_UIP, now),
            B => self.write_b(value, now),
            C | D => {}
            register => {
                if let Some(byte) = self.ram.get_mut(usize::from(register)) {
                    *byte = value;
                }
            }
        }
    }

    /// Sets the flags for what has happened since it was last called.
    pub(super) fn advance(&mut self, now: Now) {
        let second = self.second(now);
        if self.held.is_none() && second > self.seen_second {
            self.flags |= UPDATE;
            if self.alarm_within(self.seen_second + 1, second) {
                self.flags |= ALARM;
            }
        }
        self.seen_second = second;
        let tick = ticks(now.vm);
        if let Some(period) = self.period()
            && tick / period > self.seen_tick / period
        {
            self.flags |= PERIODIC;
        }
        self.seen_tick = tick;
    }

    /// VM nanoseconds until an enabled interrupt that is not pending yet could come.
    pub(super) fn wait(&self, now: Now) -> Option<u64> {
        let wanted = self.b & !self.flags;
        let periodic = self.period().filter(|_| wanted & PERIODIC != 0).map(|period| {
            let next = u128::from(ticks(now.vm) / period + 1) * u128::from(period);
            let at = (next * u128::from(SECOND)).div_ceil(u128::from(CRYSTAL_HZ));
            u64::try_from(at).unwrap_or(u64::MAX).saturating_sub(now.vm)
        });
        let seconds = self.held.is_none() && wanted & (UPDATE | ALARM) != 0;
        let update = seconds.then(|| (SECOND_I - self.fraction(now)) as u64);
        periodic.into_iter().chain(update).min()
    }

    /// Crystal ticks between periodic interrupts (table 5).
    fn period(&self) -> Option<u64> {
        match self.a & A_RATE {
            0 => None,
            rate @ (1 | 2) => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn second(&self, now: Now) -> i64 {
        (now.wall.saturating_add(self.offset)).div_euclid(SECOND_I) as i64
    }

    fn fraction(&self, now: Now) -> i128 {
        (now.wall.saturating_add(self.offset)).rem_euclid(SECOND_I)
    }

    fn updating(&self, now: Now) -> bool {
        self.held.is_none() && self.fraction(now) >= SECOND_I - UIP_NS
    }

    fn divider_reset(&self) -> bool {
        self.a & A_RESET == A_RESET
    }

    fn write_a(&mut self, value: u8, now: Now) {
        let before = self.divider_reset();
        self.a = value;
        if self.divider_reset() && !before {
            self.hold(now);
        } else if before && !self.divider_reset() {
            // The first update comes half a second after the divider's release.
            self.release(now, SECOND_I / 2);
        }
    }

    fn write_b(&mut self, value: u8, now: Now) {
        let before = self.b;
        self.b = value;
        if value & B_SET != 0 && before & B_SET == 0 {
            // SET clears UIE.
            self.b &= !UPDATE;
            self.hold(now);
        } else if before & B_SET != 0 && value & B_SET == 0 {
            self.release(now, self.fraction(now));
        }
    }

    fn hold(&mut self, now: Now) {
        if self.held.is_none() {
            self.held = Some(Fields::at(self.second(now)));
        }
    }

    /// Lets time go on from the held registers, `fraction` nanoseconds into their second.
    fn release(&mut self, now: Now, fraction: i128) {
        if self.b & B_SET != 0 || self.divider_reset() {
            return;
        }
        if let Some(fields) = self.held.take() {
            self.set(fields, fraction, now);
        }
    }

    fn set(&mut self, fields: Fields, fraction: i128, now: Now) {
        let time = i128::from(fields.unix()) * SECOND_I + fraction;
        self.offset = time.saturating_sub(now.wall);
        self.seen_second = self.second(now);
    }

    fn write_time(&mut self, register: u8, value: u8, now: Now) {
        let number = self.decode(value);
        let hour = self.decode_hour(value);
        let mut fields = self.held.unwrap_or_else(|| Fields::at(self.second(now)));
        match register {
            SECONDS => fields.second = number,
            MINUTES => fields.minute = number,
            HOURS => fields.hour = hour,
            DAY_OF_WEEK => fields.weekday = number,
            DAY_OF_MONTH => fields.day = number,
            MONTH => fields.month = number,
            YEAR => fields.year = number,
            _ => fields.century = number,
        }
        match &mut self.held {
            Some(held) => *held = fields,
            None => self.set(fields, self.fraction(now), now),
        }
    }

    fn encode(&self, number: u8) -> u8 {
        if self.b & B_DM != 0 { number } else { ((number / 10) << 4) | (number % 10) }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.b & B_DM != 0 { value } else { (value >> 4).wrapping_mul(10) + (value & 15) }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.b & B_24 != 0 {
            return self.encode(hour);
        }
        // In 24-hour form the guest may have written a number that is no hour.
        let hour = hour % 24;
        let pm = if hour >= 12 { PM } else { 0 };
        self.encode((hour + 11) % 12 + 1) | pm
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.b & B_24 != 0 {
            return self.decode(value);
        }
        let hour = self.decode(value & !PM) % 12;
        if value & PM != 0 { hour + 12 } else { hour }
    }

    /// Whether the alarm goes off in one of the seconds given, the last day of them at the most.
    fn alarm_within(&self, first: i64, last: i64) -> bool {
        let [second, minute, hour] = self.alarm;
        // The two top bits mean "every".
        let every = |value: u8| value & 0xC0 == 0xC0;
        let second = (!every(second)).then(|| self.decode(second));
        let minute = (!every(minute)).then(|| self.decode(minute));
        let hour = (!every(hour)).then(|| self.decode_hour(hour));
        (first.max(last - DAY + 1)..=last).any(|at| {
            let fields = Fields::time_of_day(at);
            second.is_none_or(|s| s == fields.0)
                && minute.is_none_or(|m| m == fields.1)
                && hour.is_none_or(|h| h == fields.2)
        })
    }
}

impl Fields {
    /// Second, minute and hour at `unix`.
    fn time_of_day(unix: i64) -> (u8, u8, u8) {
        let second = unix.rem_euclid(DAY);
        ((second % 60) as u8, (second / 60 % 60) as u8, (second / 3600) as u8)
    }
}

/// The tick of the crystal that VM time `vm` is in.
pub(super) fn ticks(vm: u64) -> u64 {
    (u128::from(vm) * u128::from(CRYSTAL_HZ) / u128::from(SECOND)) as u64
}
