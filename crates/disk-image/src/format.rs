//! What an image file is, told by its content.
//!
//! Used as raw, a file in another format shows the guest the container in place of the disk, and
//! the first write damages it. The answer is a guess by magic numbers, which a guest can write to
//! its own raw disk. So a guess alone never opens a further file ([`Backing`](super::Backing)),
//! what is neither raw nor qcow2 is refused, and who knows better insists on a format.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// A format that a disk may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// The disk's bytes and nothing else.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
}

impl ImageFormat {
    /// As an option says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// The format called `name`.
    pub fn named(name: &[u8]) -> Option<Self> {
        [Self::Raw, Self::Qcow2].into_iter().find(|format| format.name().as_bytes() == name)
    }
}

/// What a file's content says that it is: a format that is not raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the documentation
pub enum Format {
    Qcow,
    Qcow2,
    Qed,
    Vmdk,
    Vdi,
    Vhd,
    Vhdx,
    Parallels,
    Bochs,
    Cloop,
    Dmg,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    Lz4,
    Zip,
}

impl Format {
    /// Whether another file lies in it, compressed.
    pub const fn is_compressed(self) -> bool {
        matches!(self, Self::Gzip | Self::Xz | Self::Zstd | Self::Bzip2 | Self::Lz4 | Self::Zip)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qcow => "a qcow (version 1) image",
            Self::Qcow2 => "a qcow2 image",
            Self::Qed => "a QED image",
            Self::Vmdk => "a VMDK image",
            Self::Vdi => "a VDI image",
            Self::Vhd => "a VHD image",
            Self::Vhdx => "a VHDX image",
            Self::Parallels => "a Parallels image",
            Self::Bochs => "a Bochs image",
            Self::Cloop => "a cloop image",
            Self::Dmg => "an Apple disk image",
            Self::Gzip => "compressed with gzip",
            Self::Xz => "compressed with xz",
            Self::Zstd => "compressed with zstd",
            Self::Bzip2 => "compressed with bzip2",
            Self::Lz4 => "compressed with lz4",
            Self::Zip => "a zip archive",
        })
    }
}

/// Bytes of a file's beginning in which every magic number lies.
const HEAD: u64 = 80;
/// Bytes of its end.
const TAIL: u64 = 512;

/// Magic numbers, each at its offset from the beginning.
const HEADS: &[(usize, &[u8], Format)] = &[
    (0, b"QFI\xfb\0\0\0\x01", Format::Qcow),
    (0, b"QFI\xfb", Format::Qcow2),
    (0, b"QED\0", Format::Qed),
    (0, b"KDMV", Format::Vmdk),
    (0, b"COWD", Format::Vmdk),
    (0, b"# Disk DescriptorFile", Format::Vmdk),
    (64, &[0x7f, 0x10, 0xda, 0xbe], Format::Vdi),
    (0, b"conectix", Format::Vhd),
    (0, b"vhdxfile", Format::Vhdx),
    (0, b"WithoutFreeSpace", Format::Parallels),
    (0, b"WithouFreSpacExt", Format::Parallels),
    (0, b"Bochs Virtual HD Image", Format::Bochs),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", Format::Cloop),
    (0, &[0x1f, 0x8b, 8], Format::Gzip),
    (0, &[0xfd, b'7', b'z', b'X', b'Z', 0], Format::Xz),
    (0, &[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
    (0, b"BZh", Format::Bzip2),
    (0, &[0x04, 0x22, 0x4d, 0x18], Format::Lz4),
    (0, b"PK\x03\x04", Format::Zip),
];

/// Magic numbers, each at its distance from the end: a fixed VHD has nothing but a footer (of 511
/// bytes where Virtual PC before 2004 made it), and so has an Apple image.
const TAILS: &[(usize, &[u8], Format)] = &[
    (512, b"conectix", Format::Vhd),
    (511, b"conectix", Format::Vhd),
    (512, b"koly", Format::Dmg),
];

/// What `file`, of `bytes` bytes, is; `None` if it may be raw.
///
/// # Errors
/// It cannot be read.
pub(crate) fn recognize(file: &File, bytes: u64) -> io::Result<Option<Format>> {
    let mut head = vec![0; bytes.min(HEAD) as usize];
    file.read_exact_at(&mut head, 0)?;
    let end = bytes.min(TAIL);
    let mut tail = vec![0; end as usize];
    file.read_exact_at(&mut tail, bytes - end)?;
    Ok(by_content(&head, &tail))
}

fn by_content(head: &[u8], tail: &[u8]) -> Option<Format> {
    let begins = |at, magic| head.get(at..).is_some_and(|rest: &[u8]| rest.starts_with(magic));
    let ends = |from_end, magic| {
        let at = tail.len().checked_sub(from_end);
        at.and_then(|at| tail.get(at..)).is_some_and(|rest: &[u8]| rest.starts_with(magic))
    };
    let by_head = HEADS.iter().find(|&&(at, magic, _)| begins(at, magic));
    let by_tail = || TAILS.iter().find(|&&(from_end, magic, _)| ends(from_end, magic));
    by_head.or_else(by_tail).map(|&(_, _, format)| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_magic_number_lies_in_what_is_read() {
        for &(at, magic, format) in HEADS {
            assert!(at + magic.len() <= HEAD as usize, "{format}");
            let mut head = vec![0; at];
            head.extend_from_slice(magic);
            head.extend_from_slice(&[2; 8]);
            assert_eq!(by_content(&head, &[0; 512]), Some(format));
            // Cut short, it is nothing.
            let cut = by_content(&head[..at + magic.len() - 1], &[0; 512]);
            assert!(cut.is_none() || cut == Some(Format::Qcow2), "{format}: {cut:?}");
        }
        for &(from_end, magic, format) in TAILS {
            let mut tail = vec![0; TAIL as usize];
            let at = TAIL as usize - from_end;
            tail[at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(by_content(&[0; HEAD as usize], &tail), Some(format));
            assert_eq!(by_content(&[], &tail[at + 1..]), None);
        }
    }

    #[test]
    fn what_raw_disks_begin_with_is_no_format() {
        let boot_sector = [&[0xEB, 0x63, 0x90][..], &[0; 77]].concat();
        for head in [&[][..], &[0; 80], &boot_sector, b"LUKS\xba\xbe\0\x02", b"hello\n"] {
            assert_eq!(by_content(head, head), None);
        }
    }
}
