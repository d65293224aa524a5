//! How the host's processors are shared out: the table `sched` of a file, and its options.

use super::values::Text;
use super::values::Time;
use machine::End;
use sched::{Limit, Pool, QUANTUM, Share, Weight};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

/// How the processors of a machine get the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SchedSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pcpus: Option<NonZeroUsize>,
    #[serde(with = "super::optional", skip_serializing_if = "Option::is_none")]
    pub(crate) quantum: Option<Quantum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_weight: Option<CpuWeight>,
    #[serde(with = "super::optional", skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_limit: Option<CpuLimit>,
}

impl SchedSettings {
    /// These, and where they say nothing, those of `lower`.
    pub(crate) fn over(self, lower: Self) -> Self {
        let Self { pcpus, quantum, cpu_weight, cpu_limit } = self;
        Self {
            pcpus: pcpus.or(lower.pcpus),
            quantum: quantum.or(lower.quantum),
            cpu_weight: cpu_weight.or(lower.cpu_weight),
            cpu_limit: cpu_limit.or(lower.cpu_limit),
        }
    }

    /// Worker threads for a machine of so many processors.
    ///
    /// # Errors
    /// The host has no thread left.
    pub(crate) fn pool(&self, processors: usize) -> Result<Pool, End> {
        let quantum = self.quantum.map_or(QUANTUM, |Quantum(time)| time);
        let workers = sched::workers(self.pcpus, processors);
        Pool::new(workers, quantum).map_err(|error| End::no_thread(&error))
    }

    /// The machine's part of them.
    pub(crate) fn share(&self) -> Share {
        let weight = self.cpu_weight.map_or_else(Weight::default, |CpuWeight(weight)| weight);
        Share { weight, limit: self.cpu_limit.map(|CpuLimit(limit)| limit) }
    }
}

/// How long a processor runs while others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantum(pub(crate) Duration);

impl Quantum {
    /// Below this, switching is most of what is done.
    const LEAST: Duration = Duration::from_micros(100);
    /// Above this, a guest's own watchdogs bark.
    const MOST: Duration = Duration::from_secs(1);
}

impl Text for Quantum {
    const SUCH_AS: &'static str = "a time such as \"4ms\"";

    fn parse(text: &str) -> Result<Self, String> {
        let Time(time) = Time::parse(text)?;
        if (Self::LEAST..=Self::MOST).contains(&time) {
            Ok(Self(time))
        } else {
            Err("a quantum lasts from 0.1ms to 1s: 4ms, for instance".into())
        }
    }

    fn text(&self) -> String {
        Time(self.0).text()
    }
}

/// A machine's part where there is not enough for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub(crate) struct CpuWeight(pub(crate) Weight);

impl TryFrom<u32> for CpuWeight {
    type Error = String;

    fn try_from(weight: u32) -> Result<Self, String> {
        let bounds = format!("a weight is from {} to {}", Weight::MIN, Weight::MAX);
        Weight::new(weight).map(Self).ok_or(bounds)
    }
}

impl From<CpuWeight> for u32 {
    fn from(CpuWeight(weight): CpuWeight) -> Self {
        weight.get()
    }
}

impl FromStr for CpuWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: u32 = text.parse().map_err(|_| "no whole number: 100, for instance")?;
        number.try_into()
    }
}

/// The most that a machine gets: percent of one host processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuLimit(pub(crate) Limit);

impl Text for CpuLimit {
    const SUCH_AS: &'static str = "a part of one host processor such as \"50%\"";

    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_suffix('%').ok_or("give percent of one host processor: 50%")?;
        let number = digits.parse().map_err(|_| "no whole number: 50%, for instance")?;
        let bounds = || format!("a limit is from 1% to {}%", Limit::MAX);
        Limit::percent(number).map(Self).ok_or_else(bounds)
    }

    fn text(&self) -> String {
        format!("{}%", self.0.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded_and_come_back() {
        for text in ["0.1ms", "4ms", "1s"] {
            let value = Quantum::parse(text).expect(text);
            assert_eq!(Quantum::parse(&value.text()), Ok(value));
        }
        for wrong in ["0", "0.05ms", "2s", "4"] {
            assert!(Quantum::parse(wrong).is_err(), "{wrong}");
        }
        for text in ["1%", "50%", "100000%"] {
            assert_eq!(CpuLimit::parse(text).expect(text).text(), text);
        }
        for wrong in ["50", "0%", "100001%", "1.5%", "-1%", "%"] {
            assert!(CpuLimit::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!("200".parse::<CpuWeight>().map(u32::from), Ok(200));
        for wrong in ["0", "10001", "x", ""] {
            assert!(wrong.parse::<CpuWeight>().is_err(), "{wrong}");
        }
    }
}
