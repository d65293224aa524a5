//! A file's name and options after it, set apart by commas.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// `text` with two commas as one.
pub(super) fn path(text: &[u8]) -> PathBuf {
    if Path::new(OsStr::from_bytes(text)).exists() {
        return PathBuf::from(OsStr::from_bytes(text));
    }
    let (mut plain, mut rest) = (Vec::new(), text);
    while let Some((&byte, after)) = rest.split_first() {
        plain.push(byte);
        rest = if rest.starts_with(b",,") { &rest[2..] } else { after };
    }
    PathBuf::from(OsString::from_vec(plain))
}

/// What is before the last comma that stands alone, and what follows it.
pub(super) fn last_option(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut at, mut last) = (0, None);
    while at < text.len() {
        if text[at..].starts_with(b",,") {
            at += 1;
        } else if text[at] == b',' {
            last = Some(at);
        }
        at += 1;
    }
    last.map(|comma| (&text[..comma], &text[comma + 1..]))
}

/// Whether there is such a file.
pub(super) fn exists(file: &[u8]) -> bool {
    !file.is_empty() && path(file).exists()
}
