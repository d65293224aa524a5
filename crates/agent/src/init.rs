//! Process 1: from the first instruction to power-off. Nothing here returns to the kernel, which
//! would panic.

use crate::lines::{Control, Terminal};
use crate::service::Service;
use crate::session::Session;
use crate::streams::Ports;
use crate::{modules, mounts, network, root};
use agent_job::{JOB, Job, Streams};
use anyhow::{Context as _, Result};
use rustix::mount::MountFlags;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait,
};
use rustix::system::{RebootCommand, reboot, sethostname, uname};
use signal_hook::consts::{SIGTERM, SIGUSR1, SIGUSR2};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

/// What a command has left running has so long to end by itself.
const GRACE: Duration = Duration::from_millis(200);

/// The program's process, once it runs, and the signal that asks it to end, if it is asked rather
/// than the machine.
static PROGRAM: AtomicI32 = AtomicI32::new(0);
static STOP_SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Process 1.
pub(crate) fn run() -> ! {
    if let Err(error) = live() {
        eprintln!("{}{error:#}", agent_job::REPORT);
    }
    end(RebootCommand::PowerOff)
}

/// Everything up to power-off.
fn live() -> Result<()> {
    mounts::system()?;
    let bytes = fs::read(Path::new("/").join(JOB)).with_context(|| format!("no /{JOB}"))?;
    let job = Job::decode(&bytes)?;
    drop(bytes);
    hear_signals()?;
    let service = Service::prepare(&job.program);
    STOP_SIGNAL.store(job.stop_signal.unwrap_or(0).into(), Ordering::SeqCst);
    modules::load()?;
    sethostname(job.host_name.as_bytes()).context("cannot set the host's name")?;
    match &job.root {
        Some(root) => root::enter(root, &job.program)?,
        None => mounts::own_root()?,
    }
    if job.streams == Streams::Shell {
        let net = job.net; // before the first word is typed
        thread::spawn(move || network::set_up(net));
    } else {
        network::set_up(job.net);
    }
    for folder in &job.folders {
        mounts::share(folder)?;
    }
    match job.streams {
        Streams::Shell => shell(&job, service),
        Streams::Terminal => on_terminal(&job, service),
        Streams::Pipes => in_pipes(&job, service),
    }
}

fn shell(job: &Job, service: Service) -> Result<()> {
    let terminal = Terminal::open(job.window)?;
    let mut control = Control::open()?;
    control.hear(service)?;
    control.say("ready")?;
    let release = uname().release().to_string_lossy().into_owned();
    writeln!(&terminal, "Linux {release} on gemello. Ctrl-A h helps, exit ends.")?;
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
        agent_job::Errors::Apart => ports.carry_out("stderr", job.program.uid)?.into(),
        agent_job::Errors::WithOutput => terminal.stream()?,
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
        agent_job::Errors::Apart => ports.carry_out("stderr", uid)?,
        agent_job::Errors::WithOutput => output.try_clone().context("cannot share a pipe")?,
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
            // To -1: every process but this one.
            let _ = kill_process_group(Pid::INIT, Signal::KILL);
        }
    }
}

/// By these signals busybox's and others' poweroff, halt and reboot speak to process 1.
fn hear_signals() -> Result<()> {
    let signals = signal_hook::iterator::Signals::new([SIGUSR1, SIGUSR2, SIGTERM]);
    let mut signals = signals.context("cannot handle signals")?;
    thread::spawn(move || {
        let first = signals.forever().next();
        end(match first {
            Some(SIGTERM) => RebootCommand::Restart,
            _ => RebootCommand::PowerOff,
        });
    });
    Ok(())
}

/// gemello asks for the end: the program ends the machine with it, where it has a signal for that,
/// which it gets once; else the machine ends.
pub(crate) fn asked_to_end() {
    let signal = STOP_SIGNAL.load(Ordering::SeqCst);
    let program = Pid::from_raw(PROGRAM.load(Ordering::SeqCst));
    let (Some(program), true) = (program, signal != 0) else { end(RebootCommand::PowerOff) };
    static ASKED: AtomicBool = AtomicBool::new(false);
    // What is no signal that has a name asks nobody, and ends the machine.
    let Some(signal) = Signal::from_named_raw(signal) else { end(RebootCommand::PowerOff) };
    if !ASKED.swap(true, Ordering::SeqCst) {
        let _ = kill_process(program, signal);
    }
}

/// The end of the machine. A disk that is the root is left as after an unmount, if nobody writes
/// any more; else its journal has what is needed. What shared folders are told is the host's at
/// once; to have the host write it to its disks would take time, and is for who asks for that.
pub(crate) fn end(how: RebootCommand) -> ! {
    if fs::read_dir("/sys/block").is_ok_and(|mut disks| disks.next().is_some()) {
        rustix::fs::sync();
        let _ = rustix::mount::mount_remount("/", MountFlags::RDONLY, "");
    }
    let _ = reboot(how);
    loop {
        thread::park(); // the kernel refuses: gemello's user ends it
    }
}

/// Runs a program of the initial file system to its end.
pub(crate) fn helper(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}
