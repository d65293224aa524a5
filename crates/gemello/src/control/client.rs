//! The side of who asks: a connection to a machine, found by its name.

use super::folder::Folder;
use super::protocol::{self, Answer, Call, Reply, Request, VERSION};
use anyhow::{Context as _, Result, anyhow, bail};
use rustix::net::sockopt::socket_peercred;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take: the machine may be saved just now.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection to a machine.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) stream: BufReader<UnixStream>,
}

/// Whether someone listens at the socket `path`.
///
/// # Errors
/// This process cannot ask: it has no descriptor left, say.
pub(super) fn is_alive(path: &Path) -> io::Result<bool> {
    match UnixStream::connect(path) {
        Ok(_) => Ok(true),
        // Nobody has it open any more, or nobody ever had.
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
            Ok(false)
        }
        // So many wait there already.
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

fn is_gone(path: &Path) -> bool {
    matches!(is_alive(path), Ok(false))
}

/// Every machine of this user that can be reached, by name. What processes have left that were
/// killed is removed.
///
/// # Errors
/// The folder of sockets is not this user's alone.
pub(super) fn all() -> Result<Vec<Link>> {
    let folder = Folder::open()?;
    let mut found = Vec::new();
    for (name, path) in folder.sockets() {
        match Link::at(&name, &path) {
            Ok(link) => found.push(link),
            Err(_) if is_gone(&path) => {
                let _lock = folder.lock()?;
                if is_gone(&path) {
                    let _ = std::fs::remove_file(&path);
                }
            }
            Err(error) => eprintln!("gemello: {name}: {error:#}"),
        }
    }
    Ok(found)
}

impl Link {
    /// To the machine `name`.
    ///
    /// # Errors
    /// There is none, or it cannot be reached.
    pub(super) fn to(name: &str) -> Result<Self> {
        Self::find(name)?.with_context(|| {
            format!("no machine called {name} runs; gemello ps lists those that do")
        })
    }

    /// To the machine `name`, if there is one.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(super) fn find(name: &str) -> Result<Option<Self>> {
        let path = Folder::open()?.socket(name);
        match Self::at(name, &path) {
            // It may have ended between two looks.
            Err(_) if is_gone(&path) => Ok(None),
            found => found.map(Some).with_context(|| format!("cannot reach the machine {name}")),
        }
    }

    fn at(name: &str, path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        let peer = socket_peercred(&stream).map_err(std::io::Error::from)?;
        if peer.uid != rustix::process::geteuid() {
            bail!("its socket is served by another user");
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { name: name.into(), stream: BufReader::new(stream) })
    }

    /// Waits until its process has gone, and what that held of the host: disks, a name; for `limit`
    /// at the most.
    pub(super) fn gone(&mut self, limit: Duration) {
        let _ = self.stream.get_ref().set_read_timeout(Some(limit));
        let _ = self.stream.read_until(b'\n', &mut Vec::new());
    }

    /// Asks, and gives the answer. `None`: it has gone, and so has its process.
    ///
    /// # Errors
    /// It refuses, or does not answer.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Option<Answer>> {
        let call = Call { version: VERSION, request: request.clone() };
        let gone = |error: &std::io::Error| {
            matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
        };
        match self.stream.get_mut().write_all(&protocol::line(&call)) {
            Err(error) if gone(&error) => return Ok(None),
            sent => sent.with_context(|| format!("cannot ask the machine {}", self.name))?,
        }
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(None),
            Err(error) if gone(&error) => return Ok(None),
            read => read.with_context(|| format!("the machine {} does not answer", self.name))?,
        };
        let foreign = || format!("the machine {} runs in another version of gemello", self.name);
        let Reply { answer, .. } = serde_json::from_slice(&line).with_context(foreign)?;
        match answer {
            Answer::Refused(why) => Err(anyhow!("{}: {why}", self.name)),
            answer => Ok(Some(answer)),
        }
    }
}
