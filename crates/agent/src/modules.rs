//! The drivers that the initial file system carries.

use agent_job::DRIVERS;
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

/// Loads them, in the order of their names. One that is there already is no fault.
pub(crate) fn load() -> Result<()> {
    let folder = Path::new("/").join(DRIVERS);
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        match insert(&path) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot load {}", path.display()));
            }
        }
    }
    Ok(())
}

fn insert(path: &Path) -> Result<(), Errno> {
    let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut file = File::open(path).map_err(io)?;
    let mut magic = [0; ELF.len()];
    file.read_exact(&mut magic).map_err(io)?;
    finit_module(&file, c"", if magic == ELF { 0 } else { COMPRESSED })
}
