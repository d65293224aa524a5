//! **The round robin**: which task runs next, and for how long. A pure value: no threads, no clock.
//!
//! The tasks of a machine are queued in the order of their time on a processor, so tasks that use
//! up their quanta take turns. Among machines with a waiting task, the one with the least time by
//! weight goes first (virtual time, on both levels: ADR 0028). A task or a machine that has rested
//! is set at most one quantum behind those that did not: it runs soon, and does not make up for its
//! rest.
//!
//! `now` is time since the pool began, and never goes back. Calls that need a worker's attention
//! answer with [`Call`]s, which the caller carries out.

mod entry;
#[cfg(test)]
mod tests;

use crate::ids::{MachineId, TaskId, Worker};
use crate::share::Share;
use crate::usage::Usage;
use entry::{Entry, Machine, Place, Running, Slot};
use std::time::Duration;

/// A quantum is so many turns of tasks that another waits for.
const HURRY: u32 = 8;

/// What a worker is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It is idle, and there is a task for it.
    Wake(Worker),
    /// The task that it runs has to leave it.
    Kick(Worker, TaskId),
}

/// Why a task leaves its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It was told to; it could go on.
    Preempted,
    /// It could go on, but lets others run, and this one above all.
    Yielded(Option<TaskId>),
    /// It waits to be woken.
    Parked,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Policy {
    quantum: Duration,
    machines: Vec<Option<Machine>>,
    tasks: Vec<Option<Entry>>,
    workers: Vec<Slot>,
    /// The virtual time that a machine has had which did not rest; see [`Policy::reach`].
    reached: Duration,
    /// The latest `now`.
    now: Duration,
}

impl Policy {
    pub(crate) fn new(workers: usize, quantum: Duration) -> Self {
        Self {
            quantum,
            machines: Vec::new(),
            tasks: Vec::new(),
            workers: vec![Slot::Idle { called: false }; workers],
            reached: Duration::ZERO,
            now: Duration::ZERO,
        }
    }

    /// A machine without tasks.
    pub(crate) fn add_machine(&mut self, share: Share, now: Duration) -> MachineId {
        let machine = Machine::new(share, self.reached, now);
        MachineId(insert(&mut self.machines, machine))
    }

    /// All its tasks go with it; none of them runs.
    pub(crate) fn remove_machine(&mut self, id: MachineId) {
        self.machines[id.0] = None;
        self.tasks.iter_mut().for_each(|slot| {
            slot.take_if(|task| task.machine == id);
        });
    }

    /// A task of `machine`, which is parked.
    pub(crate) fn add_task(&mut self, machine: MachineId) -> TaskId {
        let vtime = self.machine(machine).reached;
        TaskId(insert(&mut self.tasks, Entry::new(machine, vtime)))
    }

    /// The tasks of `machine`.
    pub(crate) fn tasks_of(&self, machine: MachineId) -> Vec<TaskId> {
        let of = |(id, task): (usize, &Option<Entry>)| {
            task.as_ref().is_some_and(|task| task.machine == machine).then_some(TaskId(id))
        };
        self.tasks.iter().enumerate().filter_map(of).collect()
    }

    /// A parked task could run. One that is not parked stays what it is.
    pub(crate) fn wake(&mut self, id: TaskId, now: Duration) -> Option<Call> {
        self.advance(now);
        let task = self.tasks.get(id.0)?.as_ref()?;
        if !matches!(task.place, Place::Parked) {
            return None;
        }
        self.enqueue(id);
        self.call_for(id)
    }

    /// `worker` does not run its task any more.
    pub(crate) fn leave(&mut self, worker: Worker, left: Left, now: Duration) {
        self.advance(now);
        let Some(running) = self.take_off(worker) else { return };
        match left {
            Left::Parked => self.task_mut(running.task).place = Place::Parked,
            Left::Preempted => {
                self.task_mut(running.task).usage.quanta += u64::from(running.used_up);
                self.enqueue(running.task);
            }
            Left::Yielded(to) => {
                self.task_mut(running.task).usage.yields += 1;
                self.give_way(running.task, to);
            }
        }
    }

