//! The command, or a shell: its streams, its process, its status.

use crate::lines::{Control, Terminal};
use crate::role;
use crate::session::Session;
use crate::streams::Ports;
use agent_job::{Errors, Job, Streams};
use anyhow::{Context as _, Result};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use rustix::system::uname;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

/// What a command has left running has so long to end by itself.
const GRACE: Duration = Duration::from_millis(200);

/// Runs the program of `job` to its end, and tells gemello of it.
pub(crate) fn run(job: &Job) -> Result<()> {
    match job.streams {
        Streams::Shell => shell(job),
        Streams::Terminal => on_terminal(job),
        Streams::Pipes => in_pipes(job),
    }
}

fn shell(job: &Job) -> Result<()> {
    let terminal = Terminal::open(job.window)?;
    let mut control = Control::open()?;
    control.hear()?;
    control.say("ready")?;
    let release = uname().release().to_string_lossy().into_owned();
    writeln!(&terminal, "Linux {release} on gemello. Ctrl-A h helps, exit ends.")?;
    let session = Session::on_terminal(&job.program, &terminal)?;
    wait_for(session.start(terminal.stream()?, terminal.stream()?, terminal.stream()?)?);
    Terminal::open(job.window).map(drop) // as it was before a program had it
}

fn on_terminal(job: &Job) -> Result<()> {
    let terminal = Terminal::open(job.window)?;
    let mut control = Control::open()?;
    control.hear()?;
    let mut ports = Ports::default();
    let errors = match job.errors {
        Errors::Apart => ports.carry_out("stderr", job.program.uid)?.into(),
        Errors::WithOutput => terminal.stream()?,
    };
    control.report("ready")?;
    let session = Session::on_terminal(&job.program, &terminal)?;
    let status = wait_for(session.start(terminal.stream()?, terminal.stream()?, errors)?);
    carried_out(ports);
    Terminal::open(job.window)?; // as it was before a program had it
    control.report(&format!("status {status}"))
}

fn in_pipes(job: &Job) -> Result<()> {
    let mut control = Control::open()?;
    let (mut ports, uid) = (Ports::default(), job.program.uid);
    let input = ports.carry_in("stdin", uid)?;
    let output = ports.carry_out("stdout", uid)?;
    let errors = match job.errors {
        Errors::Apart => ports.carry_out("stderr", uid)?,
        Errors::WithOutput => output.try_clone().context("cannot share a pipe")?,
    };
    control.hear()?;
    control.report("ready")?;
    let session = Session::without_terminal(&job.program);
    let status = wait_for(session.start(input.into(), output.into(), errors.into())?);
    carried_out(ports);
    control.report(&format!("status {status}"))
}

/// Waits for the program, and for whatever else has lost its parent meanwhile. Its status, as a
/// shell tells it.
fn wait_for(program: Pid) -> u8 {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => return code(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return 255, // no child at all: it cannot be
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let by_signal = |signal| 128 + signal;
    let code = status.exit_status().or_else(|| status.terminating_signal().map(by_signal));
    code.map_or(255, |code| code as u8)
}

/// Ends what the command has left behind and might still write, until all that was written has been
/// carried out, and the host has taken it.
fn carried_out(ports: Ports) {
    if ports.are_none() {
        return;
    }
    let done = thread::spawn(move || ports.finish());
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(2);
    while !done.is_finished() {
        thread::sleep(step);
        waited += step;
        if waited >= GRACE {
            waited = Duration::ZERO;
            role::end_others();
        }
    }
}
