//! What workers, the timer, and threads that wake tasks share: the policy, the tasks that do not
//! run, and where threads sleep.
//!
//! Lock order: the lock here is a leaf but for the signals' own, which are taken under it. So a
//! signal may be raised while any other lock is held. Under it no task is called or dropped.

use crate::clock::Clock;
use crate::idle::{HaltPoll, Idle};
use crate::ids::{MachineId, TaskId, Worker};
use crate::policy::{Call, Policy};
use crate::rivals::Rivals;
use crate::share::{PERIOD, Share};
use crate::task::Task;
use crate::usage::Usage;
use std::sync::Arc;
use std::time::Duration;
use sync::{Condvar, Mutex, MutexGuard};
use vcpu::{Kick, Residence, Signals};

/// See the module.
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Where each worker waits.
    idle: Vec<Idle>,
    /// The timer sleeps on it.
    alarm: Condvar,
    /// Threads sleep on it that have a machine held.
    still: Condvar,
    pub(crate) clock: Clock,
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) policy: Policy,
    /// By their ids.
    pub(crate) tasks: Vec<Option<Resident>>,
    /// By the ids of the machines.
    rivals: Vec<Rivals>,
    /// By the ids of the machines.
    services: Vec<Option<Service>>,
    /// When they are to be asked again.
    ask: Duration,
    /// No worker takes another task.
    pub(crate) closed: bool,
    /// The timer looks again at this time.
    armed: Option<Duration>,
    /// For how long each worker polls.
    halt_poll: Vec<HaltPoll>,
}

/// Other threads that work for a machine.
struct Service {
    /// What they have used in all.
    used: Box<dyn Fn() -> Duration + Send>,
    /// How much of it the machine is charged for.
    charged: Duration,
}

/// A task and what reaches it.
pub(crate) struct Resident {
    /// Away while it runs.
    pub(crate) task: Option<Box<dyn Task>>,
    pub(crate) signals: Arc<Signals>,
}

impl Resident {
    /// Withdraws what the hub has kicked for: the task has left its worker.
    pub(crate) fn retract_kicks(&self) {
        self.signals.retract(Kick::Quantum);
        self.signals.retract(Kick::Command);
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("workers", &self.idle.len()).finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(workers: usize, quantum: Duration, clock: Clock) -> Self {
        let policy = Policy::new(workers, quantum);
        let (tasks, rivals, services) = (Vec::new(), Vec::new(), Vec::new());
        let (ask, halt_poll) = (Duration::ZERO, vec![HaltPoll::default(); workers]);
        let (closed, armed) = (false, None);
        let state = State { policy, tasks, rivals, services, ask, closed, armed, halt_poll };
        Self {
            state: Mutex::new(state),
            idle: (0..workers).map(|_| Idle::new()).collect(),
            alarm: Condvar::new(),
            still: Condvar::new(),
            clock,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// A machine without tasks.
    pub(crate) fn add_machine(&self, share: Share) -> MachineId {
        let mut state = self.lock();
        let id = state.policy.add_machine(share, self.clock.now());
        if state.rivals.len() <= id.0 {
            state.rivals.resize_with(id.0 + 1, Rivals::default);
        }
        state.rivals[id.0] = Rivals::default();
        id
    }

    /// Charges `machine` for what `used` tells from now on.
    pub(crate) fn charge_for(&self, machine: MachineId, used: Box<dyn Fn() -> Duration + Send>) {
        let mut state = self.lock();
        if state.services.len() <= machine.0 {
            state.services.resize_with(machine.0 + 1, || None);
        }
        let charged = used();
        state.services[machine.0] = Some(Service { used, charged });
    }

    /// What tells the machine's tasks whether others of them wait.
    pub(crate) fn rivals(&self, machine: MachineId) -> Rivals {
        self.lock().rivals[machine.0].clone()
    }

    /// A task of `machine`, parked until it is woken.
    pub(crate) fn add_task(
        self: &Arc<Self>,
        machine: MachineId,
        task: Box<dyn Task>,
        signals: &Arc<Signals>,
    ) -> TaskId {
        let mut state = self.lock();
        let id = state.policy.add_task(machine);
        let hub = Arc::clone(self);
        signals.set_waker(Some(Arc::new(move || hub.wake(id))));
        let resident = Resident { task: Some(task), signals: Arc::clone(signals) };
        if state.tasks.len() <= id.0 {
            state.tasks.resize_with(id.0 + 1, || None);
        }
        state.tasks[id.0] = Some(resident);
        id
    }

    /// A parked task could run. Harmless if it is not parked.
    pub(crate) fn wake(&self, id: TaskId) {
        let mut state = self.lock();
        let now = self.clock.now();
        let call = state.wake(id, now);
        self.carry_out(state, call.as_slice());
    }

    /// None of the machine's tasks runs from now on, until it is released as often as it is held.
    /// Not to be called by one of them.
    pub(crate) fn hold(&self, machine: MachineId) {
        let mut state = self.lock();
        let calls = state.policy.hold(machine, self.clock.now());
        state.kick(&calls, Kick::Command);
        while !state.policy.stands(machine) {
            state = sync::wait(&self.still, state);
        }
    }

    /// Undoes one [`Hub::hold`].
    pub(crate) fn release(&self, machine: MachineId) {
        let mut state = self.lock();
        let calls = state.policy.release(machine, self.clock.now());
        self.carry_out(state, &calls);
    }

    /// The machine and its tasks leave the pool, wherever they are.
    pub(crate) fn remove_machine(&self, machine: MachineId) {
        self.hold(machine);
        let mut state = self.lock();
        let ids = state.policy.tasks_of(machine);
        let gone: Vec<_> = ids.into_iter().filter_map(|id| state.forget(id)).collect();
        state.policy.remove_machine(machine);
        let service = state.services.get_mut(machine.0).and_then(Option::take);
        drop(state);
        drop((gone, service));
    }

    /// What a task has had up to now.
    pub(crate) fn usage(&self, id: TaskId) -> Option<Usage> {
        self.lock().policy.usage(id, self.clock.now())
    }

    /// Workers and timer come to their end.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.idle.iter().for_each(Idle::call);
        self.alarm.notify_all();
    }

    /// Waits until `worker` is called. To be called with the lock that it has found no task under.
    pub(crate) fn idle<'a>(
        &'a self,
        worker: Worker,
        mut state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        let idle = &self.idle[worker.0];
        idle.expect();
        let start = self.clock.now();
        let waited = || self.clock.now().saturating_sub(start);
        let limit = state.halt_poll[worker.0];
        if !limit.is_zero() {
            drop(state);
            idle.poll(limit, waited);
            state = self.lock();
        }
        let polled = waited();
        // As the policy has it: who calls does so when it has let the lock go.
        if state.closed || state.policy.is_called(worker) {
            state.halt_poll[worker.0].was_called(polled);
            return state;
        }
        state = idle.sleep(state);
        state.halt_poll[worker.0].slept(polled, waited());
        state
    }

    /// Tells those that wait for a machine to stand that one may.
    pub(crate) fn told_still(&self, state: &State, machine: Option<MachineId>) {
        if machine.is_some_and(|machine| state.policy.stands(machine)) {
            self.still.notify_all();
        }
    }

    /// Kicks and wakes as the policy has called for, and sets the timer.
    fn carry_out(&self, state: MutexGuard<'_, State>, calls: &[Call]) {
        state.kick(calls, Kick::Quantum);
        state.tell_rivals();
        let early = state.is_early();
        drop(state);
        // After the lock is free: a worker that wakes needs it.
        for call in calls {
            if let Call::Wake(worker) = call {
                self.idle[worker.0].call();
            }
        }
        if early {
            self.alarm.notify_one();
        }
    }

    /// Has the timer look earlier, if it has to now.
    pub(crate) fn set_alarm(&self, state: &State) {
        if state.is_early() {
            self.alarm.notify_one();
        }
    }

    /// One round of the timer: does what is due, then sleeps until something may be. False: the
    /// pool is closed.
    pub(crate) fn watch(&self) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        let now = self.clock.now();
        state.charge_services(now);
        let calls = state.policy.tick(now);
        if !calls.is_empty() {
            self.carry_out(state, &calls);
            return true;
        }
        state.armed = state.policy.deadline();
        match state.armed {
            None => state = sync::wait(&self.alarm, state),
            Some(end) => {
                let left = end.saturating_sub(self.clock.now());
                state = sync::wait_for(&self.alarm, state, left).0;
            }
        }
        state.armed = Some(Duration::ZERO);
        true
    }
}

