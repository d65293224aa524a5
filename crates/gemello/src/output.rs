//! The second serial line's output: the log file, and what the guest's init reports there.

use crate::debian::report::{Report, Scanner};
use crate::input::Gate;
use anyhow::{Context as _, Result};
use machine::Bell;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What becomes known of a command in the guest. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    status: Arc<Mutex<Option<u8>>>,
    gate: Gate,
    bell: Arc<OnceLock<Bell>>,
}

impl Progress {
    /// `gate` opens when the guest is ready: for input, and to hear of its window.
    pub(crate) fn new(gate: Gate) -> Self {
        Self { status: Arc::default(), gate, bell: Arc::default() }
    }

    /// Rings this bell when the gate opens.
    pub(crate) fn ring(&self, bell: Bell) {
        let _ = self.bell.set(bell);
    }

    /// The command's status, once it has ended.
    pub(crate) fn status(&self) -> Option<u8> {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, report: Report) {
        match report {
            Report::Status(status) => {
                *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            }
            Report::Ready => {
                self.gate.open();
                if let Some(bell) = self.bell.get() {
                    bell.ring();
                }
            }
        }
    }
}

/// Where the second serial line goes.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    scanner: Option<(Scanner, Progress)>,
}

impl Log {
    /// Into the file at `path`, if one is given; reports go to `progress`, if wanted.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(crate) fn new(path: Option<&Path>, progress: Option<Progress>) -> Result<Self> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write the log {}", path.display()))
        };
        let file = path.map(create).transpose()?;
        Ok(Self { file, scanner: progress.map(|progress| (Scanner::default(), progress)) })
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((scanner, progress)) = &mut self.scanner {
            for report in scanner.scan(bytes) {
                progress.note(report);
            }
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            crate::terminal::tell(&format!("gemello: the log ends here: {error}\n"));
            self.file = None;
        }
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
        let place = match self {
            Self::Output => rustix::stdio::stdout(),
            Self::Error => rustix::stdio::stderr(),
        };
        Ok(rustix::io::write(place, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
