//! What is written beside a saved machine: what this program wants to find again.

use crate::save;
use crate::settings::name::MachineName;
use crate::side::{Kind, Side, SideState};
use anyhow::{Context as _, Result, bail};
use machine::{Disk, Hardware};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::time::SystemTime;

/// The version that is written, and the only one that is read.
const VERSION: u64 = 2;

/// What is written beside the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedSession {
    version: u64,
    pub(crate) name: MachineName,
    pub(crate) kind: Kind,
    pub(crate) side: SideState,
    /// How each disk's files were when the machine was saved, if that could be told: they must not
    /// have been written since.
    disks: Vec<Option<Vec<DiskMark>>>,
}

impl SavedSession {
    /// For the machine `name`, to be saved with it.
    pub(crate) fn teller(name: &MachineName, side: &Side) -> save::Session {
        let (name, side) = (name.clone(), side.clone());
        Box::new(move |hardware| {
            let session = serde_json::to_value(Self::of(&name, &side, hardware));
            let session = session.unwrap_or_default();
            save::Beside { session, name: name.to_string(), note: side.note() }
        })
    }

    /// That of the machine `name` of `hardware`, as it stands.
    fn of(name: &MachineName, side: &Side, hardware: &Hardware) -> Self {
        let disks = hardware.disks().map(|disk| DiskMark::all(disk).ok()).collect();
        let (name, kind, side) = (name.clone(), side.kind(), side.state());
        Self { version: VERSION, name, kind, side, disks }
    }

    /// What `value`, from the file at `path`, says.
    ///
    /// # Errors
    /// Another program has written it, or another version.
    pub(crate) fn read(value: &Value, path: &Path) -> Result<Self> {
        let foreign = || format!("{} was not saved by this program", path.display());
        // First the version alone: the rest may have any form in another one.
        let version = value.get("version").and_then(Value::as_u64).with_context(foreign)?;
        if version != VERSION {
            bail!(
                "the session in {} has version {version}, and this gemello reads {VERSION}; use \
                 the gemello that wrote it",
                path.display()
            );
        }
        Self::deserialize(value).with_context(foreign)
    }

    /// That nothing has been written to `disk`, the machine's number `n`, since the machine was
    /// saved.
    ///
    /// # Errors
    /// It has, or nobody knows.
    pub(crate) fn unwritten(&self, n: usize, disk: &Disk) -> Result<()> {
        let now = DiskMark::all(disk)
            .with_context(|| format!("cannot read the machine's disk {}", disk.path.display()))?;
        if self.disks.get(n).and_then(Option::as_ref) == Some(&now) {
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
    /// Of every file that `disk` consists of.
    fn all(disk: &Disk) -> std::io::Result<Vec<Self>> {
        disk.image().files()?.iter().map(|path| Self::of(path)).collect()
    }

    /// As the file at `path` is now.
    fn of(path: &Path) -> std::io::Result<Self> {
        let data = std::fs::metadata(path)?;
        let modified = data.is_file().then(|| data.modified()).transpose()?;
        Ok(Self { len: data.len(), modified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Place;
    use crate::side::Errors;
    use machine::{Device, Transport};
    use serde_json::json;

    fn session(disks: Vec<Option<Vec<DiskMark>>>) -> SavedSession {
        let (kind, side) = (Kind::Pipes(Errors::Apart), SideState::default());
        let name = MachineName::of_image(Path::new("a"));
        SavedSession { version: VERSION, name, kind, side, disks }
    }

    #[test]
    fn a_disk_of_which_nothing_is_known_counts_as_written() {
        let path = std::env::temp_dir().join(format!("gemello-mark-{}", std::process::id()));
        std::fs::write(&path, [0; 512]).expect("a file");
        let disk = Disk::new(path.clone());
        let hardware = Hardware {
            memory: 0,
            paging: None,
            devices: vec![Device::Disk(disk.clone())],
            transport: Transport::Pci,
            debug_exit: false,
            deterministic: false,
        };
        let side = Side::new(Kind::Console, Place::Standard, (24, 80));
        let now = SavedSession::of(&MachineName::of_image(&path), &side, &hardware);
        assert!(now.unwritten(0, &disk).is_ok());
        for disks in [vec![], vec![None]] {
            assert!(session(disks).unwritten(0, &disk).is_err());
        }
        std::fs::remove_file(&path).expect("it is there");
    }

    fn read(value: &Value) -> Result<SavedSession, String> {
        SavedSession::read(value, Path::new("x.gm")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn another_version_or_program_is_refused_by_name() {
        let written = serde_json::to_value(session(vec![])).expect("plain data");
        assert_eq!(read(&written), Ok(session(vec![])));
        let with = |key: &str, value: Value| {
            let mut other = written.clone();
            other[key] = value;
            read(&other).expect_err("refused")
        };
        assert!(with("version", json!(99)).contains("x.gm has version 99"));
        assert!(with("version", json!("1")).contains("x.gm was not saved by this program"));
        for (key, value) in [
            ("name", json!("../x")),
            ("kind", json!("Console2")),
            ("kind", json!({ "Pipes": "Nowhere" })),
            ("side", json!({})),
            ("other", json!(1)),
            ("disks", Value::Null),
        ] {
            let refusal = with(key, value);
            assert!(refusal.contains("x.gm was not saved by this program"), "{refusal}");
        }
        let foreign = [Value::Null, json!([1]), json!({}), json!({ "kind": "Console" })];
        assert!(foreign.iter().all(|value| read(value).is_err()));
    }

    /// Whatever a file says, the lines are made of it or it is refused.
    #[test]
    fn no_session_does_harm() {
        let written = serde_json::to_string(&session(vec![None])).expect("plain data");
        let mut random = test_support::Rng::new(3);
        let mut taken = 0;
        for _ in 0..20_000 {
            let mut bytes = written.clone().into_bytes();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = b"0123456789[]{},\"ax"[random.below(18) as usize];
            let Ok(value) = serde_json::from_slice(&bytes) else { continue };
            let Ok(session) = read(&value) else { continue };
            taken += 1;
            let side = Side::restored(session.kind, Place::Standard, session.side);
            // Dropped, one would close standard output, where the tests' results go.
            std::mem::forget(side.lines(&crate::output::LogFile::default()));
            side.state();
        }
        assert!(taken > 100, "{taken} were taken");
    }
}