impl State {
    fn wake(&mut self, id: TaskId, now: Duration) -> Option<Call> {
        let signals = &self.tasks.get(id.0)?.as_ref()?.signals;
        if matches!(signals.residence(), Residence::Parked(_)) {
            signals.settle(Residence::Queued);
        }
        self.policy.wake(id, now)
    }

    /// Charges machines for what other threads have used for them since the last time. Once in a
    /// period: it asks for the time of each such thread.
    fn charge_services(&mut self, now: Duration) {
        if now < self.ask {
            return;
        }
        self.ask = now + PERIOD;
        for (id, service) in self.services.iter_mut().enumerate() {
            let Some(service) = service else { continue };
            let used = (service.used)();
            let since = used.saturating_sub(std::mem::replace(&mut service.charged, used));
            self.policy.charge(MachineId(id), since, now);
        }
    }

    /// Tells each machine's tasks whether others of them wait.
    pub(crate) fn tell_rivals(&self) {
        let machines = self.rivals.iter().enumerate();
        machines.for_each(|(id, rivals)| rivals.tell(self.policy.waits(MachineId(id))));
    }

    /// Takes a task out of the pool.
    pub(crate) fn forget(&mut self, id: TaskId) -> Option<Resident> {
        let gone = self.tasks[id.0].take()?;
        gone.signals.set_waker(None);
        gone.retract_kicks();
        gone.signals.settle(Residence::Queued);
        Some(gone)
    }

    /// Has tasks leave their workers. The lock is held, so that a task that has left meanwhile is
    /// not kicked: a stale kick would cost it a turn.
    fn kick(&self, calls: &[Call], why: Kick) {
        for call in calls {
            if let Call::Kick(_, id) = call
                && let Some(resident) = &self.tasks[id.0]
            {
                resident.signals.kick(why);
            }
        }
    }

    /// Whether the timer sleeps past the policy's deadline.
    fn is_early(&self) -> bool {
        let deadline = self.policy.deadline();
        deadline.is_some_and(|deadline| self.armed.is_none_or(|armed| deadline < armed))
    }
}
