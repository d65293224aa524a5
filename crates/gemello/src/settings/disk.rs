//! `--disk` and `[[disk]]`.

use crate::shell;
use machine::{Disk, Trust};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskSettings {
    pub(crate) path: PathBuf,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) read_only: bool,
    /// Without it, a file that looks like another format's is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<DiskFormat>,
}

/// A format that a file is said to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DiskFormat {
    /// The disk's bytes and nothing else.
    Raw,
}

impl DiskSettings {
    /// `FILE[,ro][,format=raw]`; a file whose name ends like an option is taken whole if it exists.
    ///
    /// # Errors
    /// An option that is not known, or no file.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        let mut file = text.as_bytes();
        let (mut read_only, mut format) = (false, None);
        while !exists(file) {
            let Some(comma) = file.iter().rposition(|&b| b == b',') else { break };
            let (rest, option) = (&file[..comma], &file[comma + 1..]);
            match option {
                b"ro" => read_only = true,
                b"format=raw" => format = Some(DiskFormat::Raw),
                _ if option.starts_with(b"format=") => {
                    return Err("a disk is a raw image here; convert it, and leave the format out"
                        .to_owned());
                }
                _ if exists(rest) => {
                    let option = shell::shown(OsStr::from_bytes(option));
                    return Err(format!(
                        "no option is called {option}; there are ro and format=raw"
                    ));
                }
                _ => break, // a name with a comma
            }
            file = rest;
        }
        named(file)?;
        Ok(Self { path: PathBuf::from(OsStr::from_bytes(file)), read_only, format })
    }

    /// As the machine takes it.
    pub(crate) fn disk(&self) -> Disk {
        let Self { path, read_only, format } = self;
        let trust = match format {
            None => Trust::Recognized,
            Some(DiskFormat::Raw) => Trust::Raw,
        };
        Disk { path: path.clone(), read_only: *read_only, trust }
    }
}

/// That `file` names one, and nothing else before it.
fn named(file: &[u8]) -> Result<(), String> {
    if file.is_empty() {
        return Err("it names no file; write --disk FILE[,ro][,format=raw]".into());
    }
    let after = [b"file=".as_slice(), b"path="].iter().find_map(|key| file.strip_prefix(*key));
    let Some(name) = after.filter(|_| !exists(file)) else { return Ok(()) };
    let name = name.split(|&b| b == b',').next().unwrap_or(name);
    let name = shell::shown(OsStr::from_bytes(name));
    Err(format!("the file's name alone comes first: --disk {name}"))
}

fn exists(file: &[u8]) -> bool {
    !file.is_empty() && Path::new(OsStr::from_bytes(file)).exists()
}
