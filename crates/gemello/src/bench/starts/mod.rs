//! What somebody waits for who types a command, from the start of the program to its end: as from
//! the second time on, when there is a template; with `--cold`; and on QEMU, with the same kernel,
//! initial file system and disk, where it can have them.

mod made;
mod twin;

use super::guards::{Place, Running};
use super::machine::{Machine, tethered};
use super::numbers::{median, ratio, shown};
use super::progress::Progress;
use crate::debian::Fetched;
use crate::images::system;
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio, id};
use std::thread::sleep;
use std::time::{Duration, Instant};
use twin::Twin;

/// For one start; a host may be busy.
const SOON: Duration = Duration::from_secs(300);
/// Until it is looked again.
const LOOK: Duration = Duration::from_millis(1);

/// A command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) name: &'static str,
    what: What,
}

/// What is started.
#[derive(Clone, Copy, Debug)]
enum What {
    /// `gemello run` with these words and `-- true`.
    Guest(&'static [&'static str]),
    /// The same; QEMU shares no folder by itself.
    Shared(&'static [&'static str]),
    /// The same with an OCI image: busybox alone.
    Image,
    /// A disk that boots by itself, whose guest powers off at once.
    Disk,
    /// `gemello exec … -- true` in a machine that runs.
    Exec,
}

/// The group that these rows are.
pub(super) const GROUP: &str = "starts";

/// All of them.
pub(super) const STARTS: [Start; 7] = [
    Start { name: "run-busybox", what: What::Guest(&["busybox"]) },
    Start { name: "run-rootfs", what: What::Shared(&["--rootfs", "/"]) },
    Start { name: "run-oci", what: What::Image },
    Start { name: "run-disk", what: What::Disk },
    Start { name: "run-debian", what: What::Guest(&["debian", "--rm"]) },
    Start { name: "run-system", what: What::Guest(&["debian", "--rm", "--system"]) },
    Start { name: "exec", what: What::Exec },
];

/// Those for which a whole Debian is made first.
const OF_DEBIAN: [&str; 2] = ["run-debian", "run-system"];

/// How long they take: medians, in seconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Waited {
    name: &'static str,
    warm: Option<f64>,
    cold: Option<f64>,
    tcg: Option<f64>,
}

/// Those that `names` ask for; without a name, all for which nothing has to be made first.
pub(super) fn select(names: &[String]) -> Vec<Start> {
    let wanted = |start: &&Start| match names {
        [] => !OF_DEBIAN.contains(&start.name) || system::is_there(),
        _ => names.iter().any(|name| name == start.name || name == GROUP),
    };
    STARTS.iter().filter(wanted).copied().collect()
}

/// What starts are measured with.
pub(super) struct Tools<'t> {
    /// This program.
    pub(super) gemello: PathBuf,
    pub(super) debian: &'t Fetched,
    pub(super) machines: &'t [Machine],
    pub(super) rounds: u32,
}

/// The ways in which one thing is started, each by the words after `gemello`.
#[derive(Default)]
struct Ways {
    warm: Option<Vec<OsString>>,
    cold: Option<Vec<OsString>>,
    tcg: Option<Twin>,
    /// What has to be there as long.
    _kept: Kept,
}

#[derive(Default)]
struct Kept {
    _machine: Option<Running>,
    _image: Option<Image>,
    _place: Option<Place>,
}

/// An image whose root is removed.
struct Image {
    gemello: PathBuf,
    name: OsString,
}

impl Drop for Image {
    fn drop(&mut self) {
        let mut command = Command::new(&self.gemello);
        let _ = command.arg("rm").arg(&self.name).stdout(Stdio::null()).status();
    }
}

impl Start {
    /// Measures it.
    ///
    /// # Errors
    /// It fails, or the host refuses.
    pub(super) fn measure(&self, tools: &Tools<'_>) -> Result<Waited> {
        let mut progress = Progress::new();
        let ways = self.ways(tools).with_context(|| self.name)?;
        let own = |words: &Vec<OsString>| tools.time(words).with_context(|| self.name);
        ways.warm.as_ref().map(own).transpose()?; // there is a template from now on
        let mut samples = [const { Vec::new() }; 3];
        for round in 1..=tools.rounds {
            progress.round(round, tools.rounds);
            progress.say(self.name, Machine::T1);
            samples[0].extend(ways.warm.as_ref().map(own).transpose()?);
            samples[1].extend(ways.cold.as_ref().map(own).transpose()?);
            if let Some(twin) = &ways.tcg {
                progress.say(self.name, Machine::Tcg);
                let taken = time(twin.command(&tools.gemello)).and_then(|taken| {
                    twin.judge()?;
                    Ok(taken)
                });
                samples[2].push(taken.with_context(|| format!("{} on QEMU", self.name))?);
            }
        }
        let [warm, cold, tcg] = samples.map(|taken| median(&taken));
        Ok(Waited { name: self.name, warm, cold, tcg })
    }

    fn ways(&self, tools: &Tools<'_>) -> Result<Ways> {
        match self.what {
            What::Guest(words) => alike(&own(words), tools),
            What::Shared(words) => Ok(guest(&own(words), None)),
            What::Image => image(tools),
            What::Disk => disk(tools),
            What::Exec => exec(tools),
        }
    }
}

