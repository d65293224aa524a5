//! Pairs of a key and a value, each ended by NUL, which no path, word or variable holds. A list is
//! a key that comes again.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::str::FromStr;

/// Pairs as they are written.
#[derive(Default)]
pub(crate) struct Text(pub(crate) Vec<u8>);

impl Text {
    /// What holds a NUL is cut there.
    pub(crate) fn put(&mut self, key: &str, value: impl AsRef<OsStr>) {
        for part in [key.as_bytes(), value.as_ref().as_bytes()] {
            let end = part.iter().position(|&byte| byte == 0).unwrap_or(part.len());
            self.0.extend_from_slice(part.get(..end).unwrap_or_default());
            self.0.push(0);
        }
    }

    pub(crate) fn number(&mut self, key: &str, value: impl fmt::Display) {
        self.put(key, value.to_string());
    }
}

/// The pairs that `bytes` are, given to `take` one after the other. What it refuses is named.
pub(crate) fn read(
    bytes: &[u8],
    mut take: impl FnMut(&str, &[u8]) -> Result<(), ()>,
) -> Result<(), String> {
    let mut parts = bytes.split(|&byte| byte == 0);
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let key = String::from_utf8_lossy(key);
        take(&key, value)
            .map_err(|()| format!("{key} cannot be {}", String::from_utf8_lossy(value)))?;
    }
    Ok(())
}

pub(crate) fn number<T: FromStr>(value: &[u8]) -> Result<T, ()> {
    std::str::from_utf8(value).map_err(drop)?.parse().map_err(drop)
}
