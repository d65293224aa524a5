//! Printing that cannot end the program.
//!
//! The macros have the names of the standard library's, which panic where the host refuses a write.
//! This module comes first in the crate, so they stand in for those everywhere. What standard error
//! refuses is lost: there is nowhere to say so. What standard output refuses is remembered, and
//! [`finish`] makes it the exit status.

use crate::exit;
use std::fmt;
use std::io::{self, Write as _};
use std::sync::Mutex;

/// As the standard library's, but never panics.
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::say::error(format_args!("{}\n", format_args!($($words)*))) };
}

/// As the standard library's, but never panics.
macro_rules! eprint {
    ($($words:tt)*) => { $crate::say::error(format_args!($($words)*)) };
}

/// As the standard library's, but never panics.
macro_rules! println {
    () => { $crate::say::output(format_args!("\n")) };
    ($($words:tt)*) => { $crate::say::output(format_args!("{}\n", format_args!($($words)*))) };
}

/// As the standard library's, but never panics.
macro_rules! print {
    ($($words:tt)*) => { $crate::say::output(format_args!($($words)*)) };
}

/// Why standard output took no more.
static REFUSED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints on standard error, as far as it takes it.
pub(crate) fn error(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// Prints on standard output; after the first refusal nothing.
pub(crate) fn output(text: fmt::Arguments<'_>) {
    let mut refused = sync::lock(&REFUSED);
    if refused.is_none() {
        *refused = io::stdout().write_fmt(text).err();
    }
}

/// Writes out what standard output still holds. The exit status if not all of it could be written.
pub(crate) fn finish() -> Option<u8> {
    let mut refused = sync::lock(&REFUSED);
    let error = refused.take().or_else(|| io::stdout().flush().err())?;
    drop(refused);
    Some(lost(&error))
}

/// The exit status for output that failed by `error`, which is told unless the reader has just
/// gone.
pub(crate) fn lost(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return exit::OUTPUT_CLOSED;
    }
    eprintln!("gemello: cannot write to standard output: {error}");
    exit::FAILED
}
