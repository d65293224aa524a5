//! A system's shell: beside the system's own process 1 rather than below it, so that who sits at
//! the terminal does not wait for fifty units. systemd finds it running, and leaves it so until it
//! powers off. Its end is the machine's.

use crate::lines::Terminal;
use crate::service::Service;
use crate::{command, init, role, system};
use anyhow::{Context as _, Result};
use rustix::system::RebootCommand;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// How often, and after which time, a system is asked for its end that does not take it.
const TIMES: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(100);

/// Starts this, of the file `agent`; for who is about to become the system's process 1.
pub(crate) fn start(agent: &str) -> Result<()> {
    let mut shell = Command::new(agent);
    shell.arg("shell").env_clear();
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().map(drop).context("cannot start the shell's process")
}

/// The shell, to its end, which is the machine's.
pub(crate) fn shell() -> ! {
    role::be_beside();
    let _ = system::told(|job| command::run(job, Service::Unit));
    end()
}

/// Tells who sits at the terminal.
pub(crate) fn tell(what: &str) -> Result<()> {
    writeln!(&Terminal::share()?, "\n{what}").context("cannot write to the terminal")
}

/// Has the system power off, as its own `poweroff` would. One that hears nobody yet has started
/// nothing, so there is nothing to wait for.
pub(crate) fn end() -> ! {
    let target = ["--no-block", "--job-mode=replace-irreversibly", "start", "poweroff.target"];
    for _ in 0..TIMES {
        if !system::hears() {
            break;
        }
        if init::helper("systemctl", &target).is_ok() {
            loop {
                thread::park(); // the system ends this process, too
            }
        }
        thread::sleep(BETWEEN);
    }
    init::end(RebootCommand::PowerOff)
}
