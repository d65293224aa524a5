//! The local APIC's timer (SDM vol. 3, 12.5.4): count-down in one-shot and periodic mode, TSC
//! deadline.
//!
//! Pure: the instant is passed in. The count is derived from the time since it was loaded, never
//! stepped, so that a period does not drift.

use crate::time::{Instant, SECOND};
use x86::apic::{lvt, timer_divisor};

/// A periodic timer fires no more often than this: a guest that programs a shorter period must not
/// occupy a host thread.
const PERIOD_MIN_NS: u64 = 20_000;

/// LVT timer bits 18:17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
    /// 3, reserved: the timer stands still.
    Reserved,
}

impl Mode {
    pub(super) fn of_lvt(lvt: u32) -> Self {
        match (lvt & lvt::TIMER_MODE) >> lvt::TIMER_MODE_SHIFT {
            lvt::TIMER_ONE_SHOT => Self::OneShot,
            lvt::TIMER_PERIODIC => Self::Periodic,
            lvt::TIMER_TSC_DEADLINE => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }
}

/// When the timer wants to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// VM nanoseconds.
    At(u64),
    /// A value of the guest's TSC.
    Tsc(u64),
}

/// A running count-down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// VM nanoseconds when it began.
    pub(super) since: u64,
    /// Ticks after `since` at which the count is next zero.
    pub(super) target: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Timer {
    /// Input frequency in Hz.
    pub(super) hz: u64,
    pub(super) mode: Mode,
    pub(super) initial: u32,
    /// Divide configuration register.
    pub(super) divide: u32,
    pub(super) run: Option<Run>,
    /// IA32_TSC_DEADLINE; 0 is disarmed.
    pub(super) tsc_deadline: u64,
    /// VM time before which a periodic timer asks for no deadline.
    pub(super) not_before: u64,
}

impl Timer {
    pub(super) fn new(hz: u64) -> Self {
        Self {
            hz: hz.max(1),
            mode: Mode::OneShot,
            initial: 0,
            divide: 0,
            run: None,
            tsc_deadline: 0,
            not_before: 0,
        }
    }

    /// log2 of the divisor.
    fn shift(&self) -> u32 {
        timer_divisor(self.divide).trailing_zeros()
    }

    /// Whole ticks between `since` and `now`.
    pub(super) fn ticks(&self, since: u64, now: u64) -> u64 {
        let ns = u128::from(now.saturating_sub(since));
        ((ns * u128::from(self.hz) / u128::from(SECOND)) >> self.shift()) as u64
    }

    /// The first VM nanosecond at which `ticks` ticks have passed since `since`.
    fn time_of(&self, since: u64, ticks: u64) -> u64 {
        let scaled = (u128::from(ticks) << self.shift()) * u128::from(SECOND);
        let ns = scaled.div_ceil(u128::from(self.hz));
        since.saturating_add(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// Moves to `at`; true if the timer has expired at least once since.
    pub(super) fn advance(&mut self, at: Instant) -> bool {
        if self.mode == Mode::TscDeadline {
            let fired = self.tsc_deadline != 0 && at.tsc >= self.tsc_deadline;
            if fired {
                self.tsc_deadline = 0;
            }
            return fired;
        }
        let Some(run) = self.run else { return false };
        let elapsed = self.ticks(run.since, at.ns);
        if elapsed < run.target {
            return false;
        }
        if self.mode == Mode::Periodic && self.initial != 0 {
            let period = u64::from(self.initial);
            let periods = (elapsed - run.target) / period + 1;
            let target = run.target.saturating_add(periods.saturating_mul(period));
            self.run = Some(Run { since: run.since, target });
            self.not_before = at.ns.saturating_add(PERIOD_MIN_NS);
        } else {
            self.run = None;
        }
        true
    }

    /// When the next expiry is.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        if self.mode == Mode::TscDeadline {
            return (self.tsc_deadline != 0).then_some(Deadline::Tsc(self.tsc_deadline));
        }
        let run = self.run?;
        let at = self.time_of(run.since, run.target);
        let periodic = self.mode == Mode::Periodic;
        Some(Deadline::At(if periodic { at.max(self.not_before) } else { at }))
    }

