//! `gemello run --detach`: the machines run in a process of a session of its own.
//!
//! The program starts itself again as `gemello detached WORDS`, and waits for the end of that
//! one's standard output: the names of the machines, once they run, or nothing, if it has failed
//! before. Until then both have one standard error. Later what gemello has to say goes to a file
//! beside the machine's socket, and so does the last of a machine's console when that has ended:
//! `gemello logs` shows it.

use crate::control::{self, Claim};
use crate::exit;
use crate::hosted::Hosted;
use crate::output;
use crate::place;
use crate::settings::name::MachineName;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

/// Runs `gemello WORDS` in a process that outlives this one, and tells what its machines are
/// called.
///
/// # Errors
/// There is no such process.
pub(crate) fn away(words: &[OsString]) -> Result<u8> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut child = Command::new(program)
        .arg("detached")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a process for what is detached")?;
    let mut names = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut names).context("cannot read the names of the machines")?;
    }
    if names.is_empty() {
        let status = child.wait().context("cannot wait for what is detached")?;
        return Ok(status.code().map_or(exit::FAILED, |code| code as u8));
    }
    print!("{names}");
    Ok(exit::OK)
}

/// Makes this process the one that is detached.
///
/// # Errors
/// The host refuses it a session of its own.
pub(crate) fn begin() -> Result<()> {
    rustix::process::setsid().context("cannot begin a session")?;
    place::detach();
    Ok(())
}

/// That the machine `name` can be reached by `claim`, if it is detached.
///
/// # Errors
/// It cannot: nobody would know of it.
pub(crate) fn check(name: &MachineName, claim: &Result<Claim>) -> Result<()> {
    match claim {
        Err(error) if place::is_detached() => bail!(
            "{name} could not be reached once it is detached: {error:#}; set XDG_RUNTIME_DIR to a \
             folder of yours alone, of a short name"
        ),
        _ => Ok(()),
    }
}

/// Tells who waits that these machines run now, and leaves its streams, if they are detached.
///
/// # Errors
/// Nobody waits any more, or there is no place for messages.
pub(crate) fn leave(machines: &[&MachineName]) -> Result<()> {
    let Some(first) = machines.first().filter(|_| place::is_detached()) else { return Ok(()) };
    let messages = control::log(first).context("cannot make a file for messages")?;
    let names: String = machines.iter().map(|name| format!("{name}\n")).collect();
    std::io::stdout().write_all(names.as_bytes()).context("nobody waits for the machines")?;
    rustix::stdio::dup2_stderr(messages).context("cannot leave standard error")?;
    output::leave_standard_output().context("cannot leave standard output")
}

/// Keeps the last of what a detached machine has put out, which has ended.
pub(crate) fn keep(machine: &Hosted) {
    if !place::is_detached() {
        return;
    }
    let recent = machine.side.console().0.recent();
    let kept = control::log(&machine.name).and_then(|mut file| Ok(file.write_all(&recent)?));
    if let Err(error) = kept {
        eprintln!("gemello: {}: its last output is not kept: {error:#}", machine.name);
    }
}
