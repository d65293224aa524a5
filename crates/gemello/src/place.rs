//! Where a machine's first serial line ends on the host.

use crate::output::{LogFile, Standard};
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// This process has left its terminal: its streams are nobody's.
static DETACHED: AtomicBool = AtomicBool::new(false);

/// This process leaves its terminal.
pub(crate) fn detach() {
    DETACHED.store(true, Ordering::SeqCst);
}

/// Whether this process has left its terminal.
pub(crate) fn is_detached() -> bool {
    DETACHED.load(Ordering::SeqCst)
}

/// Where a machine's first serial line ends.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// This program's standard input and output.
    Standard,
    /// A pseudo-terminal of its own.
    Pty(Pty),
    /// A file, which takes the output; there is no input.
    Log(LogFile),
}

impl Place {
    /// What there is to poll and to read for input.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Standard => Some(rustix::stdio::stdin()),
            Self::Pty(pty) => Some(pty.0.master.as_fd()),
            Self::Log(_) => None,
        }
    }

    /// What takes the output.
    pub(crate) fn writer(&self) -> Box<dyn Write + Send> {
        match self {
            Self::Standard => Box::new(Standard::Output),
            Self::Pty(pty) => Box::new(pty.clone()),
            Self::Log(file) => Box::new(file.clone()),
        }
    }
}

/// How long output waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_millis(200);

/// A pseudo-terminal. Clones are the same one.
///
/// This process has both sides open, so that it never hangs up. Output that nobody reads is
/// dropped, the newest kept: a guest does not wait for a terminal that nobody has open.
#[derive(Clone, Debug)]
pub(crate) struct Pty(Arc<Pair>);

#[derive(Debug)]
struct Pair {
    master: OwnedFd,
    slave: OwnedFd,
    path: String,
    /// Output was dropped, and nothing has been read since.
    unread: AtomicBool,
}

impl Pty {
    /// A new one, in raw mode.
    ///
    /// # Errors
    /// The host has none left.
    pub(crate) fn open() -> Result<Self> {
        Self::try_open().map_err(io::Error::from).context("cannot open a pseudo-terminal")
    }

    fn try_open() -> Result<Self, Errno> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(&*path, flags, Mode::empty())?;
        let mut modes = tcgetattr(&slave)?;
        modes.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &modes)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self(Arc::new(Pair { master, slave, path, unread: AtomicBool::new(false) })))
    }

    /// The path of the side that a user opens.
    pub(crate) fn path(&self) -> &str {
        &self.0.path
    }

    /// What was written last has been read.
    fn is_read(&self) -> bool {
        rustix::io::ioctl_fionread(&self.0.slave).is_ok_and(|count| count == 0)
    }
}

impl Write for Pty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Pair { master, slave, unread, .. } = &*self.0;
        if unread.load(Ordering::SeqCst) && self.is_read() {
            unread.store(false, Ordering::SeqCst);
        }
        loop {
            match rustix::io::write(master, bytes) {
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                written => return Ok(written?),
            }
            let limit = Timespec { tv_sec: 0, tv_nsec: PATIENCE.subsec_nanos().into() };
            let ready = || poll(&mut [PollFd::new(master, PollFlags::OUT)], Some(&limit));
            if unread.load(Ordering::SeqCst) || ready().is_ok_and(|count| count == 0) {
                unread.store(true, Ordering::SeqCst);
                tcflush(slave, QueueSelector::IFlush)?;
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_terminal_that_nobody_reads_keeps_the_newest_and_holds_nobody() {
        let mut pty = Pty::open().expect("a pseudo-terminal");
        for number in 0..20_000 {
            pty.write_all(format!("line {number}\n").as_bytes()).expect("it takes anything");
        }
        let mut user = std::fs::File::open(pty.path()).expect("its other side");
        let mut read = Vec::new();
        while !read.ends_with(b"line 19999\n") {
            let mut piece = [0; 512];
            let count = user.read(&mut piece).expect("there is more");
            read.extend_from_slice(&piece[..count]);
        }
        assert!(read.len() < 64 << 10, "{}", read.len());
    }

    /// A reader that is there gets every byte, however slow it is.
    #[test]
    fn a_reader_gets_all() {
        let mut pty = Pty::open().expect("a pseudo-terminal");
        let mut user = std::fs::File::open(pty.path()).expect("its other side");
        let reader = std::thread::spawn(move || {
            let (mut read, mut piece) = (0, [0; 1000]);
            while read < 100_000 {
                read += user.read(&mut piece).expect("there is more");
                std::thread::sleep(Duration::from_micros(100));
            }
            read
        });
        pty.write_all(&[b'x'; 100_000]).expect("it takes anything");
        assert_eq!(reader.join().expect("no panic"), 100_000);
    }
}