    /// The task that `worker` runs has ended. Its account stays as long as its machine.
    pub(crate) fn end(&mut self, worker: Worker, now: Duration) {
        self.advance(now);
        if let Some(running) = self.take_off(worker) {
            self.task_mut(running.task).place = Place::Ended;
        }
    }

    /// The task that `worker` runs from now on. `None`: it idles until it is called.
    pub(crate) fn next(&mut self, worker: Worker, now: Duration) -> Option<TaskId> {
        self.advance(now);
        self.workers[worker.0] = Slot::Idle { called: false };
        let id = self.contender()?;
        let (quantum, reached) = (self.quantum, self.reached);
        let machine = self.machine_mut(id);
        machine.vtime = machine.vtime.max(reached.saturating_sub(machine.slack(quantum)));
        let vtime = machine.vtime;
        self.reached = reached.max(vtime);
        let machine = self.machine_mut(id);
        let chosen = machine.queue.pop_front()?;
        machine.running += 1;
        let released = machine.released;
        let task = self.task_mut(chosen);
        task.settle_steal(released, now);
        (task.place, task.worker) = (Place::Running, worker);
        task.usage.switches += 1;
        task.yielded = false;
        let vtime = task.vtime;
        let machine = self.machine_mut(id);
        machine.reached = machine.reached.max(vtime);
        let ends = now + self.quantum_of(id);
        self.workers[worker.0] = Slot::Running(Running::new(chosen, ends));
        Some(chosen)
    }

    /// Whether `worker`, which idles, has been called since.
    pub(crate) fn is_called(&self, worker: Worker) -> bool {
        matches!(self.workers[worker.0], Slot::Idle { called: true })
    }

    /// How long a task that runs has waited for a worker, in all.
    pub(crate) fn stolen_from(&self, id: TaskId) -> Duration {
        self.task(id).usage.steal
    }

    /// Whether the task that `worker` runs may take another turn.
    pub(crate) fn stays(&self, worker: Worker) -> bool {
        matches!(&self.workers[worker.0], Slot::Running(running) if !running.kicked)
    }

    /// Whether the task that `worker` runs would be the one to run next, too.
    pub(crate) fn keeps(&self, worker: Worker) -> bool {
        self.stays(worker) && self.unserved() == 0
    }

    /// Whether the task that `worker` runs has been told to leave it.
    pub(crate) fn is_kicked(&self, worker: Worker) -> bool {
        matches!(&self.workers[worker.0], Slot::Running(running) if running.kicked)
    }

