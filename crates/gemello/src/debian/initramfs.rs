//! The initial file system: the agent, perhaps its job, drivers, and for a guest that stays in it,
//! busybox.

use super::cpio::Archive;
use agent_job::{BUS_DRIVERS, DRIVERS, Job, LATER_DRIVERS};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// `/etc/profile`, read by login and interactive shells.
const PROFILE: &str = "export PS1='\\w # '\nalias ll='ls -l'\n";

/// A guest's drivers, in the order in which they are loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drivers {
    pub(crate) at_boot: Vec<PathBuf>,
    /// Those of the bus, after these.
    pub(crate) bus: Vec<PathBuf>,
    /// Once somebody wants the agent.
    pub(crate) later: Vec<PathBuf>,
}

/// The archive. Without `busybox`, it is left for another root; without a `job`, the agent asks for
/// its own.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn build(
    busybox: Option<&Path>,
    drivers: &Drivers,
    job: Option<&Job>,
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["dev", "etc", "etc/gemello", "proc", "root", "sys", "tmp"] {
        archive.directory(directory, 0o755);
    }
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.character_device("dev/null", 0o666, (1, 3));
    archive.file("init", 0o755, agent_image::IMAGE);
    if let Some(job) = job {
        archive.file(agent_job::JOB, 0o600, &job.encode());
    }
    if let Some(busybox) = busybox {
        archive.directory("bin", 0o755);
        archive.file("bin/busybox", 0o755, &read(busybox)?);
        archive.link("bin/sh", "busybox");
        archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n");
        archive.file("etc/group", 0o644, b"root:x:0:\ntty:x:5:\n");
        archive.file("etc/profile", 0o644, PROFILE.as_bytes());
    }
    let Drivers { at_boot, bus, later } = drivers;
    for (folder, drivers) in [(DRIVERS, at_boot), (BUS_DRIVERS, bus), (LATER_DRIVERS, later)] {
        if !drivers.is_empty() {
            archive.directory(folder, 0o755);
        }
        for (number, driver) in drivers.iter().enumerate() {
            archive.file(&format!("{folder}/{number:02}.ko"), 0o644, &read(driver)?);
        }
    }
    Ok(archive.finish())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| {
        let path = path.display();
        format!(
            "cannot read {path}; if it is in gemello's cache, delete its directory and run \
             `gemello fetch busybox`"
        )
    })
}
