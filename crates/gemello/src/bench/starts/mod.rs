//! What somebody waits for who types a command: `gemello run … -- true`, from the start of the
//! program to its end. From a template, as from the second time on; with `--cold`; and on QEMU,
//! with the same kernel, initial file system and disk, where it can have them.

use super::machine::{Machine, tethered};
use super::numbers::{median, ratio, shown};
use super::progress::Progress;
use crate::cli::{self, Cli};
use crate::images::{Root, system};
use crate::place::Place;
use crate::plan::{self, Plan};
use crate::settings::{Settings, options};
use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use machine::{BootConfig, File};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For one start; a host may be busy.
const SOON: Duration = Duration::from_secs(300);
/// Until it is looked again.
const LOOK: Duration = Duration::from_millis(1);

/// A command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) name: &'static str,
    /// Its words after `gemello run`.
    words: &'static [&'static str],
    on_qemu: OnQemu,
}

/// Whether QEMU can have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnQemu {
    Alike,
    /// It shares no folder by itself.
    Never,
}

/// The group that these rows are.
pub(super) const GROUP: &str = "starts";

/// All of them.
pub(super) const STARTS: [Start; 3] = [
    Start { name: "run-busybox", words: &["busybox"], on_qemu: OnQemu::Alike },
    Start { name: "run-rootfs", words: &["--rootfs", "/"], on_qemu: OnQemu::Never },
    Start { name: "run-debian", words: &["debian", "--rm"], on_qemu: OnQemu::Alike },
];

/// How long they take: medians, in seconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Waited {
    name: &'static str,
    template: Option<f64>,
    cold: Option<f64>,
    tcg: Option<f64>,
}

/// Those that `names` ask for; without a name, all for which nothing has to be made first.
pub(super) fn select(names: &[String]) -> Vec<Start> {
    let wanted = |start: &&Start| match names {
        [] => start.name != "run-debian" || system::is_there(),
        _ => names.iter().any(|name| name == start.name || name == GROUP),
    };
    STARTS.iter().filter(wanted).copied().collect()
}

impl Start {
    /// Measures it in `rounds`, by the program `gemello`, and on QEMU if `machines` has that.
    ///
    /// # Errors
    /// It fails, or the host refuses.
    pub(super) fn measure(
        &self,
        gemello: &PathBuf,
        machines: &[Machine],
        rounds: u32,
    ) -> Result<Waited> {
        let mut progress = Progress::new();
        let on_qemu = self.on_qemu == OnQemu::Alike && machines.contains(&Machine::Tcg);
        let twin = on_qemu.then(|| Twin::of(self.words)).transpose()?;
        let own = |more: &[&str]| {
            let mut command = tethered(gemello);
            command.arg(gemello).arg("run").args(self.words).args(more).args(["--", "true"]);
            time(command).with_context(|| self.name)
        };
        own(&[])?; // there is a template from now on
        let (mut template, mut cold, mut tcg) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            progress.round(round, rounds);
            progress.say(self.name, Machine::T1);
            template.push(own(&[])?);
            cold.push(own(&["--cold"])?);
            if let Some(twin) = &twin {
                progress.say(self.name, Machine::Tcg);
                tcg.push(twin.time(gemello).with_context(|| format!("{} on QEMU", self.name))?);
            }
        }
        let [template, cold, tcg] = [template, cold, tcg].map(|taken| median(&taken));
        Ok(Waited { name: self.name, template, cold, tcg })
    }
}

