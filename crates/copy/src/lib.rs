//! Files and folders as a stream: packed from a tree on one side, unpacked into a folder on the
//! other. One of the sides is a guest, which the other does not trust.
//!
//! ```text
//! pack ──► entries: folder, file with its bytes, link; the end ──► Target::unpack
//! ```
//! [`Target`] makes what comes below one folder that is open. Each name is one component, `..` is
//! none, and no link is followed: nothing is written outside, whatever the stream says. Modes and
//! times are kept; owners are whoever unpacks. Devices, FIFOs and sockets are left out.
#![forbid(unsafe_code)]

mod entry;
mod pack;
mod unpack;

pub use entry::{Entry, Kind, Writer};
pub use pack::{called, pack};
pub use unpack::{Bits, Target};

use std::ffi::OsString;
use std::io;

/// Bytes that are carried at once.
const PIECE: usize = 64 << 10;

/// Bytes of a path and of a link's target at the most, as Linux has them.
const PATH_MAX: usize = 4096;

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// What the host says, and to what.
fn at(error: impl Into<io::Error>, attempt: &str, path: &[OsString]) -> io::Error {
    let error = error.into();
    let path: std::path::PathBuf = path.iter().collect();
    io::Error::new(error.kind(), format!("cannot {attempt} {}: {error}", path.display()))
}
