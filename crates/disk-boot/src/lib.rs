//! What a disk boots by itself: kernel, initial RAM disk and command line, as its boot loader would
//! take them. Pure: it reads a disk's bytes, mounts nothing and runs nothing of the disk's.
//!
//! - [`partitions`]: where file systems may be: GPT, MBR, or the whole disk.
//! - [`volume`]: the file systems among them that are known, with bounds on what is read: ext4, and
//!   by [`fat`] FAT.
//! - [`grub`]: GRUB's configuration. Its script is read, not run.
//! - [`bls`]: entries of the Boot Loader Specification, of systemd-boot's or GRUB's; [`unified`]
//!   kernel images among them.
//! - [`newest`]: without either, the newest kernel in `/boot`.
//!
//! A disk is hostile: sizes and counts are bounded here, whatever it says.
#![forbid(unsafe_code)]

mod bls;
mod fat;
mod grub;
mod newest;
mod part;
mod partitions;
mod unified;
mod version;
mod volume;

use disk_image::Storage;
use std::sync::Arc;
use unified::Unified;
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
    #[error(
        "no ext4 or FAT file system is on it{}; set `kernel` and `initrd` to what it is to boot",
        found(.0)
    )]
    NoVolume(Vec<&'static str>),
    /// No boot loader's configuration, and no kernel in `/boot`.
    #[error(
        "neither GRUB's or systemd-boot's configuration nor a kernel in /boot is on it, as far as \
        it is ext4 or FAT{}; set `kernel` and `initrd` to what it is to boot", found(.0)
    )]
    NoKernel(Vec<&'static str>),
    /// What the configuration names cannot be read.
    #[error(
        "its boot entry {title:?} names {path}, which cannot be read: {why}{}; set `kernel` \
        to what it is to boot", found(.others)
    )]
    File {
        /// The entry.
        title: String,
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
        /// What else is on the disk, which cannot be read.
        others: Vec<&'static str>,
    },
}

fn found(others: &[&str]) -> String {
    if others.is_empty() { String::new() } else { format!(" (but {})", others.join(", ")) }
}

/// What a boot loader would start: paths, not contents. The kernel may be a unified image.
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
    let (mut volumes, mut others, mut root) = (Vec::new(), Vec::new(), None);
    for part in partitions::find(&**disk) {
        root = root.or(part.root);
        match Volume::open(disk, part.range.clone()) {
            Some(volume) => volumes.push(volume),
            None => others.extend(volume::name_of(&**disk, part.range)),
        }
    }
    if volumes.is_empty() {
        return Err(FindError::NoVolume(others));
    }
    let Some((first, entry)) = configured(&volumes).or_else(|| newest(&volumes)) else {
        return Err(FindError::NoKernel(others));
    };
    // Its own file system first: a path means another file elsewhere.
    volumes.swap(0, first);
    let mut boot = read(entry, &volumes, &others)?;
    boot.cmdline = with_console(with_root(boot.cmdline, root.as_deref()));
    Ok(boot)
}

/// The entry that a boot loader's configuration chooses, and the number of its file system.
fn configured(volumes: &[Volume]) -> Option<(usize, Entry)> {
    let by_grub = |(at, volume)| Some((at, grub::entry(volume)?));
    let entry = bls::entry(volumes);
    // On a file system that a firmware reads, entries are systemd-boot's. Elsewhere they may be
    // GRUB's, whose configuration then has none itself.
    match entry {
        Some((at, entry)) if volumes[at].is_fat() => Some((at, entry)),
        entry => volumes.iter().enumerate().find_map(by_grub).or(entry),
    }
}

/// The newest kernel in `/boot`, likewise.
fn newest(volumes: &[Volume]) -> Option<(usize, Entry)> {
    volumes.iter().enumerate().find_map(|(at, volume)| Some((at, newest::entry(volume)?)))
}

fn read(entry: Entry, volumes: &[Volume], others: &[&'static str]) -> Result<Boot, FindError> {
    let Entry { title, kernel, initrd, mut cmdline } = entry;
    let file = |path: &String| {
        let mut why = String::new();
        for volume in volumes {
            match volume.read(path, FILE_MAX) {
                Ok(bytes) => return Ok(DiskFile { path: path.clone(), bytes }),
                Err(error) if why.is_empty() => why = error,
                Err(_) => {}
            }
        }
        let (title, path, others) = (title.clone(), path.clone(), others.to_vec());
        Err(FindError::File { title, path, why, others })
    };
    let mut kernel = file(&kernel)?;
    let mut whole: Option<DiskFile> = None;
    if let Some(parts) = Unified::parse(&kernel.bytes) {
        let path = kernel.path.clone();
        whole = parts.initrd.map(|bytes| DiskFile { path, bytes });
        kernel.bytes = parts.kernel;
        if cmdline.is_empty() {
            cmdline = parts.cmdline;
        }
    }
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
    Ok(Boot { title, kernel, initrd: whole, cmdline })
}

/// A command line that leaves the root to what a firmware tells gets the partition that is one by
/// its type.
fn with_root(cmdline: String, root: Option<&str>) -> String {
    let says = |word: &str| word.starts_with("root=") || word.starts_with("roothash=");
    match root.filter(|_| !cmdline.split_ascii_whitespace().any(says)) {
        Some(root) => format!("{cmdline} root=PARTUUID={root}").trim_start().to_owned(),
        None => cmdline,
    }
}

/// A disk for a screen says nothing on a serial line, and there is no screen here.
fn with_console(cmdline: String) -> String {
    let there = |word: &str| word.strip_prefix("console=").is_some_and(|it| it.starts_with(SERIAL));
    match cmdline.split_ascii_whitespace().any(there) {
        true => cmdline,
        false => format!("{cmdline} console={SERIAL}").trim_start().to_owned(),
    }
}
