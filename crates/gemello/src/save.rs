//! Saving a running machine to the file given with `--save`: by Ctrl-A s on the terminal, or by
//! SIGUSR1.
//!
//! The guest stands still while it is saved, and goes on. One save at a time; it has a thread of
//! its own, so that the console is served.

use crate::terminal;
use anyhow::{Result, anyhow, bail};
use machine::{Cable, Device, Disk, Hardware, MachineHandle, Network, SavedMachine, Share, Vsock};
use rustix::fs::Access;
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The machine that can be saved, and how.
pub(crate) struct Saver {
    path: PathBuf,
    handle: MachineHandle,
    hardware: Hardware,
    session: Session,
    busy: Mutex<()>,
}

/// Tells what goes with a machine of this hardware, while the machine stands still.
pub(crate) type Session = Box<dyn Fn(&Hardware) -> Beside + Send + Sync>;

/// What goes with a machine that is saved.
pub(crate) struct Beside {
    /// For [`SavedMachine`].
    pub(crate) session: serde_json::Value,
    /// What the machine is called.
    pub(crate) name: String,
    /// What to tell the user, after all else.
    pub(crate) note: String,
}

/// The absolute name of the file `path`, which is a machine's `what`.
fn absolute(path: &Path, what: &str) -> Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if path.to_str().is_none() {
        bail!("--save: the name of {what} {} is no UTF-8 text; rename it", path.display());
    }
    Ok(path)
}

/// `hardware` as it can be found again when it is restored: its files by absolute names.
///
/// # Errors
/// One has no such name.
pub(crate) fn lasting(hardware: Hardware) -> Result<Hardware> {
    let device = |device: Device| -> Result<Device> {
        match device {
            Device::Disk(disk) => {
                Ok(Device::Disk(Disk { path: absolute(&disk.path, "disk")?, ..disk }))
            }
            Device::Vsock(vsock) => {
                let path = vsock.path.as_deref().map(|path| absolute(path, "socket"));
                Ok(Device::Vsock(Vsock { path: path.transpose()?, ..vsock }))
            }
            Device::Net(Network { mac, cable: Cable::Unix { path } }) => {
                let path = absolute(&path, "socket")?;
                Ok(Device::Net(Network { mac, cable: Cable::Unix { path } }))
            }
            Device::Share(share) => {
                Ok(Device::Share(Share { path: absolute(&share.path, "folder")?, ..share }))
            }
            other => Ok(other),
        }
    };
    let devices = hardware.devices.into_iter().map(device).collect::<Result<_>>()?;
    Ok(Hardware { devices, ..hardware })
}

impl Saver {
    /// Saves this machine to `path` whenever it is asked to.
    ///
    /// # Errors
    /// There is something else than a saved machine, which is not overwritten.
    pub(crate) fn new(
        path: &Path,
        handle: MachineHandle,
        hardware: Hardware,
        session: Session,
    ) -> Result<Self> {
        if std::fs::symlink_metadata(path).is_ok() && !SavedMachine::is_one(path) {
            bail!(
                "--save {}: what is there is no saved machine; name another file",
                path.display()
            );
        }
        let path = path.to_owned();
        Ok(Self { path, handle, hardware, session, busy: Mutex::new(()) })
    }

    /// That the machine can be saved where it is to be: with what rights are left.
    ///
    /// # Errors
    /// The host would refuse it.
    pub(crate) fn check(&self) -> Result<()> {
        let place = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let refused = |error: Errno| {
            let (file, place) = (self.path.display(), place.display());
            let root = match error {
                Errno::ACCESS if rustix::process::geteuid().is_root() => {
                    "; a guest runs without root's privileges"
                }
                _ => "",
            };
            let error = std::io::Error::from(error);
            anyhow!("--save {file}: cannot write in {place}: {error}{root}")
        };
        rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK).map_err(refused)
    }

    /// Saves the machine, on another thread, and tells how it went.
    pub(crate) fn request(self: &Arc<Self>) {
        let saver = Arc::clone(self);
        let work = move || {
            let Ok(_busy) = saver.busy.try_lock() else { return };
            terminal::tell(&format!("\ngemello: {}\n", saver.save()));
        };
        if std::thread::Builder::new().name("save".into()).spawn(work).is_err() {
            terminal::tell("\ngemello: cannot save the machine: the host refuses a thread\n");
        }
    }

    fn save(&self) -> String {
        let began = Instant::now();
        let (mut name, mut note) = (String::new(), String::new());
        let session = || {
            let beside = (self.session)(&self.hardware);
            (name, note) = (beside.name, beside.note);
            beside.session
        };
        match self.handle.save_to(&self.path, &self.hardware, session) {
            Ok(()) => format!(
                "{name} is saved to {} in {:.1} s; `gemello restore` goes on from there{note}",
                self.path.display(),
                began.elapsed().as_secs_f64()
            ),
            Err(error) => format!("{error}; the machine goes on"),
        }
    }
}
