//! Where fetched files live: `$XDG_CACHE_HOME/gemello`, else `~/.cache/gemello`.
//!
//! A lock file lets one process at a time write; complete directories appear by one rename, so
//! readers need no lock.

use crate::limits;
use anyhow::{Context as _, Result, anyhow, bail};
use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What to do where the disk is full.
pub(crate) const ROOM: &str = "make room, or set XDG_CACHE_HOME to a directory with 600 MB free";
/// What to do where nothing can be written.
const ELSEWHERE: &str = "set XDG_CACHE_HOME to a writable directory with 600 MB free";

/// The message for `what` the host refuses to do in the cache: its cause, and what to do about it.
pub(crate) fn refused(what: &str, error: &io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ROOM,
        _ => limits::advice(error).unwrap_or(ELSEWHERE),
    };
    anyhow!("{what}: {error}; {advice}")
}

/// The cache directory, not necessarily existing.
///
/// # Errors
/// Neither XDG_CACHE_HOME nor HOME names an absolute path.
pub(crate) fn directory() -> Result<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(cache) = absolute("XDG_CACHE_HOME") {
        return Ok(cache.join("gemello"));
    }
    match absolute("HOME") {
        Some(home) => Ok(home.join(".cache/gemello")),
        None => bail!(
            "no place for fetched files: neither XDG_CACHE_HOME nor HOME names a directory by its \
             whole path; set one of them"
        ),
    }
}

/// The exclusive right to write below `root`; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until no other process holds it; says so on standard error if that takes time.
    ///
    /// # Errors
    /// The directory cannot be created or written.
    pub(crate) fn acquire(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).map_err(|error| {
            refused(&format!("cannot create the cache {}", root.display()), &error)
        })?;
        let path = root.join("lock");
        let file = File::create(&path)
            .map_err(|error| refused(&format!("cannot write {}", path.display()), &error))?;
        if file.try_lock().is_err() {
            eprintln!("gemello: another gemello is writing there; waiting for it");
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Self { _file: file })
    }
}

/// What is in `folder`, in the order of its names: nothing, where it is not there.
///
/// # Errors
/// It cannot be read.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = match fs::read_dir(folder) {
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", folder.display()));
        }
    };
    let mut paths: Vec<_> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

/// What the name of a directory under construction ends in.
const DRAFT: &str = "partial";

/// Whether `path` is a directory under construction, perhaps of a run that was killed.
pub(crate) fn is_draft(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == DRAFT)
}

/// A directory under construction that is deleted unless it is published.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
}

impl Draft {
    /// An empty directory below `root`, named after this process. The caller holds the [`Lock`].
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn new(root: &Path, name: &str) -> Result<Self> {
        let path = root.join(format!("{name}.{DRAFT}"));
        if path.exists() {
            fs::remove_dir_all(&path) // left by a run that was killed
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the finished directory in its place, whole or not at all.
    ///
    /// # Errors
    /// The rename failed.
    pub(crate) fn publish(self, place: &Path) -> Result<()> {
        if place.exists() {
            fs::remove_dir_all(place)
                .with_context(|| format!("cannot replace {}", place.display()))?;
        }
        fs::rename(&self.path, place).with_context(|| format!("cannot create {}", place.display()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("gemello-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_draft_appears_whole_or_not_at_all() {
        let root = scratch("draft");
        let _lock = Lock::acquire(&root).expect("writable");
        let place = root.join("thing");
        let draft = Draft::new(&root, "thing").expect("draft");
        fs::write(draft.path().join("file"), "1").expect("write");
        drop(draft);
        assert!(!place.exists() && !root.join("thing.partial").exists());
        for content in ["1", "2"] {
            let draft = Draft::new(&root, "thing").expect("draft");
            fs::write(draft.path().join("file"), content).expect("write");
            draft.publish(&place).expect("publish");
            assert_eq!(fs::read_to_string(place.join("file")).expect("there"), content);
        }
        fs::remove_dir_all(&root).expect("clean up");
    }

    #[test]
    fn an_unwritable_cache_is_named() {
        let error = Lock::acquire(Path::new("/proc/no/such")).expect_err("not writable");
        let text = format!("{error:#}");
        assert!(text.contains("/proc/no/such") && text.contains("XDG_CACHE_HOME"), "{text}");
    }
}
