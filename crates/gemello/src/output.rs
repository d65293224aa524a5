//! The second serial line's output: the log file, and what the guest's init reports there.

use crate::debian::report::{Report, Scanner};
use crate::handover;
use crate::input::Gate;
use machine::Notifier;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// What becomes known of a command in the guest. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    status: Arc<Mutex<Option<u8>>>,
    gate: Gate,
    notifier: Arc<OnceLock<Notifier>>,
}

impl Progress {
    /// `gate` opens when the guest is ready: for input, and to hear of its window.
    pub(crate) fn new(gate: Gate) -> Self {
        Self { status: Arc::default(), gate, notifier: Arc::default() }
    }

    /// Notifies this when the gate opens.
    pub(crate) fn notify_through(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    /// The command's status, once it has ended.
    pub(crate) fn status(&self) -> Option<u8> {
        *sync::lock(&self.status)
    }

    fn note(&self, report: Report) {
        match report {
            Report::Status(status) => {
                *sync::lock(&self.status) = Some(status);
            }
            Report::Ready => {
                self.gate.open();
                if let Some(notifier) = self.notifier.get() {
                    notifier.notify();
                }
            }
        }
    }
}

/// The file for the second serial line, which is opened after the line is made. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogFile {
    file: Arc<OnceLock<File>>,
    lost: Arc<AtomicBool>,
}

impl LogFile {
    /// From now on the line's output goes there.
    pub(crate) fn open(&self, file: File) {
        let _ = self.file.set(file);
    }

    /// Whether the file has refused something.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    fn write(&self, bytes: &[u8]) {
        let Some(mut file) = self.file.get().filter(|_| !self.is_lost()) else { return };
        if let Err(error) = file.write_all(bytes) {
            self.lost.store(true, Ordering::SeqCst);
            crate::terminal::tell(&format!("gemello: the log ends here: {error}\n"));
        }
    }
}

/// Where the second serial line goes.
#[derive(Debug)]
pub(crate) struct Log {
    file: LogFile,
    scanner: Option<(Scanner, Progress)>,
}

impl Log {
    /// Into `file` once that is open; reports go to `progress`, if wanted.
    pub(crate) fn new(file: LogFile, progress: Option<Progress>) -> Self {
        Self { file, scanner: progress.map(|progress| (Scanner::default(), progress)) }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((scanner, progress)) = &mut self.scanner {
            for report in scanner.scan(bytes) {
                progress.note(report);
            }
        }
        self.file.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One of this program's own outputs, unbuffered: a prompt has no line end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standard {
    Output,
    Error,
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (shown, place) = match self {
            Self::Output => (&handover::OUTPUT, rustix::stdio::stdout()),
            Self::Error => (&handover::ERROR, rustix::stdio::stderr()),
        };
        shown.write(place, bytes, |bytes| write(place, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(place: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(place, bytes) {
            // Who shares the descriptor has made it non-blocking.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&place, PollFlags::OUT)], None)),
            written => return Ok(written?),
        }
    }
}
