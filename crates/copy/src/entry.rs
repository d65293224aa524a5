//! Entries, written and read.
//!
//! ```text
//! kind 1   mode 4   seconds 8   path 2 + n   file: size 8, bytes   link: target 2 + n
//! ```
//! Numbers are little-endian. The end is an entry's kind alone.

use crate::{PATH_MAX, PIECE, wrong};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path};

const END: u8 = 0;
const FOLDER: u8 = 1;
const FILE: u8 = 2;
const LINK: u8 = 3;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file of so many bytes, which follow.
    File(u64),
    /// A symbolic link to there.
    Link(OsString),
}

/// A file, a folder or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its names from the top down: each is one component.
    pub path: Vec<OsString>,
    /// Its permissions.
    pub mode: u32,
    /// When it was last changed, in seconds since 1970.
    pub seconds: i64,
    /// What it is.
    pub kind: Kind,
}

/// Writes entries.
#[derive(Debug)]
pub struct Writer<W>(W);

impl<W: Write> Writer<W> {
    /// To `to`.
    pub fn new(to: W) -> Self {
        Self(to)
    }

    /// Writes `entry`, a file's with as many bytes of `content` as it says, and zeros for what is
    /// missing: it may be shorter by now.
    ///
    /// # Errors
    /// What is written to, or what is read; or a name is too long.
    pub fn put(&mut self, entry: &Entry, content: impl Read) -> io::Result<()> {
        let Entry { path, mode, seconds, kind } = entry;
        let number = match kind {
            Kind::Folder => FOLDER,
            Kind::File(_) => FILE,
            Kind::Link(_) => LINK,
        };
        self.0.write_all(&[number])?;
        self.0.write_all(&mode.to_le_bytes())?;
        self.0.write_all(&seconds.to_le_bytes())?;
        let path: std::path::PathBuf = path.iter().collect();
        self.name(path.as_os_str().as_bytes())?;
        match kind {
            Kind::Folder => Ok(()),
            Kind::Link(target) => self.name(target.as_bytes()),
            Kind::File(size) => {
                self.0.write_all(&size.to_le_bytes())?;
                let mut whole = content.chain(io::repeat(0)).take(*size);
                io::copy(&mut whole, &mut self.0).map(drop)
            }
        }
    }

    /// Writes the end.
    ///
    /// # Errors
    /// What is written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.0.write_all(&[END])?;
        self.0.flush()?;
        Ok(self.0)
    }

    fn name(&mut self, name: &[u8]) -> io::Result<()> {
        if name.len() > PATH_MAX {
            return Err(wrong(format!("a name of {} bytes is too long", name.len())));
        }
        self.0.write_all(&(name.len() as u16).to_le_bytes())?;
        self.0.write_all(name)
    }
}

impl Entry {
    /// The next of `from`; a file's bytes are to be read after it. `None`: the end.
    ///
    /// # Errors
    /// What is read; or it is no entry.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let [kind] = exactly(from)?;
        if kind == END {
            return Ok(None);
        }
        let mode = u32::from_le_bytes(exactly(from)?);
        let seconds = i64::from_le_bytes(exactly(from)?);
        let path = name(from)?;
        let kind = match kind {
            FOLDER => Kind::Folder,
            FILE => Kind::File(u64::from_le_bytes(exactly(from)?)),
            LINK => Kind::Link(name(from)?),
            _ => return Err(wrong(format!("an entry of kind {kind} is none"))),
        };
        Ok(Some(Self { path: components(Path::new(&path))?, mode, seconds, kind }))
    }
}

/// The names that `path` consists of.
///
/// # Errors
/// It begins at the root, or leads up.
fn components(path: &Path) -> io::Result<Vec<OsString>> {
    let name = |component| match component {
        Component::Normal(name) => Ok(name.to_owned()),
        _ => Err(wrong(format!("the name {} would lead outside", path.display()))),
    };
    let there = |component: &Component<'_>| *component != Component::CurDir;
    path.components().filter(there).map(name).collect()
}

fn exactly<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn name(from: &mut impl Read) -> io::Result<OsString> {
    let len = u16::from_le_bytes(exactly(from)?).into();
    if len > PATH_MAX {
        return Err(wrong(format!("a name of {len} bytes is none")));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    if bytes.contains(&0) {
        return Err(wrong("a name holds a NUL"));
    }
    Ok(OsString::from_vec(bytes))
}

/// Carries exactly `size` bytes.
pub(crate) fn carry(from: &mut impl Read, to: &mut impl Write, size: u64) -> io::Result<()> {
    let (mut left, mut piece) = (size, vec![0; PIECE]);
    while left > 0 {
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = piece.get_mut(..most).unwrap_or_default();
        from.read_exact(piece)?;
        to.write_all(piece)?;
        left -= most as u64;
    }
    Ok(())
}
