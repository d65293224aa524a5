//! A whole Debian as a root: its packages are unpacked on the host, and configured in a guest,
//! which is the first to boot it.

use super::assembly::Assembly;
use super::base::{self, Base, Contents, FORMAT, KERNEL, Note};
use super::configure::configure;
use crate::debian::system::System;
use crate::debian::{Draft, Lock, Release, cache_directory, refused};
use crate::exit;
use anyhow::{Context as _, Result};
use oci::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Names that need no network.
const HOSTS: &str = "127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
/// The settings of the host's apt that say how a source is reached.
const REACHED: [&str; 4] =
    ["Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::AllowReleaseInfo"];

/// What a root of `release` is called.
pub(super) fn name(release: Release) -> String {
    format!("debian:{}", release.name())
}

/// The newest root of `release`, made where there is none yet.
///
/// # Errors
/// The packages cannot be had, or the host has no room.
pub(super) fn find_or_make(cache: &Path, release: Release) -> Result<Base> {
    if let Some(base) = newest(cache, release) {
        return Ok(base);
    }
    let all = base::folder(cache);
    let _lock = Lock::acquire(&all)?;
    if let Some(base) = newest(cache, release) {
        return Ok(base); // another process was faster
    }
    make(&all, release)
}

/// Makes a root of the newest packages of `release`, unless there is one.
///
/// # Errors
/// The packages cannot be had, or the host has no room.
pub(crate) fn refresh(release: Release) -> Result<u8> {
    let all = base::folder(&cache_directory()?);
    let _lock = Lock::acquire(&all)?;
    make(&all, release).map(|_| exit::OK)
}

/// Whether there is one of the usual release.
pub(crate) fn is_there() -> bool {
    cache_directory().is_ok_and(|cache| newest(&cache, Release::default()).is_some())
}

fn newest(cache: &Path, release: Release) -> Option<Base> {
    let made = |folder: &PathBuf| -> Option<SystemTime> {
        let of_it = base::note(folder)?.contents.is_current(release);
        fs::metadata(base::root(folder)).ok()?.modified().ok().filter(|_| of_it)
    };
    let folders = base::folders(cache).ok()?.into_iter();
    let mut folders: Vec<_> = folders.filter_map(|it| Some((made(&it)?, it))).collect();
    folders.sort();
    folders.iter().rev().find_map(|(_, folder)| Base::open(folder))
}

fn make(all: &Path, release: Release) -> Result<Base> {
    let system = System::newest(release)?;
    let digest = Digest::of(format!("{}\n{STAGE}", system.contents()).as_bytes());
    let place = all.join(digest.hex());
    if let Some(base) = Base::open(&place) {
        eprintln!("gemello: {} is up to date", name(release));
        return Ok(base);
    }
    let (packages, modules) = system.download()?;
    let draft = Draft::new(all, "system")?;
    let spool = base::spool(draft.path())?;
    let mut assembly = Assembly::new(spool)?;
    for (package, number) in packages.iter().zip(1..) {
        let shown = package.file_name().unwrap_or_default().to_string_lossy();
        eprintln!("gemello: unpacking {number} of {}: {shown}", packages.len());
        assembly.unpack(package)?;
    }
    assembly.add_files(&modules)?;
    settle(&mut assembly, &system)?;
    let essential = assembly.essential.clone();
    let (tree, spool) = assembly.finish()?;
    let contents = Contents::Unconfigured { unconfigured: release };
    let note = Note { name: name(release), digest, contents };
    base::write(&draft, &tree, &spool, &note)?;
    drop((tree, spool));
    let refusal = |error| refused(&format!("cannot fill {}", draft.path().display()), &error);
    system.kernel.copy_to(&draft.path().join(KERNEL)).map_err(refusal)?;
    let version = system.kernel.kernel_version().to_owned();
    configure(draft.path(), STAGE, &version, &essential, packages.len())?;
    let contents = Contents::System { system: release, format: FORMAT };
    base::seal(&draft, &Note { contents, ..note })?;
    draft.publish(&place)?;
    system.tidy();
    eprintln!("gemello: ready: {}", name(release));
    Base::open(&place).with_context(|| format!("{} is incomplete", place.display()))
}

/// What the guest runs.
const STAGE: &str = include_str!("second_stage.sh");

/// Adds what no package brings.
fn settle(assembly: &mut Assembly, system: &System) -> Result<()> {
    assembly.file("etc/hostname", 0o644, b"debian\n")?;
    assembly.file("etc/hosts", 0o644, HOSTS.as_bytes())?;
    assembly.file("etc/fstab", 0o644, b"# The root is mounted before this is read.\n")?;
    assembly.file("etc/default/locale", 0o644, b"LANG=C.UTF-8\n")?;
    assembly.file("etc/machine-id", 0o444, b"")?;
    for (name, text) in &system.sources.files {
        let path = match name.as_str() {
            "sources.list" => "etc/apt/sources.list".to_owned(),
            name => format!("etc/apt/sources.list.d/{name}"),
        };
        assembly.file(&path, 0o644, text.as_bytes())?;
    }
    for keyring in &system.sources.keyrings {
        let path = keyring.to_string_lossy();
        if !assembly.has(&path)? {
            let keys = fs::read(keyring).with_context(|| format!("cannot read {path}"))?;
            assembly.file(&path, 0o644, &keys)?;
        }
    }
    let reached = system.settings(&REACHED)?;
    if !reached.is_empty() {
        assembly.file("etc/apt/apt.conf.d/50host", 0o644, reached.as_bytes())?;
    }
    Ok(())
}
