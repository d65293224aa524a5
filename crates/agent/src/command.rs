//! The command, or a shell: its streams, its process, its status.

use crate::lines::{Control, Terminal};
use crate::role;
use crate::service::Service;
use crate::session::Session;
use crate::streams::Ports;
use agent_job::{Errors, Job, Streams};
use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use rustix::system::uname;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

/// What a command has left running has so long to end by itself.
const GRACE: Duration = Duration::from_millis(200);

/// The program's process, once it runs, and the signal that asks it to end, if it is asked rather
/// than the machine.
static PROGRAM: AtomicI32 = AtomicI32::new(0);
static STOP_SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Runs the program of `job` to its end, and tells gemello of it.
pub(crate) fn run(job: &Job, service: Service) -> Result<()> {
    STOP_SIGNAL.store(job.stop_signal.unwrap_or(0).into(), Ordering::SeqCst);
    match job.streams {
        Streams::Shell => shell(job, service),
        Streams::Terminal => on_terminal(job, service),
        Streams::Pipes => in_pipes(job, service),
    }
}

/// Has the program's signal ask it to end, once. False: it has none, or does not run.
pub(crate) fn ask_to_end() -> bool {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let program = Pid::from_raw(PROGRAM.load(Ordering::SeqCst));
    // What is no signal that has a name asks nobody.
    let signal = Signal::from_named_raw(STOP_SIGNAL.load(Ordering::SeqCst));
    let (Some(program), Some(signal)) = (program, signal) else { return false };
    if !ASKED.swap(true, Ordering::SeqCst) {
        let _ = kill_process(program, signal);
    }
    true
}

fn shell(job: &Job, service: Service) -> Result<()> {
    let terminal = Terminal::open(job.window)?;
    let mut control = Control::open()?;
    control.hear(service)?;
    control.report("ready")?;
    let release = uname().release().to_string_lossy().into_owned();
    writeln!(&terminal, "Linux {release} on gemello. Ctrl-A h helps, exit ends.")?;
    if role::runs_beside() {
        writeln!(&terminal, "systemd starts the system meanwhile.")?;
    }
    let session = Session::on_terminal(&job.program, &terminal)?;
    wait_for(session.start(terminal.stream()?, terminal.stream()?, terminal.stream()?)?);
    Terminal::open(job.window).map(drop) // as it was before a program had it
}

fn on_terminal(job: &Job, service: Service) -> Result<()> {
    let terminal = Terminal::open(job.window)?;
    let mut control = Control::open()?;
    control.hear(service)?;
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

fn in_pipes(job: &Job, service: Service) -> Result<()> {
    let mut control = Control::open()?;
    let (mut ports, uid) = (Ports::default(), job.program.uid);
    let input = ports.carry_in("stdin", uid)?;
    let output = ports.carry_out("stdout", uid)?;
    let errors = match job.errors {
        Errors::Apart => ports.carry_out("stderr", uid)?,
        Errors::WithOutput => output.try_clone().context("cannot share a pipe")?,
    };
    control.hear(service)?;
    control.report("ready")?;
    let session = Session::apart(&job.program);
    let status = wait_for(session.start(input.into(), output.into(), errors.into())?);
    carried_out(ports);
    control.report(&format!("status {status}"))
}

/// Waits for the program, and for whatever else has lost its parent meanwhile. Its status, as a
/// shell tells it.
fn wait_for(program: Pid) -> u8 {
    PROGRAM.store(program.as_raw_nonzero().get(), Ordering::SeqCst);
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
