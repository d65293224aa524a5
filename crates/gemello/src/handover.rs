//! Giving the user's terminal back after a guest had it: its modes as a shell expects them, and no
//! answer to a guest's query left in its input, which the shell would take for typed.
//!
//! A guest can ask the terminal for things that it answers as if they were typed, and end before
//! the answer comes. So the terminal is asked for its status as the last thing: it answers in
//! order, so what comes up to that answer is dropped. A terminal that never answers is waited for
//! [`QUIET`].
//!
//! No allocation: this runs also when memory has run out.

use crate::screen::Screen;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use rustix::fs::fstat;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, isatty, tcgetattr, tcgetpgrp, tcsetattr};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::{Duration, Instant};

/// An answer may take this long to come, over whatever line.
const LATE: Duration = Duration::from_secs(5);
/// For this long nothing comes from a terminal that has answered all it will.
const QUIET: Duration = Duration::from_millis(500);
/// No answers are read for longer.
const LONGEST: Duration = Duration::from_secs(3);
/// A terminal that takes nothing for this long is left as it is.
const STUCK: Duration = Duration::from_millis(200);
/// A lock or a write of the guest's output is waited for so long: it takes microseconds.
const SHORTLY: Duration = Duration::from_millis(100);

/// Asks for the status (DSR).
const STATUS: &[u8] = b"\x1b[5n";
/// The answer.
const WELL: &[u8] = b"\x1b[0n";

/// What the guest's output has made of a terminal that it goes to.
#[derive(Debug)]
pub(crate) struct Shown {
    screen: Mutex<Screen>,
    is_terminal: OnceLock<bool>,
    writing: AtomicBool,
    /// The terminal is the user's again.
    closed: AtomicBool,
}

/// For standard output.
pub(crate) static OUTPUT: Shown = Shown::new();
/// For standard error.
pub(crate) static ERROR: Shown = Shown::new();

/// How many answers to status queries have come in as the guest's input.
static ANSWERED: AtomicU32 = AtomicU32::new(0);

