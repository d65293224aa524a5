//! The initial file system: the agent, its job, drivers, and for a guest that stays in it, busybox.

use super::cpio::Archive;
use agent_job::Job;

/// `/etc/profile`, read by login and interactive shells.
const PROFILE: &str = "export PS1='\\w # '\nalias ll='ls -l'\n";

/// The archive. Without `busybox`, it is left for another root.
pub(super) fn build(busybox: Option<&[u8]>, drivers: &[Vec<u8>], job: &Job) -> Vec<u8> {
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
    if !drivers.is_empty() {
        archive.directory(agent_job::DRIVERS, 0o755);
        for (number, driver) in drivers.iter().enumerate() {
            archive.file(&format!("{}/{number:02}.ko", agent_job::DRIVERS), 0o644, driver);
        }
    }
    archive.finish()
}
