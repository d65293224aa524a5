//! The second serial line's output: the log file, and what the guest's agent reports there.

use crate::coming_up::{ComingUp, Shown};
use crate::debian::report::{Report, Scanner};
use crate::gate::Gate;
use crate::handover;
use machine::Notifier;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// What becomes known of a command in the guest. Clones share it.
#[derive(Clone)]
pub(crate) struct Progress {
    heard: Arc<Mutex<Heard>>,
    gate: Gate,
    notifier: Arc<OnceLock<Notifier>>,
    asked: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("heard", &self.heard).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Heard {
    scanner: Scanner,
    status: Option<u8>,
    /// The first.
    trouble: Option<String>,
    service: ServiceState,
    system: ComingUp,
}

/// What the agent has said of its service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ServiceState {
    /// Nothing yet: nobody has asked for it, or it begins.
    #[default]
    Unheard,
    /// It listens.
    Listens,
    /// It will not; why.
    Refused(String),
}

/// The same in a saved machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgressState {
    /// The guest is ready.
    pub(crate) ready: bool,
    /// The command has ended so.
    pub(crate) status: Option<u8>,
    /// What has come of a line.
    pub(crate) line: Vec<u8>,
    /// What the agent has said of its service.
    #[serde(default)]
    pub(crate) service: ServiceState,
}

impl Progress {
    /// As `state` has it. `gate` opens when the guest is ready: for input, and to hear of its
    /// window.
    pub(crate) fn new(gate: Gate, state: ProgressState) -> Self {
        let ProgressState { ready: _, status, line, service } = state; // the gate is open then
        let (scanner, system) = (Scanner::within(line), ComingUp::new(Shown::Nowhere));
        let heard = Heard { scanner, status, trouble: None, service, system };
        let (heard, notifier) = (Arc::new(Mutex::new(heard)), Arc::default());
        Self { heard, gate, notifier, asked: Arc::default() }
    }

    /// What is saved with the machine.
    pub(crate) fn state(&self) -> ProgressState {
        let Heard { scanner, status, trouble: _, service, system: _ } = &*sync::lock(&self.heard);
        let (line, service) = (scanner.line().to_vec(), service.clone());
        ProgressState { ready: self.gate.is_open(), status: *status, line, service }
    }

    /// Another guest begins.
    pub(crate) fn begin_anew(&self) {
        self.gate.close();
        let mut heard = sync::lock(&self.heard);
        let system = heard.system.anew();
        *heard = Heard {
            scanner: Scanner::default(),
            status: None,
            trouble: None,
            service: ServiceState::Unheard,
            system,
        };
    }

    /// Shows from now on how far the guest is, which is a system.
    pub(crate) fn show(&self) {
        sync::lock(&self.heard).system = ComingUp::new(Shown::Here);
    }

    /// The guest's processor is about to run.
    pub(crate) fn begin(&self) {
        sync::lock(&self.heard).system.kernel();
    }

    /// The guest has ended. What its init had said last, if it is a system that was not ready.
    pub(crate) fn end(&self) -> Option<String> {
        sync::lock(&self.heard).system.end()
    }

    /// `place`, in front of which the line gives way: two threads would write there, and what is
    /// erased might be the guest's.
    pub(crate) fn before(&self, place: Box<dyn Write + Send>) -> Box<dyn Write + Send> {
        Box::new(After { progress: self.clone(), place })
    }

    /// Notifies this when the gate opens.
    pub(crate) fn notify_through(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    /// Has `then` done whenever the agent asks for its job.
    pub(crate) fn when_asked(&self, then: impl Fn() + Send + Sync + 'static) {
        let _ = self.asked.set(Box::new(then));
    }

    /// The command's status, once it has ended.
    pub(crate) fn status(&self) -> Option<u8> {
        sync::lock(&self.heard).status
    }

    /// What the agent has said of its service.
    pub(crate) fn service(&self) -> ServiceState {
        sync::lock(&self.heard).service.clone()
    }

    /// Why the guest's command could not run, as its agent says.
    pub(crate) fn trouble(&self) -> Option<String> {
        sync::lock(&self.heard).trouble.clone()
    }

    /// Takes what the guest says on the second line.
    fn hear(&self, bytes: &[u8]) {
        let mut heard = sync::lock(&self.heard);
        for report in heard.scanner.scan(bytes) {
            match report {
                Report::Status(status) => heard.status = Some(status),
                Report::Trouble(what) => {
                    heard.trouble.get_or_insert(what);
                }
                Report::Serving => heard.service = ServiceState::Listens,
                Report::NoService(why) => heard.service = ServiceState::Refused(why),
                Report::Asks => self.asked.get().into_iter().for_each(|then| then()),
                Report::Init => heard.system.init(),
                Report::Up(what) => heard.system.up(what),
                Report::Says(what) => heard.system.says(what),
                Report::Ready => {
                    heard.system.end();
                    self.gate.open();
                    if let Some(notifier) = self.notifier.get() {
                        notifier.notify();
                    }
                }
            }
        }
    }
}

/// Output that comes after the line.
struct After {
    progress: Progress,
    place: Box<dyn Write + Send>,
}

impl Write for After {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.progress.end();
        self.place.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.place.flush()
    }
}

/// A file for what a machine puts out, which is opened after the machine is made. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    /// For messages: `log`, `capture`.
    what: &'static str,
    file: Arc<OnceLock<File>>,
    lost: Arc<AtomicBool>,
}

impl Default for LogFile {
    fn default() -> Self {
        Self::of("log")
    }
}

impl LogFile {
    /// One for `what`.
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, file: Arc::default(), lost: Arc::default() }
    }

    /// From now on the output goes there.
    pub(crate) fn open(&self, file: File) {
        let _ = self.file.set(file);
    }

    /// Whether the file has refused something.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Writes `bytes`, as long as the file takes them.
    fn put(&self, bytes: &[u8]) {
        let Some(mut file) = self.file.get().filter(|_| !self.is_lost()) else { return };
        if let Err(error) = file.write_all(bytes) {
            self.lost.store(true, Ordering::SeqCst);
            let what = self.what;
            crate::terminal::tell(&format!("gemello: the {what} ends here: {error}\n"));
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the second serial line goes.
#[derive(Debug)]
pub(crate) struct Log {
    file: LogFile,
    progress: Option<Progress>,
}

impl Log {
    /// Into `file` once that is open; reports go to `progress`, if wanted.
    pub(crate) fn new(file: LogFile, progress: Option<Progress>) -> Self {
        Self { file, progress }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(progress) = &self.progress {
            progress.hear(bytes);
        }
        self.file.put(bytes);
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

/// Standard output, which is closed when this is dropped: its reader finds the end.
#[derive(Debug)]
pub(crate) struct Closing;

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Standard::Output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let _ = leave_standard_output();
    }
}

/// Closes standard output: its reader finds the end. Something stays there, so that no file that is
/// opened later becomes standard output.
///
/// # Errors
/// The host refuses.
pub(crate) fn leave_standard_output() -> io::Result<()> {
    let nothing = File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(nothing)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_writes_ends_the_line() {
        let progress = Progress::new(Gate::closed(), ProgressState::default());
        progress.hear(b"[  OK  ] Started a.\n");
        progress.before(Box::new(io::sink())).write_all(b"x").expect("a sink");
        progress.hear(b"[  OK  ] Started b.\n");
        assert_eq!(progress.end(), None);
    }
}
