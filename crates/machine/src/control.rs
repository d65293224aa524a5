//! The lifecycle of a machine, and the requests that any thread may make while it runs.
//!
//! ```text
//!   Created ──run──► Running ◄──pause, resume──► Paused ──► Ended
//! ```
//! While the machine is paused, and while another thread needs its processors to stand still for a
//! moment ([`Control::at_rest`]), the scheduler holds them: they have no host thread, and take no
//! further turn.
//!
//! Thread-safe. The lock is a leaf, but for the conditions waited for under it and the scheduler's.

use crate::crew::Crew;
use crate::end::End;
use crate::notifier::Notifier;
use host::ServiceTime;
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
    /// There is an end. Looked at before each turn of a processor.
    over: AtomicBool,
    signals: Vec<Arc<Signals>>,
    notifier: Notifier,
    /// Of the threads that serve the machine beside its processors.
    pub(crate) service: ServiceTime,
}

#[derive(Debug, Default)]
struct State {
    end: Option<End>,
    begun: bool,
    paused: bool,
    /// How often the processors are held: by a pause, and by threads that need them to stand still
    /// for a moment.
    holds: usize,
    /// The processors as their scheduler has them, while the machine runs.
    crew: Option<Arc<Crew>>,
}

impl Control {
    pub(crate) fn new(signals: Vec<Arc<Signals>>, notifier: Notifier) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
            signals,
            notifier,
            service: ServiceTime::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
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
        self.over.store(true, Ordering::SeqCst);
        self.changed.notify_all();
        drop(state);
        self.kick(Kick::Stop);
        self.notifier.notify();
    }

    /// Why the machine has ended, if it has.
    pub(crate) fn ended(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// Whether the machine has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Waits until the machine has ended.
    pub(crate) fn wait_for_end(&self) -> End {
        let mut state = self.lock();
        loop {
            match &state.end {
                Some(end) => return end.clone(),
                None => state = sync::wait(&self.changed, state),
            }
        }
    }

    /// The machine begins to run. `crew`, which has no tasks yet, is held as often as the machine
    /// is.
    pub(crate) fn begin(&self, crew: &Arc<Crew>) {
        let mut state = self.lock();
        state.begun = true;
        (0..state.holds).for_each(|_| crew.group.hold());
        state.crew = Some(Arc::clone(crew));
    }

    /// The machine has ended: no processor runs any more.
    pub(crate) fn finish(&self) {
        let crew = self.lock().crew.take();
        crew.inspect(|crew| crew.group.hold());
    }

    /// The processors, while the machine runs.
    pub(crate) fn crew(&self) -> Option<Arc<Crew>> {
        self.lock().crew.clone()
    }

    /// Whether the machine has been run.
    pub(crate) fn has_begun(&self) -> bool {
        self.lock().begun
    }

    /// Does `work` while no processor runs.
    pub(crate) fn at_rest<T>(&self, work: impl FnOnce() -> T) -> T {
        self.hold(|state| state.holds += 1);
        let release = Release(self);
        let result = work();
        drop(release);
        result
    }

    /// Has the processors stand still until [`Control::go_on`]. False: they do already, or the
    /// machine has ended.
    pub(crate) fn stand_still(&self) -> bool {
        let mut first = false;
        self.hold(|state| {
            first = !state.paused && state.end.is_none();
            state.holds += usize::from(first);
            state.paused |= first;
        });
        first
    }

    /// Lets the processors go on. `first` is done before they do. False: they do not stand still.
    pub(crate) fn go_on(&self, first: impl FnOnce()) -> bool {
        if !self.lock().paused {
            return false;
        }
        first();
        // Their state may be another than that in which they halted.
        self.kick(Kick::Command);
        self.lock().paused = false;
        self.release();
        true
    }

    /// Holds the processors as often as `change` counts holds up.
    fn hold(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let before = state.holds;
        change(&mut state);
        let crew = state.crew.clone().filter(|_| state.holds > before);
        drop(state);
        crew.inspect(|crew| crew.group.hold());
    }

    fn release(&self) {
        let mut state = self.lock();
        state.holds -= 1;
        let crew = state.crew.clone();
        drop(state);
        crew.inspect(|crew| crew.group.release());
    }
}

/// Ends a hold, also by a panic.
struct Release<'a>(&'a Control);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}