    /// Time has passed: ends quanta that others wait for and spent budgets, and calls an idle
    /// worker for each task that may run again.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<Call> {
        self.advance(now);
        let mut calls = Vec::new();
        self.end_budgets(&mut calls);
        self.end_quanta(&mut calls);
        self.call_idle(&mut calls);
        calls
    }

    /// Others than its tasks have used `time` for `id`. Its limit counts all of it, its weight no
    /// more than a period's: it may be of long ago, when nobody else wanted to run.
    pub(crate) fn charge(&mut self, id: MachineId, time: Duration, now: Duration) {
        self.advance(now);
        if let Some(machine) = self.machines.get_mut(id.0).and_then(Option::as_mut) {
            machine.charge_others(time);
        }
    }

    /// When [`Policy::tick`] has something to do, as far as is known now.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let budgets = self.present().filter_map(|machine| machine.budget_deadline(self.now));
        let ends = || self.running().filter(|(_, r)| !r.kicked).map(|(_, r)| r.ends).min();
        let quanta = if self.unserved() > 0 { ends() } else { None };
        budgets.chain(quanta).min()
    }

    /// The tasks of `id` do not run until it is released as often as it is held.
    pub(crate) fn hold(&mut self, id: MachineId, now: Duration) -> Vec<Call> {
        self.advance(now);
        if self.machine(id).held == 0 {
            let (queue, released) = (self.machine(id).queue.clone(), self.machine(id).released);
            queue.into_iter().for_each(|task| self.task_mut(task).settle_steal(released, now));
        }
        self.machine_mut(id).held += 1;
        let mut calls = Vec::new();
        self.kick_all(id, &mut calls);
        calls
    }

    /// Undoes one [`Policy::hold`].
    pub(crate) fn release(&mut self, id: MachineId, now: Duration) -> Vec<Call> {
        self.advance(now);
        let machine = self.machine_mut(id);
        machine.held -= 1;
        machine.released = now;
        let mut calls = Vec::new();
        self.call_idle(&mut calls);
        calls
    }

    /// Whether a task of `id` waits for a worker and may run.
    pub(crate) fn waits(&self, id: MachineId) -> bool {
        self.machines[id.0].as_ref().is_some_and(Machine::contends)
    }

    /// Whether no task of `id` runs.
    pub(crate) fn stands(&self, id: MachineId) -> bool {
        self.machine(id).running == 0
    }

    /// What a task has had up to now.
    pub(crate) fn usage(&mut self, id: TaskId, now: Duration) -> Option<Usage> {
        self.advance(now);
        let task = self.tasks.get(id.0)?.as_ref()?;
        let machine = self.machine(task.machine);
        let held = machine.held > 0;
        let waiting = if held { Duration::ZERO } else { task.waiting(machine.released, now) };
        Some(Usage { steal: task.usage.steal + waiting, ..task.usage })
    }

    /// The machine of the task that `worker` runs.
    pub(crate) fn machine_on(&self, worker: Worker) -> Option<MachineId> {
        match &self.workers[worker.0] {
            Slot::Running(running) => Some(self.task(running.task).machine),
            Slot::Idle { .. } => None,
        }
    }
}

/// The parts of the calls above.
impl Policy {
    /// Charges those that run for the time since the last call.
    fn advance(&mut self, now: Duration) {
        let ran = now.saturating_sub(self.now);
        self.now = now.max(self.now);
        let Self { machines, tasks, workers, .. } = self;
        let running = workers.iter().filter_map(Slot::running);
        running.for_each(|running| {
            let Some(task) = &mut tasks[running.task.0] else { return };
            task.vtime += ran;
            task.usage.ran += ran;
            if let Some(machine) = &mut machines[task.machine.0] {
                machine.charge(ran);
            }
        });
        let machines = machines.iter_mut().flatten();
        machines.filter_map(|machine| machine.budget.as_mut()).for_each(|b| b.refill(now));
        self.reach();
    }

    /// Follows the least time that a task or machine has had which did not rest. One that comes
    /// back from a rest is set by it.
    fn reach(&mut self) {
        for at in 0..self.workers.len() {
            let Some(running) = self.workers[at].running() else { continue };
            let id = self.task(running.task).machine;
            let least = self.least(id);
            let machine = self.machine_mut(id);
            machine.reached = machine.reached.max(least.unwrap_or_default());
        }
        let active = self.present().filter(|machine| machine.running > 0 || machine.contends());
        let least = active.map(|machine| machine.vtime).min();
        self.reached = self.reached.max(least.unwrap_or_default());
    }

    /// The least that a task of the machine has had which runs or waits.
    fn least(&self, id: MachineId) -> Option<Duration> {
        let run = self.running().map(|(_, r)| self.task(r.task)).filter(|t| t.machine == id);
        let front = self.machine(id).queue.front().map(|task| self.task(*task));
        run.chain(front).map(|task| task.vtime).min()
    }

    /// The machine that goes first of those that have a task waiting and may run it.
    fn contender(&self) -> Option<MachineId> {
        let all = self.machines.iter().enumerate();
        let open = all.filter_map(|(id, machine)| Some((id, machine.as_ref()?)));
        open.filter(|(_, machine)| machine.contends())
            .min_by_key(|(_, machine)| machine.vtime)
            .map(|(id, _)| MachineId(id))
    }

    /// How many tasks wait and may run.
    fn waiting(&self) -> usize {
        self.present().filter(|m| m.contends()).map(|m| m.queue.len()).sum()
    }

