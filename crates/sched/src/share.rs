//! A machine's share of the host's processors: a weight against other machines, and a limit.

use std::time::Duration;

/// Over this time a limit holds. What is left of a period's budget is not kept for the next.
pub(crate) const PERIOD: Duration = Duration::from_millis(20);

/// How much a machine gets when there is not enough for all. Machines get time in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(u32);

impl Weight {
    /// The least weight.
    pub const MIN: u32 = 1;
    /// The greatest weight.
    pub const MAX: u32 = 10_000;

    /// `None`: not between [`Weight::MIN`] and [`Weight::MAX`].
    pub fn new(weight: u32) -> Option<Self> {
        (Self::MIN..=Self::MAX).contains(&weight).then_some(Self(weight))
    }

    /// Its number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The virtual time of a machine that has had `real` time.
    pub(crate) fn virtual_time(self, real: Duration) -> Duration {
        real * Self::MAX / self.0
    }

    /// The time (in nanoseconds, or against it) in which a machine gets that much virtual time.
    pub(crate) fn real_time(self, nanos: i128) -> i128 {
        nanos * i128::from(self.0) / i128::from(Self::MAX)
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

/// The most that a machine gets, also when no other wants it: percent of one host processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u32);

impl Limit {
    /// The greatest limit, 1000 host processors.
    pub const MAX: u32 = 100_000;

    /// `None`: zero, or more than [`Limit::MAX`].
    pub fn percent(percent: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&percent).then_some(Self(percent))
    }

    /// Its number.
    pub fn get(self) -> u32 {
        self.0
    }

    fn budget(self) -> Duration {
        PERIOD * self.0 / 100
    }
}

/// A machine's share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Against other machines.
    pub weight: Weight,
    /// `None`: as much as there is.
    pub limit: Option<Limit>,
}

/// What a limited machine may still use of its period. An overrun is a debt that the next periods
/// pay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    each: Duration,
    left: Duration,
    debt: Duration,
    ends: Duration,
}

impl Budget {
    pub(crate) fn new(limit: Limit, now: Duration) -> Self {
        let each = limit.budget();
        Self { each, left: each, debt: Duration::ZERO, ends: now + PERIOD }
    }

    /// `ran` has been used.
    pub(crate) fn charge(&mut self, ran: Duration) {
        self.debt += ran.saturating_sub(self.left);
        self.left = self.left.saturating_sub(ran);
    }

    /// Begins the period that `now` lies in.
    pub(crate) fn refill(&mut self, now: Duration) {
        if now < self.ends {
            return;
        }
        let periods = 1 + (now - self.ends).as_nanos() / PERIOD.as_nanos();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.ends += PERIOD.saturating_mul(periods);
        let paid = self.each.saturating_mul(periods);
        self.left = (self.left + paid).saturating_sub(self.debt).min(self.each);
        self.debt = self.debt.saturating_sub(paid);
    }

    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// When there is something left again.
    pub(crate) fn refilled_at(&self) -> Duration {
        let periods = (self.debt.as_nanos() / self.each.as_nanos().max(1)) as u32;
        self.ends + PERIOD.saturating_mul(periods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn half() -> Budget {
        Budget::new(Limit::percent(50).expect("a limit"), Duration::ZERO)
    }

    #[test]
    fn a_period_has_its_share_and_nothing_is_kept() {
        let mut budget = half();
        assert_eq!(budget.left(), 10 * MS);
        budget.charge(4 * MS);
        budget.refill(19 * MS);
        assert_eq!(budget.left(), 6 * MS, "the period goes on");
        budget.refill(90 * MS);
        assert_eq!(budget.left(), 10 * MS);
        budget.refill(99 * MS);
        budget.charge(10 * MS);
        assert_eq!((budget.left(), budget.refilled_at()), (Duration::ZERO, 100 * MS));
    }

    #[test]
    fn an_overrun_is_paid_by_the_next_periods() {
        let mut budget = half();
        budget.charge(35 * MS);
        assert_eq!(budget.refilled_at(), 60 * MS, "10 + 10 + 10 pay 25, at 20, 40, 60");
        budget.refill(40 * MS);
        assert_eq!(budget.left(), Duration::ZERO);
        budget.refill(60 * MS);
        assert_eq!(budget.left(), 5 * MS);
    }

    #[test]
    fn numbers_are_bounded() {
        assert_eq!(Weight::new(0).or(Weight::new(10_001)), None);
        assert_eq!(Limit::percent(0).or(Limit::percent(100_001)), None);
        let weight = Weight::new(200).expect("a weight");
        assert_eq!(weight.virtual_time(4 * MS) * 2, Weight::default().virtual_time(4 * MS));
    }
}
