//! Where templates are: `<cache>/templates/KEY.gm`, those that were used last.
//!
//! A file appears by one rename, so readers and writers need no lock; who reads one that is removed
//! has it open.

use crate::debian::{cache_directory, entries};
use crate::room::taken;
use anyhow::{Context as _, Result};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How many are kept.
const MOST: usize = 6;

/// What nobody writes any more by then was left by a process that was killed.
const LEFT_BEHIND: Duration = Duration::from_secs(600);

fn folder() -> Result<PathBuf> {
    Ok(cache_directory()?.join("templates"))
}

/// The file for the template of `key`.
///
/// # Errors
/// There is no cache.
pub(super) fn place(key: &str) -> Result<PathBuf> {
    Ok(folder()?.join(format!("{key}.gm")))
}

/// Makes the folder of `path`, for its owner alone: what is in it is a guest's memory.
///
/// # Errors
/// The host's.
pub(super) fn prepare(path: &Path) -> std::io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// The template at `path` has been used now.
pub(super) fn used(path: &Path) {
    let now = |file: File| file.set_modified(SystemTime::now());
    let _ = File::options().write(true).open(path).and_then(now);
}

/// Removes those beside `path` that were not used for longest, beyond as many as are kept, and what
/// killed processes have left.
pub(super) fn tidy(path: &Path) {
    let Some(folder) = path.parent() else { return };
    let (whole, partial): (Vec<_>, Vec<_>) =
        entries(folder).unwrap_or_default().into_iter().partition(|path| is_whole(path));
    let old = |path: &PathBuf| last_used(path).elapsed().is_ok_and(|age| age > LEFT_BEHIND);
    let mut whole = whole;
    whole.sort_by_key(|path| std::cmp::Reverse(last_used(path)));
    let gone = whole.into_iter().skip(MOST).chain(partial.into_iter().filter(old));
    for path in gone {
        let _ = fs::remove_file(path);
    }
}

/// How many there are, and the bytes they take.
pub(crate) fn room() -> (usize, u64) {
    let paths = folder().and_then(|folder| entries(&folder)).unwrap_or_default();
    (paths.len(), paths.iter().map(|path| taken(path)).sum())
}

/// Removes all, and tells how many bytes that gives back.
///
/// # Errors
/// The host's.
pub(crate) fn prune() -> Result<u64> {
    let mut freed = 0;
    for path in entries(&folder()?)? {
        freed += taken(&path);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(freed)
}

fn is_whole(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "gm")
}

fn last_used(path: &Path) -> SystemTime {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_are_kept() {
        let folder = std::env::temp_dir().join(format!("gemello-shelf-{}", std::process::id()));
        let at = |name: &str| folder.join(name);
        prepare(&at("0.gm")).expect("a folder");
        let mode = fs::metadata(&folder).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let made = |name: &str, age: u64| {
            let file = File::create(at(name)).expect("a file");
            let then = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(then).expect("its time");
        };
        for n in 0..MOST as u64 + 2 {
            made(&format!("{n}.gm"), 1000 * (n + 1));
        }
        made("a.gm.1.partial", 10);
        made("b.gm.1.partial", 10_000);
        let last = format!("{}.gm", MOST + 1);
        used(&at(&last));
        tidy(&at("0.gm"));
        let left = entries(&folder).expect("a folder");
        let kept = (0..MOST - 1).map(|n| format!("{n}.gm")).chain([last, "a.gm.1.partial".into()]);
        let mut kept: Vec<_> = kept.map(|name| at(&name)).collect();
        kept.sort();
        assert_eq!(left, kept);
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
