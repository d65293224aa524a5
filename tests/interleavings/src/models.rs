//! Small pools: a few tasks, workers and threads that raise signals. A model fails if a thread
//! waits for ever.

use crate::clock::Clock;
use crate::epochs::Epochs;
use crate::hub::Hub;
use crate::ids::{MachineId, Worker};
use crate::share::Share;
use crate::switch;
use crate::task::{Task, Turn};
use crate::{Kick, Signal, SignalSet, Signals};
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const QUANTUM: Duration = Duration::from_millis(4);
const INTR: SignalSet = SignalSet::EMPTY.with(Signal::Kick).with(Signal::Intr);

/// A turn of a task, given its signals.
type Body = Box<dyn FnMut(&Signals) -> Turn + Send>;

struct Closure(Body, Arc<Signals>);

impl Task for Closure {
    fn turn(&mut self) -> Turn {
        (self.0)(&self.1)
    }
}

/// A pool of model threads, with one machine.
struct Model {
    hub: Arc<Hub>,
    machine: MachineId,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Model {
    fn new(workers: usize, step: Duration) -> Self {
        let hub = Arc::new(Hub::new(workers, QUANTUM, Clock::stepping(step)));
        let machine = hub.add_machine(Share::default());
        let worker = |at| {
            let hub = Arc::clone(&hub);
            thread::spawn(move || switch::run(&hub, Worker(at)))
        };
        let threads = (0..workers).map(worker).collect();
        Self { hub, machine, threads }
    }

    fn add(&self, signals: &Arc<Signals>, body: Body) {
        let task = Box::new(Closure(body, Arc::clone(signals)));
        let id = self.hub.add_task(self.machine, task, signals);
        self.hub.wake(id);
    }

    fn timer(&mut self) {
        let hub = Arc::clone(&self.hub);
        self.threads.push(thread::spawn(move || while hub.watch() {}));
    }

    /// Waits until all threads have come to their end. The last task to end closes the pool.
    fn join(self) {
        self.threads.into_iter().for_each(|thread| thread.join().expect("it ends well"));
    }
}

/// Ends the task; the last of `left` closes the pool.
fn end(hub: &Hub, left: &AtomicUsize) -> Turn {
    if left.fetch_sub(1, Ordering::SeqCst) == 1 {
        hub.close();
    }
    Turn::Ended
}

/// A task halts; it ends when `signal` has come.
fn halts(hub: &Arc<Hub>, signal: Signal) -> Body {
    let hub = Arc::clone(hub);
    Box::new(move |signals| {
        signals.take_kicks();
        if signals.is_raised(signal) {
            return end(&hub, &AtomicUsize::new(1));
        }
        if signal != Signal::Intr {
            signals.clear(Signal::Intr);
        }
        Turn::Park(INTR.with(signal))
    })
}

/// A thread that waits without a scheduler, and two that raise.
pub fn waiting_without_a_scheduler() {
    let signals = Arc::new(Signals::default());
    let raisers = [Signal::Nmi, Signal::Intr].map(|signal| {
        let signals = Arc::clone(&signals);
        thread::spawn(move || signals.raise(signal))
    });
    assert!(signals.wait(INTR, None));
    assert!(signals.is_raised(Signal::Intr));
    raisers.into_iter().for_each(|thread| thread.join().expect("it ends well"));
}

/// A processor halts while an interrupt comes.
pub fn a_wake_up_against_parking() {
    let model = Model::new(1, Duration::ZERO);
    let signals = Arc::new(Signals::default());
    model.add(&signals, halts(&model.hub, Signal::Intr));
    signals.raise(Signal::Intr);
    model.join();
}

/// A processor halts while two threads raise what it waits for.
pub fn two_wake_ups_at_once() {
    let model = Model::new(1, Duration::ZERO);
    let signals = Arc::new(Signals::default());
    model.add(&signals, halts(&model.hub, Signal::Nmi));
    let raiser = {
        let signals = Arc::clone(&signals);
        thread::spawn(move || signals.raise(Signal::Intr))
    };
    signals.raise(Signal::Nmi);
    raiser.join().expect("it ends well");
    model.join();
}

/// Two processors on as many `workers`: each sends the other an IPI, halts, and ends when it has
/// had one.
pub fn ipis_against_hlt(workers: usize) {
    let model = Model::new(workers, Duration::ZERO);
    let both: [Arc<Signals>; 2] = [Arc::default(), Arc::default()];
    let left = Arc::new(AtomicUsize::new(2));
    for at in 0..2 {
        let (hub, other, left) =
            (Arc::clone(&model.hub), Arc::clone(&both[1 - at]), Arc::clone(&left));
        let mut sent = false;
        let body = move |signals: &Signals| {
            if !std::mem::replace(&mut sent, true) {
                other.raise(Signal::Intr);
            }
            if signals.is_raised(Signal::Intr) { end(&hub, &left) } else { Turn::Park(INTR) }
        };
        model.add(&both[at], Box::new(body));
    }
    model.join();
}

/// A processor halts while its machine is held, released, and an interrupt comes.
pub fn parking_against_a_hold() {
    let model = Model::new(1, Duration::ZERO);
    let signals = Arc::new(Signals::default());
    let inside = Arc::new(AtomicUsize::new(0));
    let mut body = halts(&model.hub, Signal::Intr);
    let within = Arc::clone(&inside);
    let watched = move |signals: &Signals| {
        within.fetch_add(1, Ordering::SeqCst);
        let turn = body(signals);
        within.fetch_sub(1, Ordering::SeqCst);
        turn
    };
    model.add(&signals, Box::new(watched));
    let raiser = {
        let signals = Arc::clone(&signals);
        thread::spawn(move || signals.raise(Signal::Intr))
    };
    model.hub.hold(model.machine);
    assert_eq!(inside.load(Ordering::SeqCst), 0, "it runs although it is held");
    model.hub.release(model.machine);
    raiser.join().expect("it ends well");
    model.join();
}

/// A processor halts while it is kicked by another thread.
pub fn parking_against_a_kick() {
    let model = Model::new(1, Duration::ZERO);
    let signals = Arc::new(Signals::default());
    let hub = Arc::clone(&model.hub);
    let body = move |signals: &Signals| {
        let stopped = signals.take_kicks().has(Kick::Stop);
        if stopped { end(&hub, &AtomicUsize::new(1)) } else { Turn::Park(INTR) }
    };
    model.add(&signals, Box::new(body));
    signals.kick(Kick::Stop);
    model.join();
}

/// Takes the kick of the task that runs on the only worker, if there is one. It is meant for its
/// stay there.
fn not_stale(hub: &Hub, signals: &Signals) {
    if signals.take_kicks().has(Kick::Quantum) {
        assert!(hub.lock().policy.is_kicked(Worker(0)), "the kick was for an earlier stay");
    }
}

/// Two processors on one worker: one runs until its quantum is over, the other halts and waits for
/// an interrupt. The kick at the end of the quantum reaches none but the one that runs.
pub fn a_quantums_end_against_a_wake_up() {
    let mut model = Model::new(1, QUANTUM);
    model.timer();
    let (spins, halts): (Arc<Signals>, Arc<Signals>) = Default::default();
    let left = Arc::new(AtomicUsize::new(2));
    let (hub, rest) = (Arc::clone(&model.hub), Arc::clone(&left));
    let spin = move |signals: &Signals| {
        // Stands for a guest that runs until it is told to leave, or alone.
        while !signals.is_raised(Signal::Kick) {
            if rest.load(Ordering::SeqCst) == 1 {
                return end(&hub, &rest);
            }
            thread::yield_now();
        }
        not_stale(&hub, signals);
        Turn::Again
    };
    let (hub, rest) = (Arc::clone(&model.hub), left);
    let halt = move |signals: &Signals| {
        not_stale(&hub, signals);
        if signals.is_raised(Signal::Intr) { end(&hub, &rest) } else { Turn::Park(INTR) }
    };
    model.add(&halts, Box::new(halt));
    model.add(&spins, Box::new(spin));
    halts.raise(Signal::Intr);
    model.join();
}

/// What an epoch has; how many were freed.
struct Value(Arc<AtomicUsize>);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The first epoch, and how many of its successors' values were freed.
fn epochs() -> (Arc<Epochs<Value>>, Arc<AtomicUsize>) {
    let freed = Arc::new(AtomicUsize::new(0));
    (Arc::new(Epochs::new(Value(freed.clone()))), freed)
}

/// Begins another epoch on a thread of its own; tells whether it did.
fn advance(
    epochs: &Arc<Epochs<Value>>,
    freed: &Arc<AtomicUsize>,
) -> thread::JoinHandle<Result<bool, ()>> {
    let (epochs, freed) = (epochs.clone(), freed.clone());
    thread::spawn(move || epochs.advance(|| Ok(Value(freed))))
}

/// A processor that is parked has nothing of an epoch that has passed, and finds none when it runs.
pub fn parking_against_a_new_epoch() {
    let (epochs, freed) = epochs();
    let mut member = epochs.join(Box::new(|| {}));
    member.renew();
    let other = advance(&epochs, &freed);
    member.park();
    assert_eq!(other.join().expect("it ends"), Ok(true));
    assert_eq!(freed.load(Ordering::SeqCst), 1, "the old value is kept");
    assert!(!member.resume() && member.held().is_none());
    member.renew();
    assert!(member.is_current());
}

/// What a processor runs is not freed; a third value comes when the first is.
pub fn running_against_new_epochs() {
    let (epochs, freed) = epochs();
    let mut member = epochs.join(Box::new(|| {}));
    member.renew();
    let others = [advance(&epochs, &freed), advance(&epochs, &freed)];
    for _ in 0..2 {
        let number = member.number();
        assert!(freed.load(Ordering::SeqCst) < number as usize, "what runs was freed");
        if !member.is_current() {
            member.renew();
            assert!(member.number() > number);
        }
    }
    let began = others.map(|other| other.join().expect("it ends"));
    assert!(began.contains(&Ok(true)));
    member.renew();
    assert_eq!(freed.load(Ordering::SeqCst) as u64 + 1, epochs.number());
}
