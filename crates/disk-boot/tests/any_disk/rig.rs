//! Any bytes as a disk: what it boots is found, or a message.

use disk_boot::find;
use disk_image::{RawImage, Storage};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Bytes of the disk; FAT12 has that much with clusters of a sector each.
const SIZE: usize = 256 << 10;

/// The first byte tells what the others are: edits of a good disk, a disk, or files on one.
pub(crate) fn fuzz(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let disk = match kind % 3 {
        0 => edited(data),
        1 => data.to_vec(),
        _ => {
            let (entry, rest) = data.split_at(data.len() / 3);
            let (configuration, image) = rest.split_at(rest.len() / 2);
            with(&[
                ("loader/entries/a.conf", entry),
                ("grub/grub.cfg", configuration),
                ("EFI/Linux/a.efi", image),
            ])
        }
    };
    let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC).expect("memory"));
    file.write_all_at(&disk, 0).expect("memory");
    let disk: Arc<dyn Storage> = Arc::new(RawImage::over(file).expect("a disk"));
    // An error is an answer, too.
    let _ = find(&disk);
}

/// Four bytes are an edit each: where, and what is there then.
fn edited(edits: &[u8]) -> Vec<u8> {
    let mut disk = with(&[
        ("loader/loader.conf", b"default a\n"),
        ("loader/entries/a.conf", b"linux /kernel\ninitrd /initrd\n"),
        ("kernel", &[1; 2000]),
        ("initrd", &[2; 2000]),
    ]);
    for edit in edits.chunks_exact(4) {
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], 0]) as usize;
        // The tables and folders are at the start.
        disk[at % (SIZE / 8)] = edit[3];
    }
    disk
}

/// A disk with these files.
fn with(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut disk = vec![0; SIZE];
    let options = FormatVolumeOptions::new().bytes_per_cluster(512);
    fatfs::format_volume(Cursor::new(&mut disk[..]), options).expect("a file system");
    let volume = FileSystem::new(Cursor::new(&mut disk[..]), FsOptions::new()).expect("one");
    for (path, content) in files {
        for (at, _) in path.match_indices('/') {
            volume.root_dir().create_dir(&path[..at]).expect("a folder");
        }
        let mut file = volume.root_dir().create_file(path).expect("a file");
        // What has no room is cut off.
        let _ = file.write_all(content);
    }
    drop(volume);
    disk
}
