//! **The context switch**, in its three steps:
//!
//! 1. [`save`]: the task that ran goes back to its place, with its state, and into the queue.
//! 2. [`load`]: the next of the queue is taken, with its state.
//! 3. [`enter`]: it goes on at the address at which it left: [`Task::turn`] runs the guest from the
//!    RIP in its state, at the privilege level in its state.
//!
//! Steps 1 and 2 are done under the hub's lock, so that no task is ever in two places. A task's
//! registers are in its [`Task`] when it does not run; moving the box moves them all.

use crate::hub::{Hub, State};
use crate::ids::{TaskId, Worker};
use crate::policy::Left;
use crate::task::{Task, Turn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A task on a worker.
struct Loaded {
    id: TaskId,
    task: Box<dyn Task>,
    steal: Duration,
}

/// A task that has been on a worker, and how its last turn ended. None if that was its end.
struct Ran {
    id: TaskId,
    still: Option<(Box<dyn Task>, Turn)>,
}

/// Runs tasks on `worker` until the pool is closed.
pub(crate) fn run(hub: &Hub, worker: Worker) {
    let mut ran = None;
    while let Some(next) = switch(hub, worker, ran.take()) {
        ran = Some(enter(hub, worker, next));
    }
}

/// Steps 1 and 2. `None`: the pool is closed.
fn switch(hub: &Hub, worker: Worker, ran: Option<Ran>) -> Option<Loaded> {
    let mut state = hub.lock();
    let mut now = hub.clock.now();
    if let Some(ran) = ran {
        let machine = state.policy.machine_on(worker);
        let same = save(&mut state, worker, ran, now);
        if same.is_some() {
            return same;
        }
        hub.told_still(&state, machine);
    }
    while !state.closed {
        let next = load(&mut state, worker, now);
        state.tell_rivals();
        hub.set_alarm(&state);
        if next.is_some() {
            return next;
        }
        state = hub.idle(worker, state);
        now = hub.clock.now();
    }
    None
}

/// Step 1. What it returns stays where it is: it meant to park, but what it would wait for is up,
/// and nobody waits for this worker.
fn save(state: &mut State, worker: Worker, ran: Ran, now: Duration) -> Option<Loaded> {
    let Ran { id, still } = ran;
    let Some((task, left)) = still else {
        state.policy.end(worker, now);
        state.forget(id);
        return None;
    };
    let resident = state.tasks[id.0].as_mut()?;
    if state.policy.is_kicked(worker) {
        resident.retract_kicks();
    }
    let left = match left {
        Turn::Park(set) if resident.signals.park(set) => Left::Parked,
        Turn::Park(_) if !state.closed && state.policy.keeps(worker) => {
            return Some(Loaded { id, task, steal: state.policy.stolen_from(id) });
        }
        Turn::Yield(to) => Left::Yielded(to),
        Turn::Park(_) | Turn::Again | Turn::Ended => Left::Preempted,
    };
    resident.task = Some(task);
    state.policy.leave(worker, left, now);
    None
}

/// Step 2. `None`: no task waits for a worker.
fn load(state: &mut State, worker: Worker, now: Duration) -> Option<Loaded> {
    let id = state.policy.next(worker, now)?;
    let steal = state.policy.stolen_from(id);
    let task = state.tasks[id.0].as_mut()?.task.take()?;
    Some(Loaded { id, task, steal })
}

/// Step 3, and turn after turn until it has to leave. A task that panics has ended; the worker goes
/// on.
fn enter(hub: &Hub, worker: Worker, loaded: Loaded) -> Ran {
    let Loaded { id, mut task, steal } = loaded;
    let stay = || {
        task.arrives(steal);
        let left = turns(hub, worker, &mut *task);
        task.leaves();
        left
    };
    let left = catch_unwind(AssertUnwindSafe(stay)).unwrap_or(Turn::Ended);
    // One that has ended is dropped here, before any thread is told that it does not run.
    let still = (left != Turn::Ended).then_some((task, left));
    Ran { id, still }
}

fn turns(hub: &Hub, worker: Worker, task: &mut dyn Task) -> Turn {
    loop {
        match task.turn() {
            Turn::Again if hub.lock().policy.stays(worker) => {}
            left => return left,
        }
    }
}
