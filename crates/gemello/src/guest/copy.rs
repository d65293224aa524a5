//! `gemello cp SRC DST`: files and folders, between the host and a guest.

use super::answer::{answer, harmless};
use super::arguments::Copy;
use crate::control;
use crate::output::Standard;
use crate::{exit, terminal};
use agent_job::{Carried, FromAgent, PIECE, Pieces, Request, ToAgent};
use anyhow::{Context as _, Result, bail};
use copy::{Bits, Entry, Kind, Target, Writer, pack};
use std::ffi::OsStr;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From when on a copy tells how far it is, and how often.
const SLOW: Duration = Duration::from_secs(1);
const OFTEN: Duration = Duration::from_millis(200);

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// A tar stream, on standard input or output.
    Stream,
    Here(PathBuf),
    Guest {
        name: String,
        path: PathBuf,
    },
}

impl End {
    /// `NAME:PATH` has no slash before the colon; a file here of such a name is `./NAME:PATH`.
    fn parse(text: &OsStr) -> Self {
        if text == "-" {
            return Self::Stream;
        }
        let bytes = text.as_bytes();
        let here = || Self::Here(text.into());
        let Some(colon) = bytes.iter().position(|&byte| byte == b':') else { return here() };
        let (name, path) = (&bytes[..colon], bytes.get(colon + 1..).unwrap_or_default());
        match std::str::from_utf8(name) {
            Ok(name) if !name.is_empty() && !name.contains('/') => {
                Self::Guest { name: name.into(), path: OsStr::from_bytes(path).into() }
            }
            _ => here(),
        }
    }
}

/// Copies.
///
/// # Errors
/// Neither end is in a guest, or both are; there is no such machine or file; or what comes would be
/// written elsewhere.
pub(crate) fn copy(Copy { from, to }: &Copy) -> Result<u8> {
    match (End::parse(from), End::parse(to)) {
        (End::Guest { name, path }, to @ (End::Stream | End::Here(_))) => get(&name, &path, &to)?,
        (from @ (End::Stream | End::Here(_)), End::Guest { name, path }) => {
            put(&from, &name, &path)?;
        }
        (End::Guest { .. }, End::Guest { .. }) => {
            bail!("one side has to be here; copy to a file here first")
        }
        _ => bail!("one side has to be in a guest; write NAME:PATH"),
    }
    Ok(exit::OK)
}

/// From the guest.
fn get(name: &str, path: &Path, to: &End) -> Result<()> {
    let target = match to {
        End::Here(path) => Some(Target::new(path, Bits::Permissions)?),
        _ => None,
    };
    let mut channel = control::agent(name)?;
    channel.say(&ToAgent::Request(Request::Send(path.into())))?;
    let carried = Carried::new(|| next_piece(&mut channel.reader));
    let mut entries = BufReader::with_capacity(PIECE, Meter::new(carried));
    match target {
        Some(target) => target.unpack(&mut entries)?,
        None => to_tar(&mut entries)?,
    }
    // The agent's last word, or why it has none.
    match entries.read(&mut [0])? {
        0 => Ok(()),
        _ => bail!("the guest sends more than it said"),
    }
}

/// To the guest.
fn put(from: &End, name: &str, path: &Path) -> Result<()> {
    let mut channel = control::agent(name)?;
    channel.say(&ToAgent::Request(Request::Take(path.into())))?;
    let frames = Pieces(|piece| ToAgent::Input(piece).write(&mut channel.writer));
    let mut entries = BufWriter::with_capacity(PIECE, Meter::new(frames));
    match from {
        End::Here(path) => pack(path, copy::called(path), &mut entries)?,
        _ => from_tar(&mut entries)?,
    }
    entries.flush()?;
    drop(entries);
    channel.say(&ToAgent::InputEnd)?;
    answer(&mut channel)
}