/// Runs `command` to its end, which has to be a good one; seconds.
fn time(mut command: Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().context("cannot start it")?;
    loop {
        if let Some(status) = child.try_wait()? {
            let seconds = began.elapsed().as_secs_f64();
            anyhow::ensure!(status.success(), "it ended with {status}");
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

/// A command's machine for QEMU.
struct Twin {
    settings: Settings,
    boot: BootConfig,
    ports: Vec<String>,
    place: PathBuf,
    /// The disk is there as long as this is.
    _root: Option<Root>,
}

impl Twin {
    /// That of `gemello run WORDS -- true`.
    fn of(words: &[&str]) -> Result<Self> {
        let words = ["gemello", "run"].iter().chain(words).chain(&["--cold", "--", "true"]);
        let Some(cli::Command::Run(arguments)) = Cli::try_parse_from(words)?.command else {
            bail!("no command to run");
        };
        let settings = options::gather(&arguments)?.settings;
        let root = Root::of(&settings)?;
        let settings = settings.with_root(root.as_ref().map(Root::disk));
        let Plan { boot, side, .. } = plan::plan(&settings, None, root.as_ref(), Place::Standard)?;
        let ports = side.ports().into_iter().map(|port| port.name).collect();
        let place = std::env::temp_dir().join(format!("gemello-twin-{}", std::process::id()));
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        Ok(Self { settings, boot, ports, place, _root: root })
    }

    fn time(&self, gemello: &PathBuf) -> Result<f64> {
        let log = self.place.join("log");
        let taken = time(self.command(gemello, &log)?)?;
        let said = fs::read_to_string(&log).unwrap_or_default();
        anyhow::ensure!(said.contains("status 0"), "its command did not end well:\n{said}");
        Ok(taken)
    }

    fn command(&self, gemello: &PathBuf, log: &Path) -> Result<Command> {
        let mut command = tethered(gemello);
        command.args(["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max"]);
        command.args(["-m", "512", "-no-user-config", "-nodefaults", "-display", "none"]);
        command.args(["-no-reboot", "-serial", "null", "-serial"]).arg(joined("file:", log));
        command.arg("-kernel").arg(self.file(&self.boot.kernel, "kernel")?);
        if let Some(initrd) = &self.boot.initrd {
            command.arg("-initrd").arg(self.file(initrd, "initrd")?);
        }
        command.arg("-append").arg(&self.boot.cmdline);
        command.args(["-device", "virtio-serial-pci"]);
        for (number, name) in self.ports.iter().enumerate() {
            command.args(["-chardev", &format!("null,id=c{number}"), "-device"]);
            command.arg(format!("virtserialport,chardev=c{number},name={name}"));
        }
        command.args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"]);
        for (number, disk) in self.settings.disk.iter().enumerate() {
            let drive = format!("if=none,id=d{number},snapshot=on,file=");
            command.arg("-drive").arg(joined(&drive, &disk.path));
            command.args(["-device", &format!("virtio-blk-pci,drive=d{number}")]);
        }
        Ok(command)
    }

    /// Where `file` is; bytes are put into one called `name`.
    fn file(&self, file: &File, name: &str) -> Result<PathBuf> {
        match file {
            File::Path(path) => Ok(path.clone()),
            File::Bytes { bytes, .. } => {
                let path = self.place.join(name);
                fs::write(&path, bytes).with_context(|| format!("cannot write {name}"))?;
                Ok(path)
            }
        }
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// `text`, then `path`; a comma ends a value of QEMU's, two are one.
fn joined(text: &str, path: &Path) -> OsString {
    format!("{text}{}", path.display().to_string().replace(',', ",,")).into()
}

/// For people.
pub(super) fn table(starts: &[Waited]) -> String {
    let mut text = format!(
        "\n{GROUP:<16}{:>12}{:>10}{:>10}{:>14}\n",
        "template s", "cold s", "tcg s", "template/tcg"
    );
    for Waited { name, template, cold, tcg } in starts {
        let over = ratio(*template, *tcg);
        let [template, cold, tcg, over] = [*template, *cold, *tcg, over].map(shown);
        let _ = writeln!(text, "{name:<16}{template:>12}{cold:>10}{tcg:>10}{over:>14}");
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
        assert_eq!(names(&[GROUP]), ["run-busybox", "run-rootfs", "run-debian"]);
        assert_eq!(names(&["fib", "run-rootfs"]), ["run-rootfs"]);
        let document = include_str!("../../../../docs/benchmark.md");
        for start in STARTS {
            assert!(document.contains(&format!("| `{}` | s |", start.name)), "{}", start.name);
        }
        let waited = [
            Waited { name: "one", template: Some(0.5), cold: Some(2.0), tcg: Some(4.0) },
            Waited { name: "other", template: Some(0.5), cold: Some(2.0), tcg: None },
        ];
        let table = table(&waited);
        let lines: Vec<Vec<_>> = table.lines().map(|it| it.split_whitespace().collect()).collect();
        assert_eq!(lines[2], ["one", "0.500", "2.00", "4.00", "0.125"]);
        assert_eq!(lines[3], ["other", "0.500", "2.00", "-", "-"]);
    }

    #[test]
    fn a_comma_ends_no_value() {
        assert_eq!(joined("file:", Path::new("/a,b")), "file:/a,,b");
    }
}