impl Tools<'_> {
    /// Runs gemello with `words`; seconds.
    fn time(&self, words: &[OsString]) -> Result<f64> {
        let mut command = tethered(&self.gemello);
        command.arg(&self.gemello).args(words);
        time(command)
    }

    /// What `make` makes, if QEMU takes part.
    fn on_qemu(&self, make: impl FnOnce() -> Result<Twin>) -> Result<Option<Twin>> {
        self.machines.contains(&Machine::Tcg).then(make).transpose()
    }
}

fn own(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// `gemello run WORDS -- true`.
fn guest(words: &[OsString], tcg: Option<Twin>) -> Ways {
    let run = |end: &[&str]| [own(&["run"]), words.to_vec(), own(end)].concat();
    let (warm, cold) = (run(&["--", "true"]), run(&["--cold", "--", "true"]));
    Ways { warm: Some(warm), cold: Some(cold), tcg, ..Ways::default() }
}

/// The same, which QEMU can have, too.
fn alike(words: &[OsString], tools: &Tools<'_>) -> Result<Ways> {
    let tcg = tools.on_qemu(|| Twin::of(words))?;
    Ok(guest(words, tcg))
}

fn image(tools: &Tools<'_>) -> Result<Ways> {
    let place = Place::new("image")?;
    made::image(place.path(), &tools.debian.busybox)?;
    let mut name = OsString::from("oci:");
    name.push(place.path());
    let ways = alike(std::slice::from_ref(&name), tools)?;
    let image = Image { gemello: tools.gemello.clone(), name };
    let _kept = Kept { _image: Some(image), _place: Some(place), ..Kept::default() };
    Ok(Ways { _kept, ..ways })
}

fn disk(tools: &Tools<'_>) -> Result<Ways> {
    let place = Place::new("disk")?;
    let (disk, initrd) = (place.join("disk.img"), place.join("initrd.img"));
    made::disk(&disk, &initrd, tools.debian)?;
    let mut cold = own(&["run", "--disk"]);
    cold.push(disk.clone().into());
    let tcg = tools.on_qemu(|| Twin::of_disk(disk, tools.debian.kernel.clone(), initrd))?;
    let _kept = Kept { _place: Some(place), ..Kept::default() };
    Ok(Ways { cold: Some(cold), tcg, _kept, ..Ways::default() })
}

fn exec(tools: &Tools<'_>) -> Result<Ways> {
    let name = format!("bench-{}", id());
    let mut command = tethered(&tools.gemello);
    command.arg(&tools.gemello).args(["run", "busybox", "--name", &name]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let machine = Running(command.spawn().context("cannot start a machine")?);
    let words = own(&["exec", &name, "--", "true"]);
    let began = Instant::now();
    while let Err(error) = tools.time(&words) {
        if began.elapsed() > SOON {
            return Err(error);
        }
        sleep(LOOK);
    }
    let _kept = Kept { _machine: Some(machine), ..Kept::default() };
    Ok(Ways { warm: Some(words), _kept, ..Ways::default() })
}

/// Runs `command` to its end, which has to be a good one; seconds.
fn time(mut command: Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().context("cannot start it")?;
    loop {
        if let Some(status) = child.try_wait()? {
            let seconds = began.elapsed().as_secs_f64();
            ensure!(status.success(), "it ended with {status}");
            return Ok(seconds);
        }
        if began.elapsed() > SOON {
            let _ = child.kill();
            let _ = child.wait();
            bail!("it does not end");
        }
        sleep(LOOK);
    }
}

/// For people.
pub(super) fn table(starts: &[Waited]) -> String {
    let mut text =
        format!("\n{GROUP:<16}{:>12}{:>10}{:>10}{:>14}\n", "warm s", "cold s", "tcg s", "warm/tcg");
    for Waited { name, warm, cold, tcg } in starts {
        let over = ratio(*warm, *tcg);
        let [warm, cold, tcg, over] = [*warm, *cold, *tcg, over].map(shown);
        let _ = writeln!(text, "{name:<16}{warm:>12}{cold:>10}{tcg:>10}{over:>14}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_selected_documented_and_shown() {
        let names = |asked: &[&str]| -> Vec<_> {
            let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
            select(&asked).iter().map(|start| start.name).collect()
        };
        assert_eq!(names(&[GROUP]), STARTS.map(|start| start.name));
        assert_eq!(names(&["fib", "run-rootfs"]), ["run-rootfs"]);
        let document = include_str!("../../../../../docs/benchmark.md");
        for start in STARTS {
            assert!(document.contains(&format!("| `{}` | s |", start.name)), "{}", start.name);
        }
        assert!(OF_DEBIAN.iter().all(|name| STARTS.iter().any(|start| start.name == *name)));
        let waited = [
            Waited { name: "one", warm: Some(0.5), cold: Some(2.0), tcg: Some(4.0) },
            Waited { name: "other", warm: Some(0.5), cold: None, tcg: None },
        ];
        let table = table(&waited);
        let lines: Vec<Vec<_>> = table.lines().map(|it| it.split_whitespace().collect()).collect();
        assert_eq!(lines[2], ["one", "0.500", "2.00", "4.00", "0.125"]);
        assert_eq!(lines[3], ["other", "0.500", "-", "-", "-"]);
    }
}
