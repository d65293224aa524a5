//! How much I/O a disk may do in a second: token buckets, as pure values.
//!
//! A request is let go while its buckets are not in debt, and then paid for, whatever its size. So
//! a request larger than a second's worth is possible, and the next one waits for it. A bucket
//! holds a tenth of a second's worth at the most: after a rest nothing comes in a rush.

use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use std::time::Duration;

/// What a disk may do in a second. Nothing said: as much as the host allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Requests.
    pub iops: Option<NonZeroU64>,
    /// Bytes.
    pub bps: Option<NonZeroU64>,
}

impl Limit {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The buckets of a disk.
#[derive(Clone, Debug)]
pub struct Limiter {
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Limiter {
    /// Full buckets at `now`.
    pub fn new(limit: Limit, now: Duration) -> Self {
        let bucket = |rate: NonZeroU64| Bucket::new(rate, now);
        Self { requests: limit.iops.map(bucket), bytes: limit.bps.map(bucket) }
    }

    /// How long the next request has to wait at `now`; zero: it may go.
    pub fn wait(&mut self, now: Duration) -> Duration {
        let buckets = [&mut self.requests, &mut self.bytes];
        let waits = buckets.into_iter().flatten().map(|bucket| bucket.wait(now));
        waits.max().unwrap_or_default()
    }

    /// Pays for a request that moves `bytes`.
    pub fn pay(&mut self, bytes: u64) {
        self.requests.iter_mut().for_each(|bucket| bucket.pay(1));
        self.bytes.iter_mut().for_each(|bucket| bucket.pay(bytes));
    }
}

/// Tokens in billionths, so that every nanosecond brings `rate` of them.
#[derive(Clone, Debug)]
struct Bucket {
    rate: i128,
    level: i128,
    /// When `level` was right.
    at: Duration,
}

const TOKEN: i128 = 1_000_000_000;

impl Bucket {
    fn new(rate: NonZeroU64, now: Duration) -> Self {
        let rate = i128::from(rate.get());
        Self { rate, level: Self::most(rate), at: now }
    }

    fn most(rate: i128) -> i128 {
        (rate * TOKEN / 10).max(TOKEN)
    }

    fn wait(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_nanos() as i128;
        self.at = self.at.max(now);
        let filled = self.level.saturating_add(passed.saturating_mul(self.rate));
        self.level = filled.min(Self::most(self.rate));
        let debt = (-self.level).max(0);
        let nanoseconds = (debt + self.rate - 1) / self.rate;
        Duration::from_nanos(nanoseconds.try_into().unwrap_or(u64::MAX))
    }

    fn pay(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(i128::from(tokens) * TOKEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is asked for and when: what is let go in a time is the rate's worth of it, a
        /// tenth of a second's more for the start, and the last request.
        #[test]
        fn a_rate_is_kept(
            rate in 1_u64..1_000_000,
            requests in prop::collection::vec((0_u64..50_000, 0_u64..200_000_000), 1..80),
        ) {
            let limit = Limit { iops: None, bps: NonZeroU64::new(rate) };
            let (mut now, mut sent) = (Duration::ZERO, 0_u128);
            let mut limiter = Limiter::new(limit, now);
            for (bytes, idle) in requests {
                now += Duration::from_nanos(idle);
                let wait = limiter.wait(now);
                now += wait;
                prop_assert_eq!(limiter.wait(now), Duration::ZERO, "who has waited may go");
                let allowed = u128::from(rate) * (now.as_nanos() + 100_000_000) / 1_000_000_000 + 1;
                prop_assert!(sent <= allowed, "{sent} of {allowed} at {now:?}");
                limiter.pay(bytes);
                sent += u128::from(bytes);
            }
        }

        /// Nobody waits longer than what went before costs.
        #[test]
        fn nobody_waits_too_long(iops in 1_u64..10_000, count in 1_u64..200) {
            let limit = Limit { iops: NonZeroU64::new(iops), bps: None };
            let mut limiter = Limiter::new(limit, Duration::ZERO);
            let mut now = Duration::ZERO;
            for _ in 0..count {
                now += limiter.wait(now);
                limiter.pay(1 << 20);
            }
            prop_assert!(now <= Duration::from_secs_f64(count as f64 / iops as f64 + 1e-6));
        }
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut limiter = Limiter::new(Limit::default(), Duration::ZERO);
        limiter.pay(u64::MAX);
        assert_eq!(limiter.wait(Duration::ZERO), Duration::ZERO);
    }
}
