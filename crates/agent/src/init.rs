//! Process 1: from the first instruction to power-off. Nothing here returns to the kernel, which
//! would panic.

use crate::service::Service;
use crate::{briefing, command, modules, mounts, network, role, root, system};
use agent_job::{BUS_DRIVERS, DRIVERS, Job, Root, Streams};
use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::system::{RebootCommand, reboot, sethostname};
use signal_hook::consts::{SIGTERM, SIGUSR1, SIGUSR2};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// How often, and after which time, a root that is still written is tried again: a journal has what
/// is needed where it stays so.
const REMOUNTS: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(2);

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
    modules::load(DRIVERS)?;
    if mounts::has_busybox() {
        mounts::own_root()?;
    }
    let bytes = briefing::job()?;
    let job = Job::decode(&bytes)?;
    hear_signals()?;
    let service = Service::prepare(&job.program);
    modules::load(BUS_DRIVERS)?;
    sethostname(job.host_name.as_bytes()).context("cannot set the host's name")?;
    if let Some(root) = &job.root {
        root::enter(root, &job.program)?;
    }
    let is_system = matches!(job.root, Some(Root::System(_)));
    if job.streams == Streams::Shell && !is_system {
        let net = job.net; // before the first word is typed
        thread::spawn(move || network::set_up(net));
    } else {
        network::set_up(job.net);
    }
    for folder in &job.folders {
        mounts::share(folder)?;
    }
    if is_system {
        return system::begin(&bytes, job.streams, &service);
    }
    command::run(&job, service)
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

/// The end of the machine. A disk that is the root is left as after an unmount: who might write is
/// ended before. What shared folders are told is the host's at once; to have the host write it to
/// its disks would take time, and is for who asks for that.
pub(crate) fn end(how: RebootCommand) -> ! {
    if fs::read_dir("/sys/block").is_ok_and(|mut disks| disks.next().is_some()) {
        role::end_others();
        rustix::fs::sync();
        // What is open for writing refuses it, until its process has ended.
        for _ in 0..REMOUNTS {
            match rustix::mount::mount_remount("/", MountFlags::RDONLY, "") {
                Err(Errno::BUSY) => thread::sleep(BETWEEN),
                _ => break,
            }
        }
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
