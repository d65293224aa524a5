//! Saved state of the RTC.

use super::calendar::Fields;
use super::core::{Core, ticks};
use super::registers::*;
use crate::saved::{Check, RestoreError};
use crate::time::SECOND;
use serde::{Deserialize, Serialize};

/// The state of the RTC with its RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RtcState {
    /// [`RtcState::VERSION`] of the writer.
    pub version: u32,
    /// 128 bytes; those of the clock's registers are not used.
    pub ram: Vec<u8>,
    /// The alarm's second, minute and hour, as written.
    pub alarm: [u8; 3],
    /// Register A.
    pub a: u8,
    /// Register B.
    pub b: u8,
    /// Register C without IRQF.
    pub flags: u8,
    /// The chip's time minus wall time: whole seconds, rounded down.
    pub offset_seconds: i64,
    /// The rest of it in nanoseconds.
    pub offset_ns: u32,
    /// The time registers, while SET or the divider's reset holds them.
    pub held: Option<HeldTime>,
    /// The last second of the chip's time, since 1970, that was looked at.
    pub seen_second: i64,
    /// The last tick of the crystal, since VM time 0, that was looked at.
    pub seen_tick: u64,
    /// Port 70H.
    pub index: u8,
}

/// Time registers in binary and 24-hour form; the guest may have written any numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the registers' names of the datasheet")]
pub struct HeldTime {
    pub second: u8,
    pub minute: u8,
    pub hour: u8,
    pub day_of_week: u8,
    pub day_of_month: u8,
    pub month: u8,
    pub year: u8,
    pub century: u8,
}

impl RtcState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 2;
}

/// Times are within so many seconds of 1970: the registers hold less than 27000 years.
const LATEST: i64 = 1 << 41;

impl Core {
    pub(super) fn save(&self) -> RtcState {
        let Self { ram, alarm, a, b, flags, offset, held, seen_second, seen_tick, index } = self;
        let second = i128::from(SECOND);
        RtcState {
            version: RtcState::VERSION,
            ram: ram.to_vec(),
            alarm: *alarm,
            a: *a,
            b: *b,
            flags: *flags,
            offset_seconds: offset.div_euclid(second) as i64,
            offset_ns: offset.rem_euclid(second) as u32,
            held: held.map(HeldTime::from),
            seen_second: *seen_second,
            seen_tick: *seen_tick,
            index: *index,
        }
    }

    /// The chip of `state` at VM time `now`.
    pub(super) fn restored(state: &RtcState, now: u64) -> Result<Self, RestoreError> {
        let RtcState {
            version,
            ram,
            alarm,
            a,
            b,
            flags,
            offset_seconds,
            offset_ns,
            held,
            seen_second,
            seen_tick,
            index,
        } = state;
        let check = Check::version("RTC", *version, RtcState::VERSION)?;
        let length = || check.refused("ram", format_args!("{} bytes", ram.len()), "128 bytes");
        let ram = ram.as_slice().try_into().map_err(|_| length())?;
        check.bits("a", *a, !A_UIP)?;
        check.bits("flags", *flags, PERIODIC | ALARM | UPDATE)?;
        check.within("offset_seconds", *offset_seconds, -LATEST..=LATEST)?;
        check.within("offset_ns", *offset_ns, 0..=SECOND as u32 - 1)?;
        check.within("seen_second", *seen_second, -LATEST..=LATEST)?;
        check.within("seen_tick", *seen_tick, 0..=ticks(now))?;
        let stopped = b & B_SET != 0 || a & A_RESET == A_RESET;
        let wanted = "a time exactly while SET or the divider's reset holds it";
        check.that(held.is_some() == stopped, "held", format_args!("{held:?}"), wanted)?;
        Ok(Self {
            ram,
            alarm: *alarm,
            a: *a,
            b: *b,
            flags: *flags,
            offset: i128::from(*offset_seconds) * i128::from(SECOND) + i128::from(*offset_ns),
            held: held.clone().map(Fields::from),
            seen_second: *seen_second,
            seen_tick: *seen_tick,
            index: *index,
        })
    }
}

impl From<Fields> for HeldTime {
    fn from(fields: Fields) -> Self {
        let Fields { second, minute, hour, weekday, day, month, year, century } = fields;
        Self { second, minute, hour, day_of_week: weekday, day_of_month: day, month, year, century }
    }
}

impl From<HeldTime> for Fields {
    fn from(held: HeldTime) -> Self {
        let HeldTime { second, minute, hour, day_of_week, day_of_month, month, year, century } =
            held;
        Self { second, minute, hour, weekday: day_of_week, day: day_of_month, month, year, century }
    }
}
