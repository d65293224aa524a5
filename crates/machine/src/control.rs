//! The lifecycle of a machine, and the requests that any thread may make while it runs.
//!
//! ```text
//!   Created ──run──► Running ◄──pause, resume──► Paused ──► Ended
//! ```
//! Processors come to rest between two turns ([`Control::enter`]): while another thread needs them
//! to stand still for a moment ([`Control::at_rest`]), and as long as the machine is paused. The
//! thread that asks kicks them; a kick wakes a parked processor.
//!
//! Thread-safe. The lock is a leaf, but for the conditions waited for under it.

use crate::end::End;
use crate::notifier::Notifier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use vcpu::{Kick, Signals};

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Built, and not run yet.
    Created,
    /// It runs.
    Running,
    /// It stands still, time included, until it is resumed.
    Paused,
    /// It has ended.
    Ended,
}

/// What processors and askers share.
#[derive(Debug)]
pub(crate) struct Control {
    state: Mutex<State>,
    changed: Condvar,
    /// There is something to look at under the lock before the next turn.
    attention: AtomicBool,
    signals: Vec<Arc<Signals>>,
    notifier: Notifier,
}

#[derive(Debug, Default)]
struct State {
    end: Option<End>,
    begun: bool,
    paused: bool,
    /// Threads that need the processors to stand still for a moment.
    holds: usize,
    /// Threads that run processors, and those of them that are at rest.
    driving: usize,
    resting: usize,
}

impl State {
    fn stands(&self) -> bool {
        self.paused || self.holds > 0
    }
}

impl Control {
    pub(crate) fn new(signals: Vec<Arc<Signals>>, notifier: Notifier) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            attention: AtomicBool::new(false),
            signals,
            notifier,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        sync::wait(&self.changed, state)
    }

    fn kick(&self, why: Kick) {
        self.signals.iter().for_each(|signals| signals.kick(why));
    }

    /// Where the machine is.
    pub(crate) fn phase(&self) -> Phase {
        let state = self.lock();
        match &*state {
            State { end: Some(_), .. } => Phase::Ended,
            State { paused: true, .. } => Phase::Paused,
            State { begun: true, .. } => Phase::Running,
            _ => Phase::Created,
        }
    }

    /// Ends the machine for this reason, unless it has ended already.
    pub(crate) fn stop(&self, end: End) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        self.attention.store(true, Ordering::SeqCst);
        self.changed.notify_all();
        drop(state);
        self.kick(Kick::Stop);
        self.notifier.notify();
    }

    /// Why the machine has ended, if it has.
    pub(crate) fn ended(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// `threads` will run processors from now on, each until [`Control::leave`].
    pub(crate) fn begin(&self, threads: usize) {
        let mut state = self.lock();
        state.begun = true;
        state.driving += threads;
    }

    /// Whether the machine has been run.
    pub(crate) fn has_begun(&self) -> bool {
        self.lock().begun
    }

    /// A thread runs no processor any more.
    pub(crate) fn leave(&self) {
        self.lock().driving -= 1;
        self.changed.notify_all();
    }

    /// Before each turn of a processor: waits while the processors are to stand still. False: the
    /// machine has ended.
    pub(crate) fn enter(&self) -> bool {
        if !self.attention.load(Ordering::SeqCst) {
            return true;
        }
        let mut state = self.lock();
        state.resting += 1;
        self.changed.notify_all();
        while state.end.is_none() && state.stands() {
            state = self.wait(state);
        }
        state.resting -= 1;
        state.end.is_none()
    }

    /// Does `work` while no processor runs.
    pub(crate) fn at_rest<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut state = self.lock();
        state.holds += 1;
        drop(self.come_to_rest(state));
        let release = Release(self);
        let result = work();
        drop(release);
        result
    }

    /// Has the processors stand still until [`Control::go_on`]. False: they do already, or the
    /// machine has ended.
    pub(crate) fn stand_still(&self) -> bool {
        let mut state = self.lock();
        if state.paused || state.end.is_some() {
            return false;
        }
        state.paused = true;
        drop(self.come_to_rest(state));
        true
    }

    /// Lets the processors go on. `first` is done before they do. False: they do not stand still.
    pub(crate) fn go_on(&self, first: impl FnOnce()) -> bool {
        if !self.lock().paused {
            return false;
        }
        first();
        let mut state = self.lock();
        state.paused = false;
        self.release(&state);
        true
    }

    /// Waits until every thread that runs a processor is at rest. `state` says that they should be.
    fn come_to_rest<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.attention.store(true, Ordering::SeqCst);
        drop(state);
        self.kick(Kick::Command);
        let mut state = self.lock();
        while state.resting < state.driving {
            state = self.wait(state);
        }
        state
    }

    fn release(&self, state: &State) {
        if !state.stands() && state.end.is_none() {
            self.attention.store(false, Ordering::SeqCst);
        }
        self.changed.notify_all();
    }
}

/// Ends a hold, also by a panic.
struct Release<'a>(&'a Control);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.holds -= 1;
        self.0.release(&state);
    }
}
