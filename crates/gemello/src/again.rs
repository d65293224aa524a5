//! Ctrl-A r: the machine begins anew.
//!
//! A reset has a thread of its own, so that the console is served meanwhile.

use crate::terminal;
use machine::MachineHandle;
use std::sync::{Arc, Mutex};

/// A machine that can be reset.
#[derive(Clone)]
struct Resettable {
    handle: MachineHandle,
    /// Called when it has been.
    then: Arc<dyn Fn() + Send + Sync>,
}

static MACHINE: Mutex<Option<Resettable>> = Mutex::new(None);

/// From now on [`request`] resets this machine, and calls `then` when it has.
pub(crate) fn arm(handle: MachineHandle, then: impl Fn() + Send + Sync + 'static) {
    *sync::lock(&MACHINE) = Some(Resettable { handle, then: Arc::new(then) });
}

/// Resets the machine, on another thread, and tells how it went.
pub(crate) fn request() {
    let machine = sync::lock(&MACHINE).clone();
    let Some(Resettable { handle, then }) = machine else {
        terminal::tell("\ngemello: the machine of a command is not reset; run the command again\n");
        return;
    };
    let work = move || match handle.reset() {
        Ok(()) => {
            then();
            terminal::tell("\ngemello: the machine begins anew\n");
        }
        Err(error) => terminal::tell(&format!("\ngemello: {error}\n")),
    };
    if std::thread::Builder::new().name("reset".into()).spawn(work).is_err() {
        terminal::tell("\ngemello: cannot reset the machine: the host refuses a thread\n");
    }
}
