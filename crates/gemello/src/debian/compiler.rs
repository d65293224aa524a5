//! Debian's C compiler proper, `cc1`, with the libraries it is linked to: a workload, for the host
//! and for guests.
//!
//! ```text
//! <cache>/debian/gcc/     cc1, ld.so (the dynamic linker), lib/, RELEASE
//! ```

use super::apt::{self, Apt};
use super::cache::{self, Draft, Lock};
use super::packages::{file_name, packages_in};
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the packages keep libraries.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
/// The dynamic linker, below one of these.
const LINKER: &str = "ld-linux-x86-64.so.2";

/// Its directory in the cache, fetched if it is not there yet.
///
/// # Errors
/// No apt, no network, a full disk, a signature that does not verify.
pub(crate) fn compiler() -> Result<PathBuf> {
    let root = cache::directory()?.join("debian");
    let place = root.join("gcc");
    if complete(&place) {
        return Ok(place);
    }
    let _lock = Lock::acquire(&root)?;
    if complete(&place) {
        return Ok(place); // another process was faster
    }
    let apt = Apt::new(&root.join("apt"))?;
    eprintln!("gemello: fetching Debian's package lists");
    let updated = apt.update();
    match (wanted(&apt), updated) {
        (Ok(packages), _) => build(&apt, &packages, &root, &place)?,
        (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
    }
    Ok(place)
}

fn complete(place: &Path) -> bool {
    ["cc1", "ld.so", "RELEASE"].iter().all(|name| place.join(name).is_file())
}

/// The default compiler's package and what it is linked to.
fn wanted(apt: &Apt) -> Result<Vec<String>> {
    let mut packages = vec![apt.dependency("cpp", "cpp-")?];
    let mut next = 0;
    // Of newer releases the package with cc1 is one further.
    while let Some(package) = packages.get(next).filter(|name| name.starts_with("cpp-")) {
        let more = apt.dependencies(package)?;
        next += 1;
        let at = |name: &String| if name.starts_with("cpp-") { next } else { usize::MAX };
        for name in more {
            if !packages.contains(&name) {
                packages.insert(at(&name).min(packages.len()), name);
            }
        }
    }
    Ok(packages)
}

fn build(apt: &Apt, packages: &[String], root: &Path, place: &Path) -> Result<()> {
    let work = Draft::new(root, "download")?;
    eprintln!("gemello: fetching Debian's C compiler");
    let names: Vec<_> = packages.iter().map(String::as_str).collect();
    apt.download(&names, work.path())?;
    let files = work.path().join("files");
    let debs = packages_in(work.path())?;
    for package in &debs {
        apt::unpack(package, &files)?;
    }
    let draft = Draft::new(root, "publish")?;
    let full = |error: std::io::Error| {
        cache::refused(&format!("cannot fill {}", draft.path().display()), &error)
    };
    fs::create_dir(draft.path().join("lib")).map_err(full)?;
    let Some(cc1) = find(&files.join("usr"), "cc1") else { bail!("the packages hold no cc1") };
    fs::copy(cc1, draft.path().join("cc1")).map_err(full)?;
    libraries(&files, draft.path()).map_err(full)?;
    let release: Vec<_> = debs.iter().map(|deb| file_name(deb)).collect();
    fs::write(draft.path().join("RELEASE"), release.join("\n")).map_err(full)?;
    draft.publish(place)
}

/// Copies every library, links followed, each under all its names.
fn libraries(files: &Path, place: &Path) -> std::io::Result<()> {
    for directory in LIBRARIES.map(|directory| files.join(directory)) {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = file_name(&path);
            if name == LINKER {
                fs::copy(&path, place.join("ld.so"))?;
            } else if name.contains(".so") && path.is_file() {
                fs::copy(&path, place.join("lib").join(name))?;
            }
        }
    }
    Ok(())
}

/// The file called `name` somewhere below `directory`.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    let paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let here = paths.iter().find(|path| path.is_file() && file_name(path) == name).cloned();
    let below = || {
        let real = |path: &&PathBuf| path.is_dir() && !path.is_symlink();
        paths.iter().filter(real).find_map(|path| find(path, name))
    };
    here.or_else(below)
}
