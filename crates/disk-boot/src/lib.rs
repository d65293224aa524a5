//! What a disk boots by itself: kernel, initial RAM disk and command line, as its boot loader would
//! take them. Pure: it reads a disk's bytes, mounts nothing and runs nothing of the disk's.
//!
//! - [`partitions`]: where file systems may be: GPT, MBR, or the whole disk.
//! - [`volume`]: the ext4 file systems among them, with bounds on what is read.
//! - [`grub`]: GRUB's configuration. Its script is read, not run.
//! - [`bls`]: entries of the Boot Loader Specification, as Fedora's systems have them.
//! - [`newest`]: without either, the newest kernel in `/boot`.
//!
//! A disk is hostile: sizes and counts are bounded here, whatever it says.
#![forbid(unsafe_code)]

mod bls;
mod grub;
mod newest;
mod partitions;
mod version;
mod volume;

use disk_image::Storage;
use std::sync::Arc;
use volume::Volume;

/// Bytes of a kernel or initial RAM disk at the most.
const FILE_MAX: u64 = 1 << 30;
/// The serial line that people see.
const SERIAL: &str = "ttyS0";

/// A file of the disk's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// Its path in the file system that has it.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What the disk boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// What the boot loader calls it.
    pub title: String,
    /// The kernel.
    pub kernel: DiskFile,
    /// The initial RAM disks, one after the other.
    pub initrd: Option<DiskFile>,
    /// The kernel's command line. The first serial line is a console by it.
    pub cmdline: String,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No file system that can be read here.
    #[error("no ext4 file system is on it{}; set `kernel` and `initrd` to what it is to boot",
        found(.0))]
    NoVolume(Vec<&'static str>),
    /// No boot loader's configuration, and no kernel in `/boot`.
    #[error(
        "neither GRUB's configuration nor a kernel is in its /boot; set `kernel` to what it is \
        to boot"
    )]
    NoKernel,
    /// What the configuration names cannot be read.
    #[error(
        "its boot entry {title:?} names {path}, which cannot be read: {why}; set `kernel` \
        to what it is to boot"
    )]
    File {
        /// The entry.
        title: String,
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

fn found(others: &[&str]) -> String {
    if others.is_empty() { String::new() } else { format!(" (but {})", others.join(", ")) }
}

/// What a boot loader would start: paths, not contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    title: String,
    kernel: String,
    initrd: Vec<String>,
    cmdline: String,
}

/// Finds what `disk` boots.
///
/// # Errors
/// There is nothing, or it cannot be read.
pub fn find(disk: &Arc<dyn Storage>) -> Result<Boot, FindError> {
    let mut others = Vec::new();
    let mut volumes = Vec::new();
    for part in partitions::find(&**disk) {
        match Volume::open(disk, part.clone()) {
            Some(volume) => volumes.push(volume),
            None => others.extend(volume::name_of(&**disk, part)),
        }
    }
    if volumes.is_empty() {
        return Err(FindError::NoVolume(others));
    }
    let (first, entry) = volumes
        .iter()
        .enumerate()
        .find_map(|(at, volume)| Some((at, configured(volume)?)))
        .or_else(|| {
            let found = |(at, volume)| Some((at, newest::entry(volume)?));
            volumes.iter().enumerate().find_map(found)
        })
        .ok_or(FindError::NoKernel)?;
    // Its own file system first: a path means another file elsewhere.
    volumes.swap(0, first);
    read(entry, &volumes)
}

/// The entry that a boot loader's configuration on `volume` chooses.
fn configured(volume: &Volume) -> Option<Entry> {
    let grub = grub::entry(volume);
    // Fedora's GRUB has its entries in files of their own.
    grub.or_else(|| bls::entry(volume))
}

fn read(entry: Entry, volumes: &[Volume]) -> Result<Boot, FindError> {
    let Entry { title, kernel, initrd, cmdline } = entry;
    let file = |path: &String| {
        let mut why = String::new();
        for volume in volumes {
            match volume.read(path, FILE_MAX) {
                Ok(bytes) => return Ok(DiskFile { path: path.clone(), bytes }),
                Err(error) if why.is_empty() => why = error,
                Err(_) => {}
            }
        }
        Err(FindError::File { title: title.clone(), path: path.clone(), why })
    };
    let kernel = file(&kernel)?;
    let mut whole: Option<DiskFile> = None;
    for path in &initrd {
        let next = file(path)?;
        match &mut whole {
            None => whole = Some(next),
            Some(whole) => {
                // Linux looks for the next archive at a multiple of four bytes.
                whole.bytes.resize(whole.bytes.len().next_multiple_of(4), 0);
                whole.bytes.extend(next.bytes);
            }
        }
    }
    Ok(Boot { title, kernel, initrd: whole, cmdline: with_console(cmdline) })
}

/// A disk for a screen says nothing on a serial line, and there is no screen here.
fn with_console(cmdline: String) -> String {
    let there = |word: &str| word.strip_prefix("console=").is_some_and(|it| it.starts_with(SERIAL));
    match cmdline.split_ascii_whitespace().any(there) {
        true => cmdline,
        false => format!("{cmdline} console={SERIAL}").trim_start().to_owned(),
    }
}