    /// How many of these no worker is on its way to that has been called from its rest.
    fn unserved(&self) -> usize {
        let called = |slot: &&Slot| matches!(slot, Slot::Idle { called: true });
        self.waiting().saturating_sub(self.workers.iter().filter(called).count())
    }

    /// Puts a task into its machine's queue, behind those that have had as little.
    fn enqueue(&mut self, id: TaskId) {
        let (quantum, now) = (self.quantum, self.now);
        let least = self.machine(self.task(id).machine).reached.saturating_sub(quantum);
        let task = self.task_mut(id);
        task.vtime = task.vtime.max(least);
        task.place = Place::Ready { since: now };
        let (vtime, machine) = (task.vtime, task.machine);
        let queue = &self.machine(machine).queue;
        let behind = queue.iter().rposition(|other| self.task(*other).vtime <= vtime);
        let at = behind.map_or(0, |at| at + 1);
        self.machine_mut(machine).queue.insert(at, id);
    }

    /// Queues a task that yields: behind all of its machine. `to` goes to the front, unless it has
    /// had a quantum more than the one that stands there.
    fn give_way(&mut self, id: TaskId, to: Option<TaskId>) {
        let machine = self.task(id).machine;
        if let Some(last) = self.machine(machine).queue.back() {
            let last = self.task(*last).vtime;
            let task = self.task_mut(id);
            task.vtime = task.vtime.max(last);
        }
        self.enqueue(id);
        self.task_mut(id).yielded = true;
        let queue = &self.machine(machine).queue;
        let Some(at) = to.and_then(|to| queue.iter().position(|other| *other == to)) else {
            return;
        };
        let vtime = |at: usize| self.task(queue[at]).vtime;
        if vtime(at) <= vtime(0) + self.quantum {
            let queue = &mut self.machine_mut(machine).queue;
            queue.remove(at).into_iter().for_each(|to| queue.push_front(to));
        }
    }

    /// How long a task of `id` that begins now may run while others wait. A short time if one of
    /// those waits for what the others do: it has its answer in most cases once each of them has
    /// taken an interrupt.
    fn quantum_of(&self, id: MachineId) -> Duration {
        let queue = &self.machine(id).queue;
        let hurries = queue.iter().any(|other| self.task(*other).yielded);
        if hurries { self.quantum / HURRY } else { self.quantum }
    }

    /// Takes the task off its worker.
    fn take_off(&mut self, worker: Worker) -> Option<Running> {
        let idle = Slot::Idle { called: false };
        let Slot::Running(running) = std::mem::replace(&mut self.workers[worker.0], idle) else {
            return None;
        };
        let machine = self.task(running.task).machine;
        self.machine_mut(machine).running -= 1;
        Some(running)
    }

    /// Finds a worker for a task that has just been queued: its last one if that is idle, any idle
    /// one, or the one whose task has had most more than it.
    fn call_for(&mut self, id: TaskId) -> Option<Call> {
        if !self.machine(self.task(id).machine).contends() {
            return None;
        }
        let last = self.task(id).worker.0;
        let idle = |slot: &Slot| matches!(slot, Slot::Idle { called: false });
        let found = self.workers.get(last).is_some_and(idle).then_some(last);
        if let Some(at) = found.or_else(|| self.workers.iter().position(idle)) {
            self.workers[at] = Slot::Idle { called: true };
            return Some(Call::Wake(Worker(at)));
        }
        let open = self.running().filter(|(_, running)| !running.kicked);
        let ahead = open.filter_map(|(at, running)| {
            let lead = self.lead(running.task, id);
            let over = running.ends <= self.now && lead > 0;
            let due = over || lead > self.quantum.as_nanos() as i128 / 4;
            due.then_some((lead, at, running.task))
        });
        let (_, worker, task) = ahead.max_by_key(|(lead, at, _)| (*lead, at.0))?;
        self.kick(worker);
        Some(Call::Kick(worker, task))
    }

