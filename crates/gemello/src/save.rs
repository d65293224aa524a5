//! Saving the running machine to the file given with `--save`: by Ctrl-A s on the terminal, or by
//! SIGUSR1.
//!
//! The guest stands still while it is saved, and goes on. One save at a time; it has a thread of
//! its own, so that the console is served.

use crate::terminal;
use anyhow::{Context as _, Result, anyhow, bail};
use machine::{Device, Disk, Hardware, MachineHandle, SavedMachine};
use rustix::fs::Access;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

/// What a restored machine's side of the user has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The guest has the first serial line, and knows nothing of us.
    Console,
    /// The shell of `run debian`, which hears of the window's size.
    DebianShell,
}

/// What is written beside the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedSession {
    pub(crate) kind: Kind,
    /// How each disk's file was when the machine was saved, if that could be told: it must not have
    /// been written since.
    disks: Vec<Option<DiskMark>>,
}

impl SavedSession {
    /// That nothing has been written to `disk`, the machine's number `n`, since the machine was
    /// saved.
    ///
    /// # Errors
    /// It has, or nobody knows.
    pub(crate) fn unwritten(&self, n: usize, disk: &Disk) -> Result<()> {
        let now = DiskMark::of(&disk.path)
            .with_context(|| format!("cannot read the machine's disk {}", disk.path.display()))?;
        if self.disks.get(n).copied().flatten() == Some(now) {
            return Ok(());
        }
        bail!(
            "the disk {} has been written since the machine was saved: going on would damage what \
             is on it; put back the disk as it was, and give --accept-disks",
            disk.path.display()
        )
    }
}

/// What tells that a disk's file has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DiskMark {
    /// Bytes.
    len: u64,
    /// Time of the last write, if it is a file.
    modified: Option<SystemTime>,
}

impl DiskMark {
    /// As the file at `path` is now.
    fn of(path: &Path) -> std::io::Result<Self> {
        let data = std::fs::metadata(path)?;
        let modified = data.is_file().then(|| data.modified()).transpose()?;
        Ok(Self { len: data.len(), modified })
    }
}

/// The machine that can be saved, and how.
struct Saver {
    path: PathBuf,
    handle: MachineHandle,
    hardware: Hardware,
    kind: Kind,
    busy: Mutex<()>,
}

static SAVER: Mutex<Option<Arc<Saver>>> = Mutex::new(None);

/// `hardware` as it can be found again when it is restored: its disks by absolute names.
///
/// # Errors
/// A disk has no name.
pub(crate) fn lasting(hardware: Hardware) -> Result<Hardware> {
    let device = |device: Device| -> Result<Device> {
        let Device::Disk(disk) = device else { return Ok(device) };
        let path = std::path::absolute(&disk.path)?;
        if path.to_str().is_none() {
            bail!("--save: the name of disk {} is no UTF-8 text; rename it", path.display());
        }
        Ok(Device::Disk(Disk { path, ..disk }))
    };
    let devices = hardware.devices.into_iter().map(device).collect::<Result<_>>()?;
    Ok(Hardware { devices, ..hardware })
}

/// From now on [`request`] saves this machine to `path`.
///
/// # Errors
/// There is something else than a saved machine, which is not overwritten.
pub(crate) fn arm(
    path: &Path,
    handle: MachineHandle,
    hardware: Hardware,
    kind: Kind,
) -> Result<()> {
    if std::fs::symlink_metadata(path).is_ok() && !SavedMachine::is_one(path) {
        bail!("--save {}: what is there is no saved machine; name another file", path.display());
    }
    let path = path.to_owned();
    let saver = Saver { path, handle, hardware, kind, busy: Mutex::new(()) };
    *sync::lock(&SAVER) = Some(Arc::new(saver));
    Ok(())
}

/// That the machine can be saved where it is to be: with what rights are left.
///
/// # Errors
/// The host would refuse it.
pub(crate) fn check() -> Result<()> {
    let saver = sync::lock(&SAVER).clone();
    let Some(saver) = saver else { return Ok(()) };
    let place = match saver.path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let refused = |error: Errno| {
        let (file, place) = (saver.path.display(), place.display());
        let root = match error {
            Errno::ACCESS if rustix::process::geteuid().is_root() => {
                "; a guest runs without root's privileges"
            }
            _ => "",
        };
        anyhow!("--save {file}: cannot write in {place}: {}{root}", std::io::Error::from(error))
    };
    rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK).map_err(refused)
}

/// Saves the machine, on another thread, and tells how it went.
pub(crate) fn request() {
    let saver = sync::lock(&SAVER).clone();
    let Some(saver) = saver else {
        terminal::tell(
            "\ngemello: nothing is saved: start with --save FILE to save the machine there\n",
        );
        return;
    };
    let work = move || {
        let Ok(_busy) = saver.busy.try_lock() else { return };
        terminal::tell(&format!("\ngemello: {}\n", saver.save()));
    };
    if std::thread::Builder::new().name("save".into()).spawn(work).is_err() {
        terminal::tell("\ngemello: cannot save the machine: the host refuses a thread\n");
    }
}

impl Saver {
    fn save(&self) -> String {
        let began = Instant::now();
        let session = || {
            let disks = self.hardware.disks().map(|disk| DiskMark::of(&disk.path).ok()).collect();
            serde_json::to_value(SavedSession { kind: self.kind, disks }).unwrap_or_default()
        };
        match self.handle.save_to(&self.path, &self.hardware, session) {
            Ok(()) => format!(
                "saved to {} in {:.1} s; `gemello restore` goes on from there",
                self.path.display(),
                began.elapsed().as_secs_f64()
            ),
            Err(error) => format!("{error}; the machine goes on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::Trust;

    #[test]
    fn a_disk_of_which_nothing_is_known_counts_as_written() {
        let path = std::env::temp_dir().join(format!("gemello-mark-{}", std::process::id()));
        std::fs::write(&path, [0; 512]).expect("a file");
        let disk = Disk { path: path.clone(), read_only: false, trust: Trust::default() };
        let session = |disks| SavedSession { kind: Kind::Console, disks };
        assert!(session(vec![DiskMark::of(&path).ok()]).unwritten(0, &disk).is_ok());
        for disks in [vec![], vec![None]] {
            assert!(session(disks).unwritten(0, &disk).is_err());
        }
        std::fs::remove_file(&path).expect("it is there");
    }
}
