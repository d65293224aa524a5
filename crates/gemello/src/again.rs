//! Ctrl-A r: the machine begins anew.
//!
//! A reset has a thread of its own, so that the console is served meanwhile.

use crate::terminal;
use machine::MachineHandle;
use std::sync::Mutex;

static MACHINE: Mutex<Option<MachineHandle>> = Mutex::new(None);

/// From now on [`request`] resets this machine.
pub(crate) fn arm(handle: MachineHandle) {
    *sync::lock(&MACHINE) = Some(handle);
}

/// Resets the machine, on another thread, and tells how it went.
pub(crate) fn request() {
    let machine = sync::lock(&MACHINE).clone();
    let Some(machine) = machine else {
        terminal::tell("\ngemello: the machine of a command is not reset; run the command again\n");
        return;
    };
    let work = move || match machine.reset() {
        Ok(()) => terminal::tell("\ngemello: the machine begins anew\n"),
        Err(error) => terminal::tell(&format!("\ngemello: {error}\n")),
    };
    if std::thread::Builder::new().name("reset".into()).spawn(work).is_err() {
        terminal::tell("\ngemello: cannot reset the machine: the host refuses a thread\n");
    }
}
