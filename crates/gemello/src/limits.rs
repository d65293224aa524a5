//! What to do about a limit that the user's shell has set (`ulimit`).

use rustix::io::Errno;
use std::io::Error;

/// Which limit to raise where `error` comes from one.
pub(crate) fn advice(error: &Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some("raise the limit of open files (ulimit -n)"),
        Errno::FBIG => Some("raise the limit of a file's size (ulimit -f)"),
        Errno::NOMEM => Some("raise the limit of address space (ulimit -v)"),
        Errno::AGAIN => Some("raise the limits of processes and address space (ulimit -u, -v)"),
        _ => None,
    }
}

/// `; ` and the advice, or nothing.
pub(crate) fn and_advice(error: &Error) -> String {
    advice(error).map(|advice| format!("; {advice}")).unwrap_or_default()
}
