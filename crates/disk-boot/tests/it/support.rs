//! Disks to look at.

use disk_boot::{Boot, FindError, find};
use disk_image::{DiskAccess, Image, ImageFormat, Storage};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

pub(crate) const SECTOR: usize = 512;
/// Where the partition begins, in sectors.
pub(crate) const FIRST: usize = 2048;
pub(crate) const UUID: &str = "b1c2d3e4-0000-4000-8000-1234567890ab";

/// A folder of this test's own.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a folder");
    path
}

/// A file system with these files.
pub(crate) fn ext4(name: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let place = folder(name);
    let root = place.join("root");
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    let image = place.join("image");
    let mut make = Command::new("/usr/sbin/mke2fs");
    make.args(["-q", "-t", "ext4", "-U", UUID, "-d"]).arg(&root).arg(&image).arg("4M");
    let output = make.output().expect("mke2fs of the package e2fsprogs");
    assert!(output.status.success(), "{output:?}");
    fs::read(image).expect("what was made")
}

/// What the disk with `bytes` boots.
pub(crate) fn boots(name: &str, bytes: &[u8]) -> Result<Boot, FindError> {
    let path = folder(&format!("{name}-disk")).join("disk.img");
    fs::write(&path, bytes).expect("a file");
    let image = Image { format: Some(ImageFormat::Raw), ..Image::at(path) };
    let disk: Arc<dyn Storage> = Arc::from(image.open(DiskAccess::ReadOnly).expect("a disk"));
    find(&disk)
}

/// A boot record: of partitions of these types, from and with so many sectors.
pub(crate) fn record(partitions: &[(u8, usize, usize)]) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    for (n, (kind, first, count)) in partitions.iter().enumerate() {
        let at = 446 + 16 * n;
        bytes[at + 4] = *kind;
        bytes[at + 8..at + 12].copy_from_slice(&(*first as u32).to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&(*count as u32).to_le_bytes());
    }
    bytes[510..].copy_from_slice(&[0x55, 0xAA]);
    bytes
}

/// The type of a partition of which nothing is said.
pub(crate) const PLAIN: [u8; 16] = [1; 16];
/// The type of an x86-64 system's root.
pub(crate) const ROOT: [u8; 16] =
    *b"\xE3\xBC\x68\x4F\xCD\xE8\xB1\x4D\x96\xE7\xFB\xCA\xF9\x84\xB7\x09";
/// What the root's partition is called.
pub(crate) const PARTUUID: &str = "03020100-0504-0706-0809-0a0b0c0d0e0f";

/// A disk with a GPT, behind whose first partition, which is nothing, are these, by their types.
pub(crate) fn gpt(volumes: &[([u8; 16], &[u8])]) -> Vec<u8> {
    let mut disk = vec![0; FIRST * SECTOR];
    disk[..SECTOR].copy_from_slice(&record(&[(0xEE, 1, u32::MAX as usize)]));
    disk[SECTOR..SECTOR + 8].copy_from_slice(b"EFI PART");
    for (at, value) in [(72, 2_u32), (80, 8), (84, 128)] {
        disk[SECTOR + at..SECTOR + at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut entry = |n: usize, kind: &[u8; 16], first: usize, last: usize| {
        let at = 2 * SECTOR + 128 * n;
        disk[at..at + 16].copy_from_slice(kind);
        (0..16).for_each(|n| disk[at + 16 + n] = n as u8);
        disk[at + 32..at + 40].copy_from_slice(&(first as u64).to_le_bytes());
        disk[at + 40..at + 48].copy_from_slice(&(last as u64).to_le_bytes());
    };
    entry(0, &PLAIN, 34, 99);
    let mut first = FIRST;
    for (n, (kind, volume)) in (1..).zip(volumes) {
        entry(n, kind, first, first + volume.len() / SECTOR - 1);
        first += volume.len() / SECTOR;
    }
    volumes.iter().for_each(|(_, volume)| disk.extend(*volume));
    disk
}

/// A FAT file system of `mib` with these files, made by another program.
pub(crate) fn fat(mib: usize, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; mib << 20];
    let options = FormatVolumeOptions::new().bytes_per_cluster(512);
    fatfs::format_volume(Cursor::new(&mut bytes[..]), options).expect("a file system");
    let volume = FileSystem::new(Cursor::new(&mut bytes[..]), FsOptions::new()).expect("one");
    for (path, content) in files {
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        folders.for_each(|folder| drop(volume.root_dir().create_dir(folder).expect("a folder")));
        let mut file = volume.root_dir().create_file(path).expect("a file");
        file.write_all(content).expect("room");
    }
    volume.unmount().expect("it is written");
    bytes
}
