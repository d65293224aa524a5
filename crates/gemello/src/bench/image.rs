//! The files that machines boot, without names: nothing is left behind, however the run ends.

use crate::debian::{Archive, Driver};
use crate::nucleus;
use anyhow::{Context as _, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// Files in memory that child processes open below our `/proc` entry.
#[derive(Debug)]
pub(super) struct Files {
    small: File,
    /// With the compiler, where that is wanted.
    large: Option<File>,
    nucleus: File,
}

impl Files {
    /// `guest` becomes process 1, with `busybox` and, if there is one, the compiler unpacked in a
    /// directory, and `drivers` in the order in which they are to be loaded.
    ///
    /// # Errors
    /// A file cannot be read, or memory is short.
    pub(super) fn new(
        guest: &Path,
        busybox: &Path,
        compiler: Option<&Path>,
        drivers: &[&Driver],
    ) -> Result<Self> {
        let drivers: Vec<_> =
            drivers.iter().map(|driver| read(&driver.path)).collect::<Result<_>>()?;
        let small = base(&read(guest)?, &read(busybox)?, &drivers);
        let large = match compiler {
            None => None,
            Some(place) => {
                let archive = add_compiler(place)?;
                Some(in_memory("initrd", &[&small, &archive])?)
            }
        };
        Ok(Self {
            small: in_memory("initrd", &[&small])?,
            large,
            nucleus: in_memory("nucleus", &[nucleus::IMAGE])?,
        })
    }

    /// Everything that rows need.
    pub(super) fn initrd(&self) -> PathBuf {
        path(self.large.as_ref().unwrap_or(&self.small))
    }

    /// For the rows that time a boot.
    pub(super) fn small_initrd(&self) -> PathBuf {
        path(&self.small)
    }

    pub(super) fn nucleus(&self) -> PathBuf {
        path(&self.nucleus)
    }
}

/// Process 1, `init`, with busybox beside it and `drivers` in their order.
pub(super) fn base(init: &[u8], busybox: &[u8], drivers: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.directory(directory, 0o755);
    }
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.character_device("dev/null", 0o666, (1, 3));
    archive.file("bin/busybox", 0o755, busybox);
    archive.file("init", 0o755, init);
    if !drivers.is_empty() {
        archive.directory("drivers", 0o755);
        for (number, driver) in drivers.iter().enumerate() {
            archive.file(&format!("drivers/{number:02}.ko"), 0o644, driver);
        }
    }
    archive.finish()
}

/// The compiler's directory as `/gcc`.
fn add_compiler(place: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory("gcc", 0o755);
    archive.directory("gcc/lib", 0o755);
    for (from, to) in [(place.to_owned(), "gcc"), (place.join("lib"), "gcc/lib")] {
        let entries = fs::read_dir(&from).with_context(|| format!("no {}", from.display()))?;
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for file in paths.iter().filter(|path| path.is_file()) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("{to}/{name}"), 0o755, &read(file)?);
        }
    }
    Ok(archive.finish())
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn in_memory(name: &str, parts: &[&[u8]]) -> Result<File> {
    let make = || -> std::io::Result<File> {
        let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        parts.iter().try_for_each(|part| file.write_all(part))?;
        Ok(file)
    };
    make().with_context(|| format!("no memory for the guest's {name}"))
}

fn path(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_reads_them() {
        let file = in_memory("test", &[b"hello ", b"there"]).expect("memory");
        let output = std::process::Command::new("cat").arg(path(&file)).output().expect("cat");
        assert_eq!(output.stdout, b"hello there");
    }
}
