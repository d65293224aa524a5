//! What the device wants of the thread that has its backend, and what that has saved.

use ::net::{Backend, BackendState};
use std::sync::Mutex;
use sync::lock;

/// See the module. The lock is a leaf, held for moments.
#[derive(Debug, Default)]
pub(super) struct Orders(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The driver has begun anew: what is open is to be forgotten.
    reset: bool,
    /// The guest was saved with this.
    restore: Option<BackendState>,
    /// As it was when the queues were last left alone.
    saved: BackendState,
}

impl Orders {
    /// Nothing of before counts.
    pub(super) fn reset(&self) {
        *lock(&self.0) = State { reset: true, ..State::default() };
    }

    /// The guest has this state, also if it is saved before the thread has come to it.
    pub(super) fn restore(&self, state: BackendState) {
        let mut own = lock(&self.0);
        own.saved.clone_from(&state);
        own.restore = Some(state);
    }

    pub(super) fn saved(&self) -> BackendState {
        lock(&self.0).saved.clone()
    }

    /// The thread does what is wanted.
    pub(super) fn obey(&self, backend: &mut dyn Backend) {
        let (reset, restore) = {
            let mut own = lock(&self.0);
            (std::mem::take(&mut own.reset), own.restore.take())
        };
        if reset {
            backend.reset();
        }
        if let Some(state) = restore {
            backend.restore(state);
        }
    }

    /// The thread leaves the queues alone.
    pub(super) fn leave(&self, backend: &dyn Backend) {
        let mut own = lock(&self.0);
        if own.restore.is_none() && !own.reset {
            own.saved = backend.save();
        }
    }
}
