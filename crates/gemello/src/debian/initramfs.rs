//! The initial file system: the agent, its job, drivers, and for a guest that stays in it, busybox.

use super::Drivers;
use super::cpio::Archive;
use agent_job::Job;
use anyhow::Result;

/// `/etc/profile`, read by login and interactive shells.
const PROFILE: &str = "export PS1='\\w # '\nalias ll='ls -l'\n";

/// The archive. Without `busybox`, it is left for another root.
///
/// # Errors
/// A driver cannot be read.
pub(super) fn build(busybox: Option<&[u8]>, drivers: &Drivers, job: &Job) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["dev", "etc", "etc/gemello", "proc", "root", "sys", "tmp"] {
        archive.directory(directory, 0o755);
    }
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.character_device("dev/null", 0o666, (1, 3));
    archive.file("init", 0o755, agent_image::IMAGE);
    archive.file(agent_job::JOB, 0o600, &job.encode());
    if let Some(busybox) = busybox {
        archive.directory("bin", 0o755);
        archive.file("bin/busybox", 0o755, busybox);
        archive.link("bin/sh", "busybox");
        archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n");
        archive.file("etc/group", 0o644, b"root:x:0:\ntty:x:5:\n");
        archive.file("etc/profile", 0o644, PROFILE.as_bytes());
    }
    let Drivers { at_boot, later } = drivers;
    for (folder, drivers) in [(agent_job::DRIVERS, at_boot), (agent_job::LATER_DRIVERS, later)] {
        if !drivers.is_empty() {
            archive.directory(folder, 0o755);
        }
        for (number, driver) in drivers.iter().enumerate() {
            archive.file(&format!("{folder}/{number:02}.ko"), 0o644, &super::read(driver)?);
        }
    }
    Ok(archive.finish())
}
