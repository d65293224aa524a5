//! The user's terminal: raw while a guest has it, restored whatever happens.
//!
//! The saved attributes live in one static, so that every way out (return, panic, signal) can
//! restore them. What the guest did to the screen is `handover.rs`'s.

use crate::{exit, handover};
use rustix::fs::fstat;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};
use std::sync::Mutex;

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether standard input is a terminal that we may use: not one whose foreground belongs to
/// another job.
pub(crate) fn input_is_terminal() -> bool {
    isatty(stdin()) && tcgetpgrp(stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Whether standard output is a terminal.
pub(crate) fn output_is_terminal() -> bool {
    isatty(stdout())
}

/// Whether standard error is a terminal.
pub(crate) fn error_is_terminal() -> bool {
    isatty(stderr())
}

/// Whether standard output and error are one file: `2>&1`.
pub(crate) fn output_is_error() -> bool {
    let file = |fd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((file(stdout()), file(stderr())), (Ok(output), Ok(error)) if output == error)
}

/// Rows and columns of the user's terminal, else 24 and 80.
pub(crate) fn window() -> (u16, u16) {
    let sizes = [tcgetwinsize(stdout()), tcgetwinsize(stdin()), tcgetwinsize(stderr())];
    let known = sizes.into_iter().flatten().find(|size| size.ws_row > 0 && size.ws_col > 0);
    known.map_or((24, 80), |size| (size.ws_row, size.ws_col))
}

/// Standard input's terminal in raw mode, until dropped or [`restore`]d.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Every key goes to the guest from now on, Ctrl-C included.
    ///
    /// # Errors
    /// The terminal refuses.
    pub(crate) fn enter() -> std::io::Result<Self> {
        let saved = tcgetattr(stdin())?;
        *sync::lock(&SAVED) = Some(saved);
        again()?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal raw once more, if it is ours: after a stop, the shell has restored it.
///
/// # Errors
/// The terminal refuses.
pub(crate) fn again() -> std::io::Result<()> {
    let saved = sync::lock(&SAVED);
    if let Some(saved) = saved.as_ref() {
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
    }
    Ok(())
}

/// Gives the terminal back as it was. Safe to call at any time, from any thread, more than once.
pub(crate) fn restore() {
    // Still raw: answers that come meanwhile are not echoed.
    handover::give_back();
    // try_lock: a panic may come while this thread holds the lock.
    let mut saved = match SAVED.try_lock() {
        Ok(saved) => saved,
        Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(std::sync::TryLockError::WouldBlock) => return,
    };
    if let Some(saved) = saved.take() {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &saved);
    }
}

/// A panic in work for one machine prints its message, and is that machine's end. A panic in any
/// other thread restores the terminal, prints its message and ends the program with a status:
/// nobody should have to look for what a signal means.
pub(crate) fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if host::Owner::current().is_some() {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            tell(&format!("gemello: thread {name}: {info}; please report this as a defect\n"));
            return;
        }
        restore();
        // The standard library, in a thread that begins.
        let words = info.payload_as_str().unwrap_or_default();
        if words.contains("alternative stack") {
            eprintln!("gemello: the host refuses memory for a thread; raise its limit (ulimit -v)");
        } else {
            report(info);
            eprintln!("gemello: this is a defect of gemello; please report it with these lines");
        }
        host::leave(exit::FAILED.into());
    }));
}

/// Prints `text` on standard error, also while the terminal is raw.
pub(crate) fn tell(text: &str) {
    let text = text.replace('\n', "\r\n");
    let mut bytes = text.as_bytes();
    while let Ok(written @ 1..) = rustix::io::write(stderr(), bytes) {
        bytes = bytes.get(written..).unwrap_or_default();
    }
}
