//! The hidden command `tethered`: becomes another program, which dies when its parent does.
//!
//! Machines under measurement must not outlive the measurement, not even if that is killed; and
//! what is to be said to the kernel about that (prctl(2), PR_SET_PDEATHSIG) the child has to say
//! itself.

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Becomes `words`, tied to `parent`.
///
/// # Errors
/// It cannot be started, or the parent has gone already.
pub(crate) fn tethered(parent: i32, words: &[String]) -> Result<u8> {
    let (program, arguments) = words.split_first().context("tethered to run nothing")?;
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie a process")?;
    if getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(parent) {
        bail!("the process to be tied to is gone");
    }
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {program}"))
}