/// A tar stream on standard output, of `entries`.
fn to_tar(entries: &mut impl Read) -> Result<()> {
    let mut tar = tar::Builder::new(Standard::Output);
    while let Some(Entry { path, mode, seconds, kind }) = Entry::read(entries)? {
        let path: PathBuf = path.iter().collect();
        let mut header = tar::Header::new_gnu();
        header.set_size(0); // a file's is another
        header.set_mode(mode & 0o7777);
        header.set_mtime(seconds.try_into().unwrap_or(0));
        match kind {
            Kind::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, &path, io::empty())?;
            }
            Kind::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, &path, Path::new(&target))?;
            }
            Kind::File(size) => {
                header.set_size(size);
                let mut content = entries.by_ref().take(size);
                tar.append_data(&mut header, &path, &mut content)?;
                if content.limit() > 0 {
                    bail!("the guest sends less than it said");
                }
            }
        }
    }
    tar.finish().context("cannot write the tar stream")
}

/// Entries, of the tar stream on standard input. What is neither file, folder nor link is left out.
fn from_tar(to: &mut impl Write) -> Result<()> {
    let mut writer = Writer::new(to);
    let mut tar = tar::Archive::new(io::stdin().lock());
    for entry in tar.entries().context("cannot read the tar stream")? {
        let entry = entry.context("cannot read the tar stream")?;
        let path = entry.path()?.into_owned();
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File(entry.size()),
            tar::EntryType::Symlink => match entry.link_name()? {
                Some(target) => Kind::Link(target.into_owned().into_os_string()),
                None => continue,
            },
            _ => continue,
        };
        let names = path.components().filter(|it| *it != std::path::Component::CurDir);
        let path: Vec<_> = names.map(|it| it.as_os_str().to_owned()).collect();
        if path.is_empty() {
            continue;
        }
        let header = entry.header();
        let (mode, seconds) = (header.mode()?, header.mtime()?.try_into().unwrap_or(0));
        writer.put(&Entry { path, mode, seconds, kind }, entry)?;
    }
    writer.finish()?;
    Ok(())
}

/// What the agent's next frame carries; `None`: it is done.
fn next_piece(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    match FromAgent::read(from)? {
        Some(FromAgent::Output(bytes)) => Ok(Some(bytes)),
        Some(FromAgent::Ended(0)) => Ok(None),
        Some(FromAgent::Failed(why)) => Err(io::Error::other(harmless(&why))),
        Some(_) => Err(io::Error::other("the agent answered something else")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Tells on a terminal how much has passed, if it takes long.
struct Meter<T> {
    inner: T,
    bytes: u64,
    began: Instant,
    told: Option<Instant>,
}

impl<T> Meter<T> {
    fn new(inner: T) -> Self {
        Self { inner, bytes: 0, began: Instant::now(), told: None }
    }

    fn passed(&mut self, count: usize) {
        self.bytes += count as u64;
        let due = self.told.map_or(self.began.elapsed() > SLOW, |told| told.elapsed() > OFTEN);
        if due && terminal::error_is_terminal() {
            self.told = Some(Instant::now());
            eprint!("\r{:.1} MiB", self.bytes as f64 / f64::from(1 << 20));
        }
    }
}

impl<T> Drop for Meter<T> {
    fn drop(&mut self) {
        if self.told.is_some() {
            let seconds = self.began.elapsed().as_secs_f64();
            eprintln!("\r{:.1} MiB in {seconds:.1} s", self.bytes as f64 / f64::from(1 << 20));
        }
    }
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.passed(count);
        Ok(count)
    }
}

impl<W: Write> Write for Meter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.passed(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let guest = |name: &str, path: &str| End::Guest { name: name.into(), path: path.into() };
        for (text, end) in [
            ("-", End::Stream),
            ("web:/etc/a:b", guest("web", "/etc/a:b")),
            ("web:", guest("web", "")),
            ("./web:x", End::Here("./web:x".into())),
            ("/a:b", End::Here("/a:b".into())),
            (":x", End::Here(":x".into())),
            ("a b", End::Here("a b".into())),
        ] {
            assert_eq!(End::parse(text.as_ref()), end, "{text}");
        }
    }
}
