//! The program's own process, up to where it becomes the program.
//!
//! Process 1 starts this file again, and it does what must be done in the new process: a session,
//! the terminal, the user, the working directory. So no code runs between fork and exec.

use crate::lines::Terminal;
use crate::people::User;
use crate::serve::Usual;
use agent_job::Program;
use anyhow::{Context as _, Result};
use rustix::fs::Mode;
use rustix::process::{Gid, Pid, Uid, ioctl_tiocsctty, setsid, umask};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

/// The group that terminals belong to, as on most systems.
pub(crate) const TTY_GROUP: u32 = 5;

/// As a shell says: it is there and cannot be run, or is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// A program that is about to be started.
pub(crate) struct Session<'a> {
    program: &'a Program,
    /// Whether its input becomes its terminal.
    terminal: &'static str,
}

impl<'a> Session<'a> {
    /// With its terminal, which becomes its user's.
    pub(crate) fn on_terminal(program: &'a Program, terminal: &Terminal) -> Result<Self> {
        terminal.give_to(program.uid)?;
        Ok(Self { program, terminal: "terminal" })
    }

    /// With its input as its terminal, which is its user's already.
    pub(crate) fn with_terminal(program: &'a Program) -> Self {
        Self { program, terminal: "terminal" }
    }

    /// Without a terminal.
    pub(crate) fn apart(program: &'a Program) -> Self {
        Self { program, terminal: "none" }
    }

    /// Starts it.
    pub(crate) fn start(self, input: Stdio, output: Stdio, errors: Stdio) -> Result<Pid> {
        self.spawn([input, output, errors]).map(|child| Pid::from_child(&child))
    }

    /// Starts it, with standard input, output and error.
    pub(crate) fn spawn(self, [input, output, errors]: [Stdio; 3]) -> Result<Child> {
        let mut command = as_program(self.program, &["session", self.terminal]);
        command.args(&self.program.words);
        let child = command.stdin(input).stdout(output).stderr(errors).spawn();
        child.context("cannot start the program's process")
    }

    /// Starts the service, whose commands are as `program` is.
    pub(crate) fn serve(program: &Program) -> Result<()> {
        let mut command = as_program(program, &["serve"]);
        let null = || Stdio::null();
        command.stdin(null()).stdout(null()).stderr(null()).spawn()?;
        Ok(())
    }
}

/// This file again, with the words `what`, and those that tell as whom and where `program` runs; in
/// its environment.
fn as_program(program: &Program, what: &[&str]) -> Command {
    let Program { words: _, environment, folder, uid, gid, groups, umask } = program;
    let groups: Vec<_> = groups.iter().map(u32::to_string).collect();
    let mut command = Command::new("/proc/self/exe");
    command.args(what).args([uid, gid, umask].map(u32::to_string)).arg(groups.join(","));
    command.arg(folder).env_clear();
    for variable in environment {
        let (name, value) = split(variable);
        command.env(name, value);
    }
    command
}

/// How a program has ended, as a shell tells it.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let by_signal = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(by_signal).map_or(255, |code| code as u8)
}

/// What the words after `serve` say, or those of none: root's, in his folder.
pub(crate) fn usual(words: &[OsString]) -> Result<Usual> {
    let [uid, gid, umask, groups, folder] = words else {
        let user = User::find("root").unwrap_or_default();
        let folder = if Path::new(&user.home).is_dir() { user.home.clone() } else { "/".into() };
        return Ok(Usual { user, umask: 0o22, folder: folder.into() });
    };
    let groups = numbers(groups)?;
    let user = User { uid: number(uid)?, gid: number(gid)?, groups, ..User::default() };
    Ok(Usual { user, umask: number(umask)?, folder: folder.into() })
}

fn number(word: &OsStr) -> Result<u32> {
    word.to_string_lossy().parse().context("no number")
}

fn numbers(words: &OsStr) -> Result<Vec<u32>> {
    let words = words.to_string_lossy();
    words.split(',').filter(|word| !word.is_empty()).map(|word| number(word.as_ref())).collect()
}

fn split(variable: &OsStr) -> (&OsStr, &OsStr) {
    let bytes = variable.as_bytes();
    let end = bytes.iter().skip(1).position(|&byte| byte == b'=').map(|at| at + 1);
    let end = end.unwrap_or(bytes.len());
    (OsStr::from_bytes(&bytes[..end]), OsStr::from_bytes(bytes.get(end + 1..).unwrap_or_default()))
}

/// `session TERMINAL UID GID UMASK GROUPS FOLDER WORD...`: becomes the program.
pub(crate) fn become_program(words: &[OsString]) -> ExitCode {
    let [terminal, uid, gid, umask, groups, folder, program, arguments @ ..] = words else {
        eprintln!("agent: `session` is for process 1");
        return ExitCode::FAILURE;
    };
    if let Err(error) = prepare(terminal, [uid, gid, umask], groups, folder) {
        eprintln!("gemello: {error:#}");
        return ExitCode::from(CANNOT_RUN);
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("gemello: cannot run '{}' in the guest: {error}", program.display());
    let missing = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    ExitCode::from(if missing { NOT_FOUND } else { CANNOT_RUN })
}

fn prepare(terminal: &OsStr, ids: [&OsString; 3], groups: &OsStr, folder: &OsStr) -> Result<()> {
    let [uid, gid, mask] = [number(ids[0])?, number(ids[1])?, number(ids[2])?];
    let groups: Vec<_> = numbers(groups)?.into_iter().map(Gid::from_raw).collect();
    setsid().context("cannot begin a session")?;
    if terminal == "terminal" {
        ioctl_tiocsctty(rustix::stdio::stdin()).context("cannot have the terminal")?;
    }
    set_thread_groups(&groups).context("cannot set the groups")?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(gid, gid, gid).context("cannot become the group")?;
    set_thread_res_uid(uid, uid, uid).context("cannot become the user")?;
    umask(Mode::from_raw_mode(mask));
    std::env::set_current_dir(folder)
        .with_context(|| format!("the guest has no folder {} to work in", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_split_at_its_first_equals_sign() {
        for (variable, name, value) in
            [("A=b=c", "A", "b=c"), ("A=", "A", ""), ("=x=y", "=x", "y"), ("A", "A", "")]
        {
            assert_eq!(split(variable.as_ref()), (name.as_ref(), value.as_ref()), "{variable}");
        }
    }
}
