//! Tasks for tests: a closure is a turn.

use sched::{Group, Pool, Task, TaskId, Turn};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vcpu::{Signal, SignalSet, Signals};

pub(crate) const INTR: SignalSet = SignalSet::EMPTY.with(Signal::Intr);

pub(crate) fn pool(workers: usize, quantum: Duration) -> Pool {
    Pool::new(NonZeroUsize::new(workers).expect("some"), quantum).expect("threads")
}

/// Waits until `done`, for a minute at the most.
pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not come that {what}");
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// A task of a closure, from outside.
pub(crate) struct Tested {
    pub(crate) id: TaskId,
    pub(crate) signals: Arc<Signals>,
    turns: Arc<AtomicUsize>,
}

struct Closure<F> {
    turn: F,
    signals: Arc<Signals>,
    turns: Arc<AtomicUsize>,
    here: AtomicBool,
}

impl<F: FnMut(&Signals) -> Turn + Send> Task for Closure<F> {
    fn turn(&mut self) -> Turn {
        assert!(self.here.load(Ordering::SeqCst), "it runs without having arrived");
        self.turns.fetch_add(1, Ordering::SeqCst);
        (self.turn)(&self.signals)
    }

    fn arrives(&mut self, _: Duration) {
        assert!(!self.here.swap(true, Ordering::SeqCst), "it arrives twice");
    }

    fn leaves(&mut self) {
        assert!(self.here.swap(false, Ordering::SeqCst), "it leaves twice");
    }
}

impl Tested {
    pub(crate) fn on(group: &Group, turn: impl FnMut(&Signals) -> Turn + Send + 'static) -> Self {
        Self::with(group, &Arc::default(), turn)
    }

    pub(crate) fn with(
        group: &Group,
        signals: &Arc<Signals>,
        turn: impl FnMut(&Signals) -> Turn + Send + 'static,
    ) -> Self {
        let (turns, signals) = (Arc::new(AtomicUsize::new(0)), Arc::clone(signals));
        let here = AtomicBool::new(false);
        let (told, to) = (Arc::clone(&turns), Arc::clone(&signals));
        let task = Box::new(Closure { turn, signals: to, turns: told, here });
        Self { id: group.add(task, &signals), signals, turns }
    }

    pub(crate) fn turns(&self) -> usize {
        self.turns.load(Ordering::SeqCst)
    }
}

/// A task that runs until it is kicked, again and again.
pub(crate) fn spinner(group: &Group) -> TaskId {
    let spin = |signals: &Signals| {
        while !signals.is_raised(Signal::Kick) {
            std::hint::spin_loop();
        }
        signals.take_kicks();
        Turn::Again
    };
    Tested::on(group, spin).id
}