    /// By how many nanoseconds the running task has had more than the waiting one, in the running
    /// one's own time.
    fn lead(&self, running: TaskId, waiting: TaskId) -> i128 {
        let signed = |time: Duration| time.as_nanos() as i128;
        let (running, waiting) = (self.task(running), self.task(waiting));
        if running.machine == waiting.machine {
            return signed(running.vtime) - signed(waiting.vtime);
        }
        let (ahead, behind) = (self.machine(running.machine), self.machine(waiting.machine));
        ahead.share.weight.real_time(signed(ahead.vtime) - signed(behind.vtime))
    }

    fn kick(&mut self, worker: Worker) {
        if let Slot::Running(running) = &mut self.workers[worker.0] {
            running.kicked = true;
        }
    }

    fn kick_all(&mut self, machine: MachineId, calls: &mut Vec<Call>) {
        let of = |(_, r): &(Worker, &Running)| self.task(r.task).machine == machine && !r.kicked;
        let found: Vec<_> = self.running().filter(of).map(|(at, r)| (at, r.task)).collect();
        for (worker, task) in found {
            self.kick(worker);
            calls.push(Call::Kick(worker, task));
        }
    }

    /// Machines that have spent their budget leave.
    fn end_budgets(&mut self, calls: &mut Vec<Call>) {
        for id in 0..self.machines.len() {
            if self.machines[id].as_ref().is_some_and(Machine::is_spent) {
                self.kick_all(MachineId(id), calls);
            }
        }
    }

    /// Tasks whose quantum is over leave, as many as others wait. One that has still had less than
    /// the first of those goes on until it has had more.
    fn end_quanta(&mut self, calls: &mut Vec<Call>) {
        let leaving = self.running().filter(|(_, running)| running.kicked).count();
        let mut wanted = self.unserved().saturating_sub(leaving);
        let front = self.contender().and_then(|id| self.machine(id).queue.front().copied());
        let Some(front) = front else { return };
        for at in 0..self.workers.len() {
            let Slot::Running(mut running) = self.workers[at].clone() else { continue };
            if running.kicked || running.ends > self.now {
                continue;
            }
            let lead = self.lead(running.task, front);
            if wanted > 0 && lead > 0 {
                wanted -= 1;
                (running.kicked, running.used_up) = (true, true);
                calls.push(Call::Kick(Worker(at), running.task));
            } else {
                let behind = Duration::from_nanos((-lead).clamp(0, i128::from(u64::MAX)) as u64);
                running.ends = self.now + behind.clamp(self.quantum / 16, self.quantum);
            }
            self.workers[at] = Slot::Running(running);
        }
    }

    /// Calls an idle worker for each task that waits.
    fn call_idle(&mut self, calls: &mut Vec<Call>) {
        let mut wanted = self.unserved();
        for (at, slot) in self.workers.iter_mut().enumerate() {
            if wanted > 0 && matches!(slot, Slot::Idle { called: false }) {
                *slot = Slot::Idle { called: true };
                wanted -= 1;
                calls.push(Call::Wake(Worker(at)));
            }
        }
    }

    fn running(&self) -> impl Iterator<Item = (Worker, &Running)> {
        let all = self.workers.iter().enumerate();
        all.filter_map(|(at, slot)| Some((Worker(at), slot.running()?)))
    }

    fn present(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().flatten()
    }

    fn machine(&self, id: MachineId) -> &Machine {
        self.machines[id.0].as_ref().expect("a machine is there as long as its tasks")
    }

    fn machine_mut(&mut self, id: MachineId) -> &mut Machine {
        self.machines[id.0].as_mut().expect("a machine is there as long as its tasks")
    }

    fn task(&self, id: TaskId) -> &Entry {
        self.tasks[id.0].as_ref().expect("a task is there while it is queued or runs")
    }

    fn task_mut(&mut self, id: TaskId) -> &mut Entry {
        self.tasks[id.0].as_mut().expect("a task is there while it is queued or runs")
    }
}

/// Puts `value` into the first free place.
fn insert<T>(places: &mut Vec<Option<T>>, value: T) -> usize {
    let free = places.iter().position(Option::is_none);
    let at = free.unwrap_or_else(|| {
        places.push(None);
        places.len() - 1
    });
    places[at] = Some(value);
    at
}
