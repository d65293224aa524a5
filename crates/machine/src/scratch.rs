//! The content of a scratch disk: a sparse file without a name, which goes when the machine does.

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// How often a name that is taken is replaced by another.
const ATTEMPTS: u32 = 16;

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

/// A new file of `bytes` zeros, in the temporary directory or in memory.
///
/// # Errors
/// The host offers no place for it.
pub(crate) fn make(bytes: u64) -> Result<File, ScratchError> {
    let place = std::env::temp_dir();
    let sized = |file: File| file.set_len(bytes).map(|()| file);
    let file = nameless(&place).and_then(sized);
    let file = file.or_else(|_| unlinked(&place).and_then(sized));
    file.or_else(|source| {
        let in_memory = in_memory().and_then(sized);
        in_memory.map_err(|_| ScratchError { bytes, place, source })
    })
}

fn nameless(place: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, place, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Where the host knows no files without a name. Processes that share the directory may have equal
/// ids: a name is random, and must be new.
fn unlinked(place: &Path) -> io::Result<File> {
    let mut taken = io::Error::from(ErrorKind::AlreadyExists);
    for attempt in 0..ATTEMPTS {
        let name = format!("gemello-scratch-{:016x}", RandomState::new().hash_one(attempt));
        let path = place.join(name);
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return fs::remove_file(&path).map(|()| file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

fn in_memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("gemello-scratch", MemfdFlags::CLOEXEC)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn scratch_files_never_meet_and_leave_nothing() {
        let place = std::env::temp_dir().join(format!("gemello-scratch-{}", std::process::id()));
        fs::create_dir_all(&place).expect("a directory");
        for make in [nameless, unlinked] {
            let (one, two) = (make(&place).expect("one"), make(&place).expect("two"));
            assert_eq!(fs::read_dir(&place).expect("a directory").count(), 0);
            one.write_all_at(b"one", 0).expect("room");
            assert_eq!(two.metadata().expect("a file").len(), 0);
        }
        fs::remove_dir_all(&place).expect("empty");
        assert!(in_memory().is_ok());
        assert_eq!(make(3 << 20).expect("made").metadata().expect("a file").len(), 3 << 20);
    }
}
