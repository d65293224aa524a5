//! Ctrl-A r: a machine begins anew.
//!
//! A reset has a thread of its own, so that the console is served meanwhile.

use crate::terminal;
use machine::MachineHandle;
use std::sync::Arc;

/// A machine that can be reset.
#[derive(Clone)]
pub(crate) struct Resettable {
    handle: MachineHandle,
    /// Called when it has been.
    then: Arc<dyn Fn() + Send + Sync>,
}

impl Resettable {
    /// Resets the machine of `handle`, and calls `then` when it has.
    pub(crate) fn new(handle: MachineHandle, then: impl Fn() + Send + Sync + 'static) -> Self {
        Self { handle, then: Arc::new(then) }
    }

    /// Resets the machine, on another thread, and tells how it went.
    pub(crate) fn request(&self) {
        let Self { handle, then } = self.clone();
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
}
