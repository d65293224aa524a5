//! A Linux kernel's panic, recognized by the kernel's words on its console.
//!
//! Most panics come before any driver is loaded (no root file system, no init), and Debian's
//! kernels have pvpanic only as modules. So the console is the one witness that is always there.
//! Programs write to it too. Three things tell their output apart:
//!
//! - A panic's line carries the time since the kernel's start, which must be about now. An old log
//!   that is shown does not.
//! - After a panic only the kernel speaks.
//! - Then the machine resets, or is silent after the kernel's last line.
//!
//! With `printk.time=0` the last two have to do.

use devices::time::{Clock, SECOND};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How the kernel's line about it begins.
const PANIC: &str = "Kernel panic - not syncing: ";
/// The last line of a kernel that then hangs.
const END: &str = "---[ end Kernel panic - not syncing";
/// Bytes of a line that are looked at.
const LINE_MAX: usize = 256;
/// Lines that are kept.
const LINES_MAX: usize = 40;
/// A kernel starts its clock late, and its output may wait.
const LATE: f64 = 30.0;
/// The two clocks may differ by this many seconds.
const EARLY: f64 = 2.0;
/// So long a guest is silent that hangs after its last line.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// Reads one console.
pub(crate) struct Witness {
    /// The guest's time.
    clock: Arc<dyn Clock>,
    /// When the guest began.
    began: u64,
    /// The line in progress.
    line: Vec<u8>,
    /// The panic's line and those after it; empty: no panic.
    lines: Vec<String>,
    timed: bool,
    ended: bool,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl Witness {
    /// Of a guest that begins now, by `clock`.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let (line, lines, began) = (Vec::new(), Vec::new(), clock.now());
        Self { clock, began, line, lines, timed: false, ended: false }
    }

    /// Another guest begins: what was heard of this one is forgotten.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self::new(Arc::clone(&self.clock));
    }

    /// The console wrote `bytes`.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        let now = self.clock.now().saturating_sub(self.began) as f64 / SECOND as f64;
        for &byte in bytes {
            if byte == b'\n' {
                let line = printable(&std::mem::take(&mut self.line));
                self.line_at(line.trim_end(), now);
            } else if self.line.len() < LINE_MAX {
                self.line.push(byte);
            }
        }
    }

    /// The kernel has said its last word, and hangs unless something follows.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended && self.report().is_some()
    }

    /// The panic's line and what the kernel said after it, if it panicked and nobody else has
    /// spoken since.
    pub(crate) fn report(&self) -> Option<String> {
        let foreign = self.timed && !self.line.is_empty() && time(&printable(&self.line)).is_none();
        (!self.lines.is_empty() && !foreign).then(|| self.lines.join("\n"))
    }

    fn line_at(&mut self, line: &str, now: f64) {
        if let Some((timed, text)) = panic_line(line, now) {
            (self.lines, self.timed, self.ended) = (vec![text.to_owned()], timed, false);
        } else if self.lines.is_empty() || line.is_empty() {
        } else if self.timed && time(line).is_none() {
            self.lines.clear(); // a program's: the kernel lives
        } else {
            self.ended |= line.contains(END);
            if self.lines.len() < LINES_MAX {
                self.lines.push(line.to_owned());
            }
        }
    }
}

/// A panic's line: whether it has a time, and the line from there on.
fn panic_line(line: &str, now: f64) -> Option<(bool, &str)> {
    let (before, _) = line.split_once(PANIC)?;
    if before.is_empty() {
        return Some((false, line));
    }
    // A program's line without an end may stand before the kernel's.
    let text = &line[before.rfind('[')?..];
    let seconds = time(text)?;
    let alone = text.split_once("] ").is_some_and(|(_, text)| text.starts_with(PANIC));
    (alone && (now - LATE..=now + EARLY).contains(&seconds)).then_some((true, text))
}

/// The seconds of a kernel's line `[   12.345678] …`.
fn time(line: &str) -> Option<f64> {
    let (inside, _) = line.strip_prefix('[')?.split_once(']')?;
    inside.trim_start().parse().ok().filter(|_| inside.contains('.'))
}

/// As text that may be shown on any terminal.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|&c| c != '\r').map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::time::ManualClock;

    fn heard(text: &str) -> Witness {
        let mut witness = Witness::new(ManualClock::new());
        text.bytes().for_each(|byte| witness.hear(&[byte]));
        witness
    }

    const DEATH: &str =
        "[    1.5] Kernel panic - not syncing: sysrq\r\n[    1.6] CPU: 0\x1b[2J\r\n";
    const LAST: &str = "[    1.7] ---[ end Kernel panic - not syncing: sysrq ]---\r\n";

    #[test]
    fn a_panic_is_told_with_what_follows() {
        let witness = heard(&format!("~ # foo[    1.4] sysrq: crash\r\nprompt {DEATH}"));
        let report = witness.report().expect("a panic");
        assert_eq!(report, "[    1.5] Kernel panic - not syncing: sysrq\n[    1.6] CPU: 0?[2J");
        assert!(!witness.has_ended());
        assert!(heard(&format!("{DEATH}{LAST}")).has_ended());
        assert!(heard("Kernel panic - not syncing: VFS\nCPU: 0\n").report().is_some());
    }

    #[test]
    fn the_guests_time_counts() {
        let clock = ManualClock::new();
        let mut witness = Witness::new(Arc::clone(&clock) as _);
        clock.set(500 * SECOND);
        witness.hear(DEATH.as_bytes());
        assert_eq!(witness.report(), None, "so long ago");
        witness.begin_anew();
        witness.hear(DEATH.as_bytes());
        assert!(witness.report().is_some());
    }

    #[test]
    fn what_a_program_prints_is_no_panic() {
        let old = DEATH.replace("1.5", "512.5");
        for text in [
            old.as_str(),
            "log: Kernel panic - not syncing: x\n",
            "[    1.5] foo: Kernel panic - not syncing: x\n",
            "[1] Kernel panic - not syncing: x\n",
            &format!("{DEATH}{LAST}~ # "),
            &format!("{DEATH}{LAST}more text\n"),
            &"Kernel panic".repeat(10_000),
        ] {
            assert_eq!(heard(text).report(), None, "{text:.100}");
        }
    }
}
