//! Files without a name: they go when the process does, and nobody else opens them by a path.

use rustix::fs::{CWD, Mode, OFlags};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::path::Path;

/// How often a name that is taken is replaced by another.
const ATTEMPTS: u32 = 16;

/// A new empty file on the file system of the directory `place`, open for reading and writing.
///
/// # Errors
/// It is no directory, or takes no file.
pub fn nameless_file(place: &Path) -> io::Result<File> {
    nameless(place).or_else(|_| unlinked(place))
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
        let name = format!("gemello-{:016x}", RandomState::new().hash_one(attempt));
        let path = place.join(name);
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return fs::remove_file(&path).map(|()| file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn files_never_meet_and_leave_nothing() {
        let place = std::env::temp_dir().join(format!("gemello-nameless-{}", std::process::id()));
        fs::create_dir_all(&place).expect("a directory");
        for make in [nameless, unlinked, nameless_file] {
            let (one, two) = (make(&place).expect("one"), make(&place).expect("two"));
            assert_eq!(fs::read_dir(&place).expect("a directory").count(), 0);
            one.write_all_at(b"one", 0).expect("room");
            assert_eq!(two.metadata().expect("a file").len(), 0);
        }
        fs::remove_dir_all(&place).expect("empty");
    }
}
