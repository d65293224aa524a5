//! `--disk` and `[[disk]]`.

use super::commas::{exists, last_option, path};
use super::optional;
use super::values::{Size, Text as _};
use crate::shell;
use disk_image::{Backing, ImageFormat, Limit};
use machine::{Cache, Disk};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What `backing` says that permits any file.
pub(crate) const ANY: &str = "allow";
/// Bytes of a serial number at the most (virtio 1.2, 5.2.6).
const SERIAL_MAX: usize = 20;
/// For messages.
const OPTIONS: &str = "ro, format=, serial=, cache=, backing=, iops= and bps=";

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskSettings {
    pub(crate) path: PathBuf,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) read_only: bool,
    /// Without it, the content tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<ImageFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<Cache>,
    /// A file that it may be built on, or [`ANY`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backing: Option<PathBuf>,
    /// Requests in a second at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) iops: Option<NonZeroU64>,
    /// Bytes in a second at the most.
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    pub(crate) bps: Option<Size>,
}

impl DiskSettings {
    /// `FILE[,OPTION]…`; two commas are one of a name. A file whose name ends like an option is
    /// taken whole if it exists.
    ///
    /// # Errors
    /// An option that is not known, or no file.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        let mut file = text.as_bytes();
        let mut disk = Self::default();
        while !exists(file) {
            let Some((rest, option)) = last_option(file) else { break };
            if !disk.take(option)? {
                if exists(rest) {
                    let option = shell::shown(OsStr::from_bytes(option));
                    return Err(format!("no option is called {option}; there are {OPTIONS}"));
                }
                break; // a name with a comma
            }
            file = rest;
        }
        named(file)?;
        disk.path = path(file);
        Ok(disk)
    }

    /// Notes `option`. False: it is none.
    fn take(&mut self, option: &[u8]) -> Result<bool, String> {
        if option == b"ro" {
            self.read_only = true;
            return Ok(true);
        }
        let Some(equals) = option.iter().position(|&byte| byte == b'=') else { return Ok(false) };
        let (key, value) = (&option[..equals], &option[equals + 1..]);
        let text = String::from_utf8_lossy(value);
        match key {
            b"format" => self.format = Some(format(value)?),
            b"serial" => self.serial = Some(serial(&path(value))?),
            b"cache" => self.cache = Some(cache(value)?),
            b"backing" => self.backing = Some(path(value)),
            b"iops" => {
                let iops = text.parse();
                self.iops = Some(iops.map_err(|_| "iops is a number of requests, such as 500")?);
            }
            b"bps" => self.bps = Some(Size::parse(&text).map_err(|why| format!("bps: {why}"))?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Every path in it.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let backing = self.backing.as_mut().filter(|file| file.as_path() != Path::new(ANY));
        std::iter::once(&mut self.path).chain(backing)
    }

    /// As the machine takes it.
    ///
    /// # Errors
    /// A value that no disk can have.
    pub(crate) fn disk(&self) -> Result<Disk, String> {
        let Self { path, read_only, format, serial, cache, backing, iops, bps } = self;
        let backing = match backing {
            None => Backing::SameFolder,
            Some(any) if any == Path::new(ANY) => Backing::Allow,
            Some(file) => Backing::File(file.clone()),
        };
        if let Some(serial) = serial {
            self::serial(Path::new(serial))?;
        }
        let bps = bps.map(|Size(bytes)| NonZeroU64::new(bytes).ok_or("bps: 0 bytes are none"));
        Ok(Disk {
            path: path.clone(),
            read_only: *read_only,
            format: *format,
            backing,
            serial: serial.clone(),
            cache: cache.unwrap_or_default(),
            limit: Limit { iops: *iops, bps: bps.transpose()? },
        })
    }
}

fn format(value: &[u8]) -> Result<ImageFormat, String> {
    ImageFormat::named(value).ok_or_else(|| {
        "a disk is raw or qcow2 here; convert it, or leave the format out".to_owned()
    })
}

fn cache(value: &[u8]) -> Result<Cache, String> {
    match value {
        b"writeback" => Ok(Cache::Writeback),
        b"writethrough" => Ok(Cache::Writethrough),
        b"none" => Ok(Cache::None),
        b"unsafe" => Ok(Cache::Unsafe),
        _ => Err("cache is writeback, writethrough, none or unsafe".to_owned()),
    }
}

fn serial(value: &Path) -> Result<String, String> {
    let text = value.to_str().filter(|text| {
        (1..=SERIAL_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    });
    let text = text.ok_or("a serial number has 1 to 20 letters, digits and signs, no space")?;
    Ok(text.to_owned())
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
