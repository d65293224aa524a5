//! The content of a scratch disk: a sparse file without a name, which goes when the machine does.

use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// Why there is no scratch disk.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot make a scratch disk of {} MiB in {}: {source}; set TMPDIR to a writable directory",
    bytes >> 20, place.display()
)]
pub struct ScratchError {
    bytes: u64,
    place: PathBuf,
    source: io::Error,
}

/// A new file of `bytes`, in the temporary directory or in memory: `content`, then zeros.
///
/// # Errors
/// The host offers no place for it.
pub(crate) fn make(bytes: u64, content: &[u8]) -> Result<File, ScratchError> {
    let place = std::env::temp_dir();
    let sized = |file: File| {
        file.set_len(bytes)?;
        file.write_all_at(content, 0)?;
        Ok(file)
    };
    host::nameless_file(&place).and_then(sized).or_else(|source| {
        let in_memory = in_memory().and_then(sized);
        in_memory.map_err(|_| ScratchError { bytes, place, source })
    })
}

fn in_memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("gemello-scratch", MemfdFlags::CLOEXEC)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_file_has_the_size_asked_for() {
        assert!(in_memory().is_ok());
        assert_eq!(make(3 << 20, &[]).expect("made").metadata().expect("a file").len(), 3 << 20);
    }
}