impl Shown {
    const fn new() -> Self {
        Self {
            screen: Mutex::new(Screen::new()),
            is_terminal: OnceLock::new(),
            writing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Writes some of `bytes` to `place` with `write`. Once the terminal there has been given back,
    /// they are dropped.
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn write(
        &self,
        place: BorrowedFd<'_>,
        bytes: &[u8],
        write: impl Fn(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !*self.is_terminal.get_or_init(|| isatty(place)) {
            return write(bytes);
        }
        self.writing.store(true, Ordering::SeqCst);
        let closed = self.closed.load(Ordering::SeqCst);
        let written = if closed { Ok(bytes.len()) } else { write(bytes) };
        if let Ok(count) = &written {
            let mut screen = sync::lock(&self.screen);
            screen.see(bytes.get(..*count).unwrap_or_default());
        }
        self.writing.store(false, Ordering::SeqCst);
        written
    }

    /// Lets no more through, and gives what there was. `None` where it cannot be had: a panic may
    /// come while its own thread holds it.
    fn close(&self) -> Option<Screen> {
        self.closed.store(true, Ordering::SeqCst);
        let until = Instant::now() + SHORTLY;
        while self.writing.load(Ordering::SeqCst) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        loop {
            match self.screen.try_lock() {
                Ok(mut screen) => return Some(taken(&mut screen)),
                Err(TryLockError::Poisoned(poisoned)) => {
                    return Some(taken(&mut poisoned.into_inner()));
                }
                Err(TryLockError::WouldBlock) if Instant::now() > until => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

fn taken(screen: &mut MutexGuard<'_, Screen>) -> Screen {
    std::mem::replace(screen, Screen::new())
}

/// `bytes` have come from the user's terminal, and are the guest's.
pub(crate) fn hear(matcher: &mut Answers, bytes: &[u8]) {
    ANSWERED.fetch_add(matcher.count(bytes), Ordering::SeqCst);
}

/// Gives back each terminal that the guest's output went to. Safe to call at any time, from any
/// thread, more than once.
pub(crate) fn give_back() {
    for (shown, place) in [(&OUTPUT, stdout()), (&ERROR, stderr())] {
        if shown.is_terminal.get() != Some(&true) {
            continue;
        }
        let Some(screen) = shown.close() else { continue };
        let mut taking = true;
        screen.undo(|text| taking = taking && write_soon(place, text.as_bytes()));
        let is_input = is_one(stdin(), place);
        // Where nobody reads the answers, they are there however old they are.
        let open = |asked: Instant| !is_input || asked.elapsed() < LATE;
        if taking && screen.asked().is_some_and(open) {
            let heard = if is_input { ANSWERED.load(Ordering::SeqCst) } else { 0 };
            drain(place, screen.status_asked().saturating_sub(heard).saturating_add(1));
        }
    }
}

/// Whether both are one terminal.
fn is_one(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    let device = |fd| fstat(fd).ok().map(|stat| stat.st_rdev);
    isatty(a) && isatty(b) && device(a) == device(b)
}

/// Asks `place` for its status, and drops what comes from it up to the answer; `count` answers of
/// that kind are to come.
fn drain(place: BorrowedFd<'_>, count: u32) {
    let input = if is_one(stdin(), place) { stdin() } else { place };
    // A job in the background would be stopped.
    if !tcgetpgrp(input).is_ok_and(|group| group == rustix::process::getpgrp()) {
        return;
    }
    let Ok(before) = tcgetattr(input) else { return };
    let mut raw = before.clone();
    raw.make_raw();
    if tcsetattr(input, OptionalActions::Now, &raw).is_err() {
        return;
    }
    let answered = write_soon(place, STATUS) && read_answers(input, count);
    let after = if answered { OptionalActions::Now } else { OptionalActions::Flush };
    let _ = tcsetattr(input, after, &before);
}

/// Reads until `count` answers to status queries have come; false if they do not.
fn read_answers(input: BorrowedFd<'_>, mut count: u32) -> bool {
    let until = Instant::now() + LONGEST;
    let mut answers = Answers::default();
    let mut buffer = [0; 256];
    while count > 0 && Instant::now() < until {
        if !ready(input, PollFlags::IN, QUIET) {
            return false;
        }
        let Ok(length @ 1..) = rustix::io::read(input, &mut buffer) else { return false };
        count = count.saturating_sub(answers.count(buffer.get(..length).unwrap_or_default()));
    }
    count == 0
}

/// Writes `bytes`, if the terminal takes them.
fn write_soon(place: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        if !ready(place, PollFlags::OUT, STUCK) {
            return false;
        }
        let Ok(length @ 1..) = rustix::io::write(place, bytes) else { return false };
        bytes = bytes.get(length..).unwrap_or_default();
    }
    true
}

fn ready(place: BorrowedFd<'_>, what: PollFlags, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    let mut fds = [PollFd::from_borrowed_fd(place, what)];
    poll(&mut fds, Some(&limit)).is_ok_and(|count| count > 0)
}

/// Finds answers to status queries in a terminal's input.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    matched: usize,
}

impl Answers {
    /// How many end in `bytes`.
    fn count(&mut self, bytes: &[u8]) -> u32 {
        let mut count = 0;
        for byte in bytes {
            self.matched = match WELL.get(self.matched) {
                Some(expected) if expected == byte => self.matched + 1,
                _ => usize::from(WELL.first() == Some(byte)),
            };
            if self.matched == WELL.len() {
                count += 1;
                self.matched = 0;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_wherever_they_are_cut() {
        let input = b"ls\x1b[24;80R\x1b[0n\x1b[\x1b[0n\x1b\x1b[0n\x1b[0\x1b[?0n0n";
        let mut answers = Answers::default();
        assert_eq!(answers.count(input), 3);
        let mut pieces = Answers::default();
        assert_eq!(input.chunks(1).map(|piece| pieces.count(piece)).sum::<u32>(), 3);
    }
}
