//! What this process is. As process 1 it ends the machine itself. In a system that has a process 1
//! of its own it is a service, and systemd powers off when that has ended (`system.rs`); or it is
//! beside that, and asks it to (`beside.rs`).

use crate::{beside, command, init};
use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group};
use rustix::system::RebootCommand;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

static IS_BESIDE: AtomicBool = AtomicBool::new(false);

/// Says that it is neither process 1 nor a service.
pub(crate) fn be_beside() {
    IS_BESIDE.store(true, Ordering::SeqCst);
}

pub(crate) fn runs_beside() -> bool {
    IS_BESIDE.load(Ordering::SeqCst)
}

fn is_first() -> bool {
    getpid() == Pid::INIT
}

/// gemello asks for the end: the program's, where it has a signal for that, which ends the machine
/// with it; else the machine's, as soon as that can be.
pub(crate) fn asked_to_end() {
    if command::ask_to_end() {
        return;
    }
    if is_first() {
        init::end(RebootCommand::PowerOff);
    }
    if runs_beside() {
        beside::end();
    }
    std::process::exit(0);
}

/// Ends what the command has left running: every process but this one, or but this one of the
/// service's.
pub(crate) fn end_others() {
    if is_first() {
        let _ = kill_process_group(Pid::INIT, Signal::KILL); // to -1: all others
        return;
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let Some(group) = group.filter(|group| !group.is_empty()) else { return };
    let members = Path::new("/sys/fs/cgroup").join(group).join("cgroup.procs");
    let members = fs::read_to_string(members).unwrap_or_default();
    let members = members.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
    for other in members.filter(|&pid| pid != getpid()) {
        let _ = kill_process(other, Signal::KILL);
    }
}
