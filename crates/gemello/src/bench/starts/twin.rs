//! A guest of gemello's on QEMU: the same kernel, initial file system, command line and disks.

use super::made;
use crate::bench::guards::Place;
use crate::bench::machine::tethered;
use crate::cli::{self, Cli};
use crate::images::Root;
use crate::place;
use crate::plan::{self, Plan};
use crate::settings::options;
use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;
use machine::File;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// It.
pub(super) struct Twin {
    kernel: PathBuf,
    initrd: PathBuf,
    cmdline: OsString,
    /// Names of its virtio console's ports.
    ports: Vec<String>,
    disks: Vec<PathBuf>,
    /// What it says on a serial line when all went well.
    says: &'static str,
    place: Place,
    /// The first disk is there as long as this is.
    _root: Option<Root>,
}

impl Twin {
    /// That of `gemello run WORDS --cold -- true`.
    ///
    /// # Errors
    /// gemello itself could not run it.
    pub(super) fn of(words: &[OsString]) -> Result<Self> {
        let start = ["gemello", "run"].iter().map(OsStr::new);
        let end = ["--cold", "--", "true"].iter().map(OsStr::new);
        let words = start.chain(words.iter().map(OsString::as_os_str)).chain(end);
        let Some(cli::Command::Run(arguments)) = Cli::try_parse_from(words)?.command else {
            bail!("no command to run");
        };
        let settings = options::gather(&arguments)?.settings;
        let root = Root::of(&settings)?;
        let settings = settings.with_root(root.as_ref().map(Root::disk));
        let standard = place::Place::Standard;
        let Plan { boot, side, .. } = plan::plan(&settings, None, root.as_ref(), standard)?;
        let place = Place::new("twin")?;
        let initrd = boot.initrd.as_ref().context("no initial file system")?;
        Ok(Self {
            kernel: file(&place, &boot.kernel, "kernel")?,
            initrd: file(&place, initrd, "initrd")?,
            cmdline: boot.cmdline.into(),
            ports: side.ports().into_iter().map(|port| port.name).collect(),
            disks: settings.disk.into_iter().map(|disk| disk.path).collect(),
            says: "status 0",
            place,
            _root: root,
        })
    }

    /// That of a guest with `kernel` and `initrd` whose `disk` boots by itself; QEMU is told what
    /// a boot loader would.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn of_disk(disk: PathBuf, kernel: PathBuf, initrd: PathBuf) -> Result<Self> {
        Ok(Self {
            kernel,
            initrd,
            cmdline: made::CMDLINE.into(),
            ports: Vec::new(),
            disks: vec![disk],
            says: made::SAID,
            place: Place::new("twin")?,
            _root: None,
        })
    }

    /// Fails unless the guest has just said that all went well.
    ///
    /// # Errors
    /// It has said something else.
    pub(super) fn judge(&self) -> Result<()> {
        let lines = self.lines().map(|line| fs::read(line).unwrap_or_default());
        let said = lines.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        ensure!(said.contains(self.says), "the guest on QEMU did not end well:\n{said}");
        Ok(())
    }

    /// Where its serial lines are written to.
    fn lines(&self) -> [PathBuf; 2] {
        ["ttyS0", "ttyS1"].map(|name| self.place.join(name))
    }

    /// Runs it.
    pub(super) fn command(&self, gemello: &PathBuf) -> Command {
        let mut command = tethered(gemello);
        command.args(["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max"]);
        command.args(["-m", "512", "-no-user-config", "-nodefaults", "-display", "none"]);
        command.arg("-no-reboot");
        for line in self.lines() {
            command.arg("-serial").arg(joined("file:", &line));
        }
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        command.arg("-append").arg(&self.cmdline);
        command.args(["-device", "virtio-serial-pci"]);
        for (number, name) in self.ports.iter().enumerate() {
            command.args(["-chardev", &format!("null,id=c{number}"), "-device"]);
            command.arg(format!("virtserialport,chardev=c{number},name={name}"));
        }
        command.args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"]);
        for (number, disk) in self.disks.iter().enumerate() {
            let drive = format!("if=none,id=d{number},snapshot=on,file=");
            command.arg("-drive").arg(joined(&drive, disk));
            command.args(["-device", &format!("virtio-blk-pci,drive=d{number}")]);
        }
        command
    }
}

/// Where `file` is; bytes are put into one called `name`.
fn file(place: &Place, file: &File, name: &str) -> Result<PathBuf> {
    match file {
        File::Path(path) => Ok(path.clone()),
        File::Bytes { bytes, .. } => {
            let path = place.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {name}"))?;
            Ok(path)
        }
    }
}

/// `text`, then `path`; a comma ends a value of QEMU's, two are one.
fn joined(text: &str, path: &Path) -> OsString {
    format!("{text}{}", path.display().to_string().replace(',', ",,")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_ends_no_value() {
        assert_eq!(joined("file:", Path::new("/a,b")), "file:/a,,b");
    }
}