    /// The current-count register; the timer has been advanced to `at`.
    pub(super) fn current_count(&self, at: Instant) -> u32 {
        let Some(run) = self.run else { return 0 };
        let left = run.target.saturating_sub(self.ticks(run.since, at.ns));
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// A write to the initial-count register.
    pub(super) fn load(&mut self, count: u32, at: Instant) {
        if matches!(self.mode, Mode::TscDeadline | Mode::Reserved) {
            return;
        }
        self.initial = count;
        self.not_before = 0;
        self.run = (count != 0).then_some(Run { since: at.ns, target: u64::from(count) });
    }

    /// A write to the divide configuration register: a running count goes on at the new rate.
    pub(super) fn set_divide(&mut self, divide: u32, at: Instant) {
        let left = self.current_count(at);
        self.divide = divide;
        if self.run.is_some() {
            self.run = Some(Run { since: at.ns, target: u64::from(left) });
        }
    }

    /// A write to the LVT timer register. Going to or from TSC-deadline mode disarms.
    pub(super) fn set_mode(&mut self, mode: Mode) {
        if mode == self.mode {
            return;
        }
        let counts = |mode| matches!(mode, Mode::OneShot | Mode::Periodic);
        if !(counts(mode) && counts(self.mode)) {
            self.run = None;
            self.tsc_deadline = 0;
        }
        self.mode = mode;
    }

    /// WRMSR of IA32_TSC_DEADLINE: ignored in other modes.
    pub(super) fn set_tsc_deadline(&mut self, tsc: u64) {
        if self.mode == Mode::TscDeadline {
            self.tsc_deadline = tsc;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ns: u64) -> Instant {
        Instant { ns, tsc: ns }
    }

    #[test]
    fn divisors_are_the_manuals() {
        let divisor = |divide| 1 << Timer { divide, ..Timer::new(1) }.shift();
        let codes = [0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010, 0b1011];
        assert_eq!(codes.map(divisor), [2, 4, 8, 16, 32, 64, 128, 1]);
    }

    #[test]
    fn one_shot_fires_once_at_zero() {
        let mut timer = Timer { divide: 0b1011, ..Timer::new(SECOND) };
        timer.load(1000, at(50));
        assert_eq!(timer.current_count(at(60)), 990);
        assert_eq!(timer.deadline(), Some(Deadline::At(1050)));
        assert!(!timer.advance(at(1049)));
        assert!(timer.advance(at(1050)));
        assert_eq!((timer.current_count(at(1060)), timer.deadline()), (0, None));
        assert!(!timer.advance(at(9999)));
    }

    #[test]
    fn deadline_mode_disarms_on_expiry_and_on_mode_change() {
        let mut timer = Timer::new(SECOND);
        timer.set_tsc_deadline(5);
        assert_eq!(timer.tsc_deadline, 0, "ignored outside TSC-deadline mode");
        timer.set_mode(Mode::TscDeadline);
        timer.set_tsc_deadline(500);
        timer.load(3, at(0));
        assert_eq!((timer.initial, timer.deadline()), (0, Some(Deadline::Tsc(500))));
        assert!(!timer.advance(at(499)));
        assert!(timer.advance(at(500)));
        assert_eq!(timer.tsc_deadline, 0);
        timer.set_tsc_deadline(900);
        timer.set_mode(Mode::OneShot);
        assert_eq!(timer.deadline(), None);
    }

    proptest! {
        /// Against a naive model: expiry k of a period of `initial` ticks is at the first
        /// nanosecond not before k·initial·divisor/hz seconds.
        #[test]
        fn periods_do_not_drift(
            hz in 1_000_000u64..4_000_000_000,
            initial in 100_000u32..100_000_000,
            divide in prop::sample::select(vec![0b0000u32, 0b0011, 0b1011, 0b1010]),
            since in 0u64..1 << 40,
        ) {
            let mut timer = Timer { divide, mode: Mode::Periodic, ..Timer::new(hz) };
            timer.load(initial, at(since));
            let code = (divide >> 1 & 4) | (divide & 3);
            let divisor = [2u128, 4, 8, 16, 32, 64, 128, 1][code as usize];
            for k in 1..=20u128 {
                let cycles = k * u128::from(initial) * divisor;
                let ns = (cycles * 1_000_000_000).div_ceil(u128::from(hz));
                let expected = since + ns as u64;
                prop_assert_eq!(timer.deadline(),
                    Some(Deadline::At(expected.max(timer.not_before))));
                prop_assert!(!timer.advance(at(expected - 1)));
                prop_assert!(timer.advance(at(expected)));
                prop_assert!(!timer.advance(at(expected)));
            }
        }

        #[test]
        fn missed_periods_fire_once(initial in 1u32.., late in 0u64..u64::MAX >> 1) {
            let mut timer = Timer { divide: 0b1011, mode: Mode::Periodic, ..Timer::new(SECOND) };
            timer.load(initial, at(0));
            let now = late.max(u64::from(initial));
            prop_assert!(timer.advance(at(now)));
            prop_assert!(!timer.advance(at(now)));
            let left = u64::from(initial) - now % u64::from(initial);
            prop_assert_eq!(u64::from(timer.current_count(at(now))), left);
        }
    }
}
