//! Many machines in one process: what they take of the host once each has come to its prompt.

use super::guards::{Place, Running};
use super::machine::tethered;
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For all of them to come to their prompts; a host may be busy.
const SOON: Duration = Duration::from_secs(600);
/// Until it is looked again.
const LOOK: Duration = Duration::from_millis(20);

/// Machines that are alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    pub(super) name: &'static str,
    count: usize,
    /// Each one's file.
    settings: &'static str,
    /// What each says when it can be talked to.
    prompt: &'static str,
}

/// The group that these rows are.
pub(super) const GROUP: &str = "machines";

/// All crowds.
pub(super) const CROWDS: [Crowd; 2] = [
    Crowd {
        name: "nuclei50",
        count: 50,
        settings: "[boot]\nnucleus = \"\"\n",
        prompt: "nucleus> ",
    },
    Crowd {
        name: "debians8",
        count: 8,
        settings: "[machine]\nmemory = \"1G\"\nresident = \"256M\"\n[boot]\nbusybox = \"cloud\"\n",
        prompt: "/root # ",
    },
];

/// What a crowd takes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Taken {
    name: &'static str,
    machines: usize,
    /// From the start until all are at their prompts.
    seconds: f64,
    /// Of the whole process, the program included.
    resident_mib: u64,
    threads: u64,
}

/// The crowds that `names` ask for; all if there are none.
pub(super) fn select(names: &[String]) -> Vec<Crowd> {
    let wanted = |crowd: &&Crowd| {
        names.is_empty() || names.iter().any(|name| name == crowd.name || name == GROUP)
    };
    CROWDS.iter().filter(wanted).copied().collect()
}

impl Crowd {
    /// Runs it, by the program `gemello`.
    ///
    /// # Errors
    /// A machine does not come to its prompt, or the host refuses.
    pub(super) fn measure(&self, gemello: &PathBuf) -> Result<Taken> {
        let place = Place::new("crowd")?;
        let mut command = tethered(gemello);
        command.arg(gemello).arg("run");
        for number in 0..self.count {
            let log = format!("{number}.log");
            let text = format!("{}[run]\nconsole = \"log:{log}\"\n", self.settings);
            let path = place.join(&format!("m{number}.toml"));
            fs::write(&path, text)?;
            command.arg(path);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let began = Instant::now();
        let mut running = Running(command.spawn().context("cannot start the machines")?);
        for number in 0..self.count {
            let log = place.join(&format!("{number}.log"));
            while !says(&log, self.prompt) {
                if running.0.try_wait()?.is_some() || began.elapsed() > SOON {
                    bail!("{}: machine {number} does not come to its prompt", self.name);
                }
                sleep(LOOK);
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let status = fs::read_to_string(format!("/proc/{}/status", running.0.id()))?;
        Ok(Taken {
            name: self.name,
            machines: self.count,
            seconds,
            resident_mib: field(&status, "VmRSS:").context("no VmRSS")? >> 10,
            threads: field(&status, "Threads:").context("no Threads")?,
        })
    }
}

fn says(log: &Path, prompt: &str) -> bool {
    let bytes = fs::read(log).unwrap_or_default();
    bytes.windows(prompt.len()).any(|window| window == prompt.as_bytes())
}

/// The number after `name` in /proc/PID/status (proc_pid_status(5)).
fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// For people.
pub(super) fn table(crowds: &[Taken]) -> String {
    let mut text = format!(
        "\n{:<16}{:>10}{:>10}{:>14}{:>10}{:>10}\n",
        GROUP, "machines", "ready s", "resident MiB", "each", "threads"
    );
    for Taken { name, machines, seconds, resident_mib, threads } in crowds {
        let each = *resident_mib as f64 / *machines as f64;
        let _ = writeln!(
            text,
            "{name:<16}{machines:>10}{seconds:>10.2}{resident_mib:>14}{each:>10.1}{threads:>10}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crowds_are_selected_documented_and_shown() {
        let names = |asked: &[&str]| -> Vec<_> {
            let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
            select(&asked).iter().map(|crowd| crowd.name).collect()
        };
        assert_eq!(names(&[]), ["nuclei50", "debians8"]);
        assert_eq!(names(&[GROUP]), names(&[]));
        assert_eq!(names(&["fib", "debians8"]), ["debians8"]);
        let document = include_str!("../../../../docs/benchmark.md");
        for crowd in CROWDS {
            assert!(document.contains(&format!("| `{}` | MiB |", crowd.name)), "{}", crowd.name);
        }
        let taken =
            Taken { name: "nuclei50", machines: 50, seconds: 1.5, resident_mib: 250, threads: 205 };
        let table = table(&[taken]);
        let words: Vec<_> = table.lines().last().expect("a line").split_whitespace().collect();
        assert_eq!(words, ["nuclei50", "50", "1.50", "250", "5.0", "205"]);
    }
}
