//! The machine that a run's figures belong to.

use serde::Serialize;
use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a reader of the figures has to know.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Host {
    /// The processor's model.
    pub(super) cpu: String,
    /// Processors that may be used.
    pub(super) cores: usize,
    /// The host's kernel.
    pub(super) kernel: String,
    /// Its load average when the run began: above zero, others disturb the figures.
    pub(super) load: String,
    /// When the run began, UTC.
    pub(super) date: String,
    /// gemello's version.
    pub(super) gemello: &'static str,
    /// The processor that gemello shows its guests.
    pub(super) model: String,
    /// QEMU's version, where it takes part.
    pub(super) qemu: Option<String>,
    /// The guest's kernel and busybox.
    pub(super) guest: String,
    /// Rounds; T0 has one.
    pub(super) rounds: u32,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} usable; Linux {}; {}; load {}",
            self.cpu, self.cores, self.kernel, self.date, self.load
        )?;
        write!(f, "gemello {} ({})", self.gemello, self.model)?;
        if let Some(qemu) = &self.qemu {
            write!(f, "; {qemu} (tcg, max)")?;
        }
        writeln!(f, "; guest {}", self.guest)?;
        write!(f, "medians of {} rounds (t0: 1); less is better", self.rounds)
    }
}

#[cfg(test)]
impl Host {
    pub(super) fn sample() -> Self {
        Self {
            cpu: "a processor".into(),
            cores: 2,
            kernel: "6.1".into(),
            load: "0.00".into(),
            date: "1970-01-01 00:00 UTC".into(),
            gemello: "0.1.0",
            model: "gemello-v3".into(),
            qemu: None,
            guest: "a kernel".into(),
            rounds: 3,
        }
    }
}

/// The processor's model, as the kernel names it.
pub(super) fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    name.map_or("unknown", |rest| rest.trim_start_matches(['\t', ' ', ':'])).to_owned()
}

/// The host's kernel release.
pub(super) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The load average of the last minute.
pub(super) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Now, to the minute.
pub(super) fn date() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date_of(since.as_secs())
}

/// A time in seconds since 1970 by the Gregorian calendar (Richards's algorithm, as in the
/// Explanatory Supplement to the Astronomical Almanac, section 15.11).
fn date_of(seconds: u64) -> String {
    let julian_day = seconds / 86_400 + 2_440_588;
    let f = julian_day + 1401 + (4 * julian_day + 274_277) / 146_097 * 3 / 4 - 38;
    let e = 4 * f + 3;
    let h = 5 * (e % 1461 / 4) + 2;
    let day = h % 153 / 5 + 1;
    let month = (h / 153 + 2) % 12 + 1;
    let year = e / 1461 - 4716 + (14 - month) / 12;
    let minute = seconds / 60 % 60;
    let hour = seconds / 3600 % 24;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// `date` as the oracle.
    #[test]
    fn dates_are_the_calendars() {
        for seconds in [0, 951_782_399, 951_782_400, 1_709_164_800, 1_795_644_300, 4_107_542_400] {
            let output = Command::new("date")
                .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%d %H:%M UTC"])
                .output()
                .expect("date runs");
            assert_eq!(date_of(seconds), String::from_utf8_lossy(&output.stdout).trim());
        }
    }

    #[test]
    fn this_host_is_described() {
        assert!(!kernel().is_empty());
        assert!(!cpu().contains(':'), "{}", cpu());
    }
}
