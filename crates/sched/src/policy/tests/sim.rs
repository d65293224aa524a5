//! A host without threads: carries out what the policy calls for, at its deadlines.

use super::super::*;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const QUANTUM: Duration = Duration::from_millis(4);
/// From a kick to the moment when the task leaves.
const LATENCY: Duration = Duration::from_micros(20);

/// What a task does with its time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Manner {
    Spins,
    Serves { runs: Duration, rests: Duration },
    Yields { after: Duration, to: Option<TaskId> },
}

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Tick,
    Take(Worker),
    Leave(Worker, TaskId, u64),
    Done(Worker, TaskId, u64),
    Wake(TaskId),
}

/// The host.
pub(super) struct Sim {
    pub(super) policy: Policy,
    now: Duration,
    manners: Vec<Manner>,
    events: Vec<(Duration, Event)>,
    /// When each task was put on a worker.
    pub(super) history: Vec<(Duration, TaskId)>,
}

impl Sim {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            policy: Policy::new(workers, QUANTUM),
            now: Duration::ZERO,
            manners: Vec::new(),
            events: Vec::new(),
            history: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn machine(&mut self, share: Share) -> MachineId {
        self.policy.add_machine(share, self.now)
    }

    pub(super) fn task(&mut self, machine: MachineId, manner: Manner) -> TaskId {
        let id = self.policy.add_task(machine);
        assert_eq!(id.0, self.manners.len());
        self.manners.push(manner);
        self.at(Duration::ZERO, Event::Wake(id));
        id
    }

    pub(super) fn set(&mut self, task: TaskId, manner: Manner) {
        self.manners[task.0] = manner;
    }

    pub(super) fn usage(&mut self, task: TaskId) -> Usage {
        self.policy.usage(task, self.now).expect("a task")
    }

    /// Others use `time` for the machine, and the timer finds that out.
    pub(super) fn charge(&mut self, machine: MachineId, time: Duration) {
        self.policy.charge(machine, time, self.now);
        let calls = self.policy.tick(self.now);
        self.carry_out(&calls);
    }

    pub(super) fn hold(&mut self, machine: MachineId) {
        let calls = self.policy.hold(machine, self.now);
        self.carry_out(&calls);
    }

    pub(super) fn release(&mut self, machine: MachineId) {
        let calls = self.policy.release(machine, self.now);
        self.carry_out(&calls);
    }

    /// Lets `time` pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            let tick = self.policy.deadline().map(|at| (at, Event::Tick));
            let first = |events: &[(Duration, Event)]| {
                let found = events.iter().enumerate().min_by_key(|(_, (at, _))| *at);
                found.map(|(index, event)| (index, *event))
            };
            let queued = first(&self.events);
            let (at, event) = match (tick, queued) {
                (Some(tick), Some((_, event))) if tick.0 < event.0 => tick,
                (_, Some((index, event))) => {
                    if event.0 <= end {
                        self.events.remove(index);
                    }
                    event
                }
                (Some(tick), None) => tick,
                (None, None) => (end + MS, Event::Tick),
            };
            if at > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(at);
            self.happen(event);
        }
        panic!("the policy never comes to rest");
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.events.push((self.now + after, event));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => {
                let calls = self.policy.tick(self.now);
                self.carry_out(&calls);
            }
            Event::Take(worker) => {
                if self.policy.machine_on(worker).is_none() {
                    self.take(worker);
                }
            }
            Event::Wake(task) => {
                let call = self.policy.wake(task, self.now);
                self.carry_out(call.as_slice());
            }
            Event::Leave(worker, task, switch) if self.is_on(worker, task, switch) => {
                self.policy.leave(worker, Left::Preempted, self.now);
                self.take(worker);
            }
            Event::Done(worker, task, switch) if self.is_on(worker, task, switch) => {
                let left = match self.manners[task.0] {
                    Manner::Spins => return,
                    Manner::Yields { to, .. } => Left::Yielded(to),
                    Manner::Serves { rests, .. } => {
                        self.at(rests, Event::Wake(task));
                        Left::Parked
                    }
                };
                self.policy.leave(worker, left, self.now);
                self.take(worker);
            }
            Event::Leave(..) | Event::Done(..) => {}
        }
    }

    /// Whether that is still the same stay of the task on the worker.
    fn is_on(&mut self, worker: Worker, task: TaskId, switch: u64) -> bool {
        let on = self.policy.workers[worker.0].running().is_some_and(|r| r.task == task);
        on && self.usage(task).switches == switch
    }

    fn take(&mut self, worker: Worker) {
        let Some(task) = self.policy.next(worker, self.now) else { return };
        self.history.push((self.now, task));
        let switch = self.usage(task).switches;
        let after = match self.manners[task.0] {
            Manner::Spins => return,
            Manner::Serves { runs, .. } => runs,
            Manner::Yields { after, .. } => after,
        };
        self.at(after, Event::Done(worker, task, switch));
    }

    fn carry_out(&mut self, calls: &[Call]) {
        for call in calls {
            match *call {
                Call::Wake(worker) => self.at(LATENCY / 4, Event::Take(worker)),
                Call::Kick(worker, task) => {
                    let switch = self.usage(task).switches;
                    self.at(LATENCY, Event::Leave(worker, task, switch));
                }
            }
        }
    }
}
