//! From a tree to entries.

use crate::entry::{Entry, Kind, Writer};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Nothing is waited for at a FIFO that has taken a file's place, and no link is followed.
const PLAIN: i32 = rustix::fs::OFlags::NONBLOCK.union(rustix::fs::OFlags::NOFOLLOW).bits() as i32;

/// What `source` is called where it is packed by its own name, the last. `None`: what is in it is
/// meant, as `folder/.` says.
pub fn called(source: &Path) -> Option<&OsStr> {
    let content = source.as_os_str().as_encoded_bytes().ends_with(b"/.");
    source.file_name().filter(|_| !content)
}

/// Writes what is at `source`, called `name`, and all below it. Without a name: what is in the
/// folder `source`.
///
/// # Errors
/// What is written to; or something of it cannot be read.
pub fn pack(source: &Path, name: Option<&OsStr>, to: impl Write) -> io::Result<()> {
    let mut writer = Writer::new(to);
    let top: Vec<OsString> = name.map(OsStr::to_owned).into_iter().collect();
    if top.is_empty() {
        folder(source, &top, &mut writer)?;
    } else {
        one(source, &top, &mut writer)?;
    }
    writer.finish().map(drop)
}

fn told(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}

fn one(source: &Path, path: &[OsString], to: &mut Writer<impl Write>) -> io::Result<()> {
    let data = fs::symlink_metadata(source).map_err(|error| told(&error, source))?;
    let entry = |data: &Metadata, kind| Entry {
        path: path.to_vec(),
        mode: data.mode() & 0o7777,
        seconds: data.mtime(),
        kind,
    };
    if data.is_dir() {
        to.put(&entry(&data, Kind::Folder), io::empty())?;
        folder(source, path, to)
    } else if data.is_symlink() {
        let target = fs::read_link(source).map_err(|error| told(&error, source))?;
        to.put(&entry(&data, Kind::Link(target.into_os_string())), io::empty())
    } else if data.is_file() {
        let mut options = OpenOptions::new();
        let file: File = options
            .read(true)
            .custom_flags(PLAIN)
            .open(source)
            .map_err(|error| told(&error, source))?;
        let data = file.metadata().map_err(|error| told(&error, source))?;
        to.put(&entry(&data, Kind::File(data.len())), file)
    } else {
        Ok(()) // nothing that can be copied
    }
}

fn folder(source: &Path, path: &[OsString], to: &mut Writer<impl Write>) -> io::Result<()> {
    let names = || -> io::Result<Vec<OsString>> {
        fs::read_dir(source)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    let mut names = names().map_err(|error| told(&error, source))?;
    names.sort();
    for name in names {
        let below: Vec<OsString> = path.iter().cloned().chain([name.clone()]).collect();
        one(&source.join(&name), &below, to)?;
    }
    Ok(())
}
