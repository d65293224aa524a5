//! What to do with a file that cannot be a disk.
//!
//! What is proposed works as it stands when pasted into a shell, and never writes to a file that is
//! there.

use crate::shell;
use disk_image::{Format, ImageError};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The command that makes a disk of what could not be one, if there is such a command.
pub(crate) fn remedy(error: &ImageError) -> Option<String> {
    match error {
        ImageError::Foreign { path, format } => Some(conversion(path, *format)),
        ImageError::Open { path, source, .. } if source.kind() == ErrorKind::NotFound => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            directory.is_none_or(Path::is_dir).then(|| creation(path))
        }
        ImageError::TooSmall { path, bytes: 0 } if path.is_file() => Some(creation(path)),
        ImageError::Uneven { path, .. } => {
            let copy = argument(&fresh(path, "raw"));
            Some(format!("cp {} {copy} && truncate -s %512 {copy}", argument(path)))
        }
        _ => None,
    }
}

/// Makes the file, or an empty one larger; never one smaller, whatever has been put there
/// meanwhile.
fn creation(path: &Path) -> String {
    format!("truncate -s '>64M' {}", argument(path))
}

fn conversion(path: &Path, format: Format) -> String {
    let from = argument(path);
    let unpack = |tool: &str, suffix: &str| {
        let bare = path.file_name().unwrap_or_default().as_bytes();
        let inner = bare.strip_suffix(suffix.as_bytes()).filter(|name| !name.is_empty());
        let inner = inner.map(|name| path.with_file_name(OsStr::from_bytes(name)));
        let inner = inner.unwrap_or_else(|| path.with_extension("img"));
        let kind = inner.extension().unwrap_or(OsStr::new("img")).to_owned();
        format!("{tool} <{from} >{}", argument(&fresh(&inner, kind)))
    };
    let convert = |name: &str| {
        format!("qemu-img convert -f {name} -O raw {from} {}", argument(&fresh(path, "raw")))
    };
    match format {
        Format::Qcow => convert("qcow"),
        Format::Qcow2 => convert("qcow2"),
        Format::Qed => convert("qed"),
        Format::Vmdk => convert("vmdk"),
        Format::Vdi => convert("vdi"),
        Format::Vhd => convert("vpc"),
        Format::Vhdx => convert("vhdx"),
        Format::Parallels => convert("parallels"),
        Format::Bochs => convert("bochs"),
        Format::Cloop => convert("cloop"),
        Format::Dmg => convert("dmg"),
        Format::Gzip => unpack("gzip -dc", ".gz"),
        Format::Xz => unpack("xz -dc", ".xz"),
        Format::Zstd => unpack("zstd -dc", ".zst"),
        Format::Bzip2 => unpack("bzip2 -dc", ".bz2"),
        Format::Lz4 => unpack("lz4 -dc", ".lz4"),
        Format::Zip => {
            let new = fresh(path, "img");
            format!("unzip -p {from} >{}", argument(&new))
        }
    }
}

/// A name like that of `path`, with this extension, that is not taken: beside it, or here where
/// that is not allowed.
pub(crate) fn fresh(path: &Path, extension: impl AsRef<OsStr>) -> PathBuf {
    let directory = path.parent().unwrap_or(Path::new(""));
    let place = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let writable = rustix::fs::access(place, rustix::fs::Access::WRITE_OK).is_ok();
    let directory = if writable { directory } else { Path::new("") };
    let stem = path.file_stem().unwrap_or(OsStr::new("disk"));
    let name = |number: u32| {
        let mut name = OsString::from(stem);
        if number > 0 {
            name.push(format!("-{number}"));
        }
        name.push(".");
        name.push(&extension);
        directory.join(name)
    };
    let free = |path: &PathBuf| path.symlink_metadata().is_err();
    (0..=u32::MAX).map(name).find(free).unwrap_or_else(|| name(0))
}

/// A path as an argument: no program takes it for an option or a protocol (`qemu-img` does: `a:b`).
pub(crate) fn argument(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let first = bytes.split(|&b| b == b'/').next().unwrap_or_default();
    if first.starts_with(b"-") || first.contains(&b':') {
        return shell::shown(&OsString::from_vec([b"./", bytes].concat()));
    }
    shell::shown(path.as_os_str())
}
