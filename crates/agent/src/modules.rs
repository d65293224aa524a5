//! The drivers that the initial file system carries.

use agent_job::LATER_DRIVERS;
use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::system::finit_module;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// `MODULE_INIT_COMPRESSED_FILE` (finit_module(2)): the kernel unpacks it.
const COMPRESSED: i32 = 4;

/// What a module's file begins with that is not compressed.
const ELF: [u8; 4] = *b"\x7fELF";

/// Loads those in `folder`, in the order of their names. One that is there already is no fault.
pub(crate) fn load(folder: &str) -> Result<()> {
    for path in listed(&Path::new("/").join(folder)) {
        let load = || insert_file(&File::open(&path)?);
        load().with_context(|| format!("cannot load {}", path.display()))?;
    }
    Ok(())
}

/// Those that are loaded later, open.
pub(crate) fn later() -> Vec<File> {
    listed(&Path::new("/").join(LATER_DRIVERS))
        .iter()
        .filter_map(|path| File::open(path).ok())
        .collect()
}

/// The files of `folder`, in the order of their names.
pub(crate) fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Loads the driver in `file`, if it is not there already.
pub(crate) fn insert_file(mut file: &File) -> std::io::Result<()> {
    let mut magic = [0; ELF.len()];
    file.read_exact(&mut magic)?;
    match finit_module(file, c"", if magic == ELF { 0 } else { COMPRESSED }) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
