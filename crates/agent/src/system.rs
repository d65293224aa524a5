//! A system that has a process 1 of its own, systemd: what it is given, and the change to it.
//!
//! What is ours is in `/run`, in memory, where systemd looks for units before it looks at its own;
//! nothing of it is on the disk.
//!
//! ```text
//! /run/gemello/agent, job      this program, and what it was told
//! /run/gemello/drivers         of the service's sockets
//! /run/systemd/system/         gemello-job.service     runs the command; its end is the machine's
//!                              gemello-agent.service   serves who comes from the host; started
//!                                                      when somebody does
//!                              emergency.service, rescue.service
//!                                                      say that the system did not come up
//!                              what need not be started, masked (`spared.rs`)
//! ```

use crate::lines::{CONTROL, Control};
use crate::service::Service;
use crate::{beside, command, init, modules, spared};
use agent_job::{Job, NO_SERVICE, Streams};
use anyhow::{Context as _, Result, bail};
use rustix::mount::mount_bind;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The system's own process 1.
const INIT: &str = "/sbin/init";

const AGENT: &str = "/run/gemello/agent";
const JOB: &str = "/run/gemello/job";
const DRIVERS: &str = "/run/gemello/drivers";
const UNITS: &str = "/run/systemd/system";
const CONFIGURATION: &str = "/run/systemd/system.conf.d";

/// Its process 1's own socket, which is there as soon as it hears anybody; and how often that is
/// looked for.
const MANAGER: &str = "/run/systemd/private";
const AGAIN: Duration = Duration::from_millis(20);

/// How often it is asked for the service, and after which time again.
const TIMES: u32 = 20;
const BETWEEN: Duration = Duration::from_secs(1);

/// The command; its end is the machine's. It begins when all is up that begins by itself. What it
/// leaves running has a second to end. Whatever ends for want of memory, the status is told.
const JOB_UNIT: &str = "\
[Unit]
Description=What gemello runs
After=multi-user.target
SuccessAction=poweroff
FailureAction=poweroff

[Service]
ExecStart=/run/gemello/agent job
TimeoutStopSec=1
SendSIGHUP=yes
TasksMax=infinity
OOMPolicy=continue
";

const AGENT_UNIT: &str = "\
[Unit]
Description=The way in from the host

[Service]
ExecStart=/run/gemello/agent serve
";

/// What becomes of each unit is said on the console: to gemello, rather than to the user.
const STATUS: &str = "[Manager]\nShowStatus=yes\n";

/// In place of a shell that nobody can see.
const FAILED_UNIT: &str = "\
[Unit]
Description=Tells gemello that the system did not come up
DefaultDependencies=no
FailureAction=poweroff-force
SuccessAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/run/gemello/agent failed
";

/// In place of a shell that would ask for a password, at a terminal that has one. It stays, as the
/// other would.
const STUCK_UNIT: &str = "\
[Unit]
Description=Tells the shell's user that the system did not come up
DefaultDependencies=no

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/run/gemello/agent failed
";

/// Who is let in is root, who can look and mend.
const STUCK: &str = "gemello: the system did not come up; `journalctl -b` tells why, \
                     `systemctl default` tries again";

/// Becomes the system's process 1. The root is the system's already; `job` is told again, to the
/// service, which has `streams`; the drivers of `service` are kept for it.
pub(crate) fn begin(job: &[u8], streams: Streams, service: &Service) -> Result<()> {
    if !Path::new(INIT).exists() {
        bail!(
            "the disk has no {INIT}: what is on it is no system; a folder or an image runs \
             without one"
        );
    }
    prepare(job, streams).context("cannot prepare the system")?;
    keep_drivers(service.drivers()).context("cannot keep the drivers of virtio sockets")?;
    mount_bind(CONTROL, "/dev/console").context("cannot have the console")?;
    Control::open()?.report("init")?;
    if streams == Streams::Shell {
        beside::start(AGENT)?;
    }
    Err(Command::new(INIT).env_clear().exec()).with_context(|| format!("cannot become {INIT}"))
}

fn prepare(job: &[u8], streams: Streams) -> Result<()> {
    fs::create_dir("/run/gemello")?;
    fs::copy("/proc/self/exe", AGENT)?;
    fs::write(JOB, job)?;
    fs::set_permissions(JOB, Permissions::from_mode(0o600))?; // variables may be secrets
    fs::create_dir_all(CONFIGURATION)?;
    fs::write(format!("{CONFIGURATION}/gemello.conf"), STATUS)?;
    let wanted = format!("{UNITS}/multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    fs::write(format!("{UNITS}/gemello-agent.service"), AGENT_UNIT)?;
    let failed = if streams == Streams::Shell {
        STUCK_UNIT
    } else {
        fs::write(format!("{UNITS}/gemello-job.service"), JOB_UNIT)?;
        symlink("../gemello-job.service", format!("{wanted}/gemello-job.service"))?;
        FAILED_UNIT
    };
    for name in ["emergency", "rescue"] {
        fs::write(format!("{UNITS}/{name}.service"), failed)?;
    }
    spared::spare().map_err(Into::into)
}

/// The service that runs the command.
pub(crate) fn job() -> Result<()> {
    told(|job| command::run(job, Service::Unit))
}

/// Has the job done; what fails, gemello is told.
pub(crate) fn told(run: impl FnOnce(&Job) -> Result<()>) -> Result<()> {
    let done = read().and_then(|job| run(&job));
    if let Err(error) = &done {
        Control::open()?.report(&format!("{error:#}"))?;
    }
    done
}

fn read() -> Result<Job> {
    let bytes = fs::read(JOB).with_context(|| format!("no {JOB}"))?;
    Ok(Job::decode(&bytes)?)
}

/// The service that says why there is no command; or that the shell is all there is.
pub(crate) fn failed() -> Result<()> {
    let (job, mut control) = (read()?, Control::open()?);
    if job.streams == Streams::Shell {
        control.report(&format!("{NO_SERVICE}the system did not come up; its shell is there"))?;
        return beside::tell(STUCK);
    }
    control.report("the system on the disk did not come up")
}

/// Whether the system's process 1 hears `systemctl`.
pub(crate) fn hears() -> bool {
    Path::new(MANAGER).exists()
}

/// Starts the service that serves who comes from the host, as soon as that can be asked for. A
/// process 1 that is slow lets `systemctl` wait in vain, and is asked again.
pub(crate) fn start_service() -> Result<()> {
    while !hears() {
        thread::sleep(AGAIN);
    }
    let ask = || init::helper("systemctl", &["--no-block", "start", "gemello-agent.service"]);
    for _ in 1..TIMES {
        if ask().is_ok() {
            return Ok(());
        }
        thread::sleep(BETWEEN);
    }
    ask()
}

/// In the order in which they are to be loaded.
fn keep_drivers(drivers: &[File]) -> io::Result<()> {
    fs::create_dir(DRIVERS)?;
    for (number, mut driver) in drivers.iter().enumerate() {
        io::copy(&mut driver, &mut File::create(format!("{DRIVERS}/{number:02}"))?)?;
    }
    Ok(())
}

/// Loads what was kept. What does not load may be there already, built in or by udev.
pub(crate) fn load_drivers() {
    for path in modules::listed(Path::new(DRIVERS)) {
        let _ = File::open(path).and_then(|file| modules::insert_file(&file));
    }
}
