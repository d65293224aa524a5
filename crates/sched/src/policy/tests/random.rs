//! Any sequence of events: what must hold after each.

use super::super::*;
use super::{limit, weight};
use proptest::prelude::*;

const QUANTUM: Duration = Duration::from_millis(4);
const WORKERS: usize = 3;
const MACHINES: usize = 3;
const TASKS: usize = 7;

/// What may happen, to the worker, task or machine of a number.
#[derive(Clone, Debug)]
enum Event {
    Pass(u32),
    Tick,
    Wake(usize),
    Preempt(usize),
    Yield(usize, Option<usize>),
    Park(usize),
    Take(usize),
    Hold(usize),
    Release(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..9_000u32).prop_map(Event::Pass),
        4 => Just(Event::Tick),
        6 => (0..TASKS).prop_map(Event::Wake),
        3 => (0..WORKERS).prop_map(Event::Preempt),
        2 => (0..WORKERS, proptest::option::of(0..TASKS)).prop_map(|(w, to)| Event::Yield(w, to)),
        3 => (0..WORKERS).prop_map(Event::Park),
        6 => (0..WORKERS).prop_map(Event::Take),
        1 => (0..MACHINES).prop_map(Event::Hold),
        2 => (0..MACHINES).prop_map(Event::Release),
    ]
}

/// What a plain account of the events says.
struct Model {
    policy: Policy,
    now: Duration,
    /// Tasks that could run.
    awake: [bool; TASKS],
    holds: [usize; MACHINES],
    on: [Option<TaskId>; WORKERS],
    /// Time in which each task was parked, or waited while its machine was held.
    idle: [Duration; TASKS],
}

impl Model {
    fn new() -> Self {
        let mut policy = Policy::new(WORKERS, QUANTUM);
        let shares = [weight(100), weight(300), limit(40)];
        let machines = shares.map(|share| policy.add_machine(share, Duration::ZERO));
        for task in 0..TASKS {
            assert_eq!(policy.add_task(machines[task % MACHINES]).0, task);
        }
        Self {
            policy,
            now: Duration::ZERO,
            awake: [false; TASKS],
            holds: [0; MACHINES],
            on: [None; WORKERS],
            idle: [Duration::ZERO; TASKS],
        }
    }

    fn happen(&mut self, event: &Event) {
        let now = self.now;
        match *event {
            Event::Pass(micros) => self.pass(Duration::from_micros(micros.into())),
            Event::Tick => drop(self.policy.tick(now)),
            Event::Wake(task) => {
                self.policy.wake(TaskId(task), now);
                self.awake[task] = true;
            }
            Event::Preempt(worker) => self.leave(worker, Left::Preempted),
            Event::Yield(worker, to) => self.leave(worker, Left::Yielded(to.map(TaskId))),
            Event::Park(worker) => {
                if let Some(task) = self.on[worker] {
                    self.awake[task.0] = false;
                }
                self.leave(worker, Left::Parked);
            }
            Event::Take(worker) if self.on[worker].is_none() => self.take(worker),
            Event::Take(_) => {}
            Event::Hold(machine) => {
                self.policy.hold(MachineId(machine), now);
                self.holds[machine] += 1;
            }
            Event::Release(machine) if self.holds[machine] > 0 => {
                self.policy.release(MachineId(machine), now);
                self.holds[machine] -= 1;
            }
            Event::Release(_) => {}
        }
    }

    fn pass(&mut self, time: Duration) {
        for task in 0..TASKS {
            let runs = self.on.contains(&Some(TaskId(task)));
            let held = self.holds[task % MACHINES] > 0;
            if !runs && (!self.awake[task] || held) {
                self.idle[task] += time;
            }
        }
        self.now += time;
    }

    fn leave(&mut self, worker: usize, left: Left) {
        self.policy.leave(Worker(worker), left, self.now);
        self.on[worker] = None;
    }

    fn take(&mut self, worker: usize) {
        let waits = self.waiting();
        let next = self.policy.next(Worker(worker), self.now);
        self.on[worker] = next;
        match next {
            Some(task) => {
                assert!(self.awake[task.0], "{task:?} is parked");
                assert_eq!(self.holds[task.0 % MACHINES], 0, "{task:?} is held");
                assert!(waits.contains(&task.0), "{task:?} runs already, or is over its limit");
            }
            None => assert!(waits.is_empty(), "no task is found of {waits:?}"),
        }
    }

    /// Tasks that wait and may run.
    fn waiting(&mut self) -> Vec<usize> {
        self.policy.advance(self.now);
        let open = |task: &usize| {
            let id = TaskId(*task);
            let spent = self.policy.machine(self.policy.task(id).machine).is_spent();
            let held = self.holds[task % MACHINES] > 0;
            self.awake[*task] && !self.on.contains(&Some(id)) && !held && !spent
        };
        (0..TASKS).filter(open).collect()
    }

    fn check(&mut self) {
        for task in 0..TASKS {
            let usage = self.policy.usage(TaskId(task), self.now).expect("a task");
            let sum = usage.ran + usage.steal + self.idle[task];
            assert_eq!(sum, self.now, "time of task {task} is lost or counted twice");
        }
        for id in 0..MACHINES {
            let running = self.on.iter().flatten().filter(|t| t.0 % MACHINES == id).count();
            assert_eq!(self.policy.stands(MachineId(id)), running == 0);
            let queue = &self.policy.machine(MachineId(id)).queue;
            let vtimes: Vec<_> = queue.iter().map(|task| self.policy.task(*task).vtime).collect();
            let queued = (0..TASKS).filter(|task| task % MACHINES == id && self.awake[*task]);
            assert_eq!(queue.len() + running, queued.count(), "each is in one place: {vtimes:?}");
        }
        // After a tick, a free worker has been called for each that waits.
        self.policy.tick(self.now);
        let called = |slot: &&Slot| matches!(slot, Slot::Idle { called: true });
        let free = |slot: &&Slot| matches!(slot, Slot::Idle { .. });
        let coming = self.policy.workers.iter().filter(called).count();
        let able = self.policy.workers.iter().filter(free).count();
        assert!(coming >= able.min(self.waiting().len()), "a wake-up is lost");
        if let Some(deadline) = self.policy.deadline() {
            assert!(deadline > self.now, "the timer would never sleep");
        }
    }
}

proptest! {
    #[test]
    fn rules_hold_after_any_events(events in proptest::collection::vec(event(), 1..200)) {
        let mut model = Model::new();
        for event in &events {
            model.happen(event);
            model.check();
        }
    }
}
