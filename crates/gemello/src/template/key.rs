//! What two machines have to have in common for one template: all that the guest can have seen, and
//! the program that made it.

use anyhow::{Context as _, Result};
use machine::{Config, File};
use sha2::{Digest as _, Sha256};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What is the same, as hexadecimal digits.
///
/// # Errors
/// A file cannot be looked at.
pub(super) fn of(config: &Config) -> Result<String> {
    let mut sum = Sha256::new();
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut add = |part: &[u8]| {
        sum.update((part.len() as u64).to_le_bytes());
        sum.update(part);
    };
    add(version(&program)?.as_bytes());
    add(config.as_seen_at_boot().as_bytes());
    let files = [Some(&config.boot.kernel), config.boot.initrd.as_ref()];
    for file in files.into_iter().flatten() {
        match file {
            File::Path(path) => add(version(path)?.as_bytes()),
            File::Bytes { bytes, .. } => add(bytes),
        }
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Which file `path` is, and as of when.
fn version(path: &Path) -> Result<String> {
    let looked = path.canonicalize().and_then(|path| Ok((std::fs::metadata(&path)?, path)));
    let (metadata, path) = looked.with_context(|| format!("cannot look at {}", path.display()))?;
    let (seconds, nanoseconds) = (Metadata::mtime(&metadata), metadata.mtime_nsec());
    Ok(format!("{} {} {seconds}.{nanoseconds}", path.display(), metadata.len()))
}
