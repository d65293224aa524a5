//! What the policy keeps of a machine, a task and a worker.

use crate::ids::{MachineId, TaskId, Worker};
use crate::share::{Budget, PERIOD, Share};
use crate::usage::Usage;
use std::collections::VecDeque;
use std::time::Duration;

/// A machine: its queue, and what it has had.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) share: Share,
    /// Time on processors, all its tasks together, by weight.
    pub(super) vtime: Duration,
    /// The time that a task of it has had which did not rest.
    pub(super) reached: Duration,
    /// Tasks that could run, the next first.
    pub(super) queue: VecDeque<TaskId>,
    /// How many of its tasks run.
    pub(super) running: usize,
    /// How often it is held.
    pub(super) held: usize,
    /// When it was released last.
    pub(super) released: Duration,
    pub(super) budget: Option<Budget>,
}

impl Machine {
    pub(super) fn new(share: Share, vtime: Duration, now: Duration) -> Self {
        Self {
            share,
            vtime,
            reached: Duration::ZERO,
            queue: VecDeque::new(),
            running: 0,
            held: 0,
            released: now,
            budget: share.limit.map(|limit| Budget::new(limit, now)),
        }
    }

    /// Whether it has a task waiting that may run.
    pub(super) fn contends(&self) -> bool {
        self.held == 0 && !self.queue.is_empty() && !self.is_spent()
    }

    /// Whether it has used its period's budget up.
    pub(super) fn is_spent(&self) -> bool {
        self.budget.is_some_and(|budget| budget.left().is_zero())
    }

    /// How far it may be behind after a rest.
    pub(super) fn slack(&self, quantum: Duration) -> Duration {
        self.share.weight.virtual_time(quantum)
    }

    /// One of its tasks ran.
    pub(super) fn charge(&mut self, ran: Duration) {
        self.vtime += self.share.weight.virtual_time(ran);
        if let Some(budget) = &mut self.budget {
            budget.charge(ran);
        }
    }

    /// Others worked for it.
    pub(super) fn charge_others(&mut self, time: Duration) {
        self.vtime += self.share.weight.virtual_time(time.min(PERIOD));
        if let Some(budget) = &mut self.budget {
            budget.charge(time);
        }
    }

    /// When its budget is spent as things are, or filled again for those that wait.
    pub(super) fn budget_deadline(&self, now: Duration) -> Option<Duration> {
        let budget = self.budget?;
        match self.running as u32 {
            _ if self.is_spent() => (!self.queue.is_empty()).then(|| budget.refilled_at()),
            0 => None,
            running => Some(now + (budget.left() / running).max(Duration::from_nanos(1))),
        }
    }
}

/// Where a task is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Parked,
    Ready { since: Duration },
    Running,
    Ended,
}

/// A task.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) machine: MachineId,
    /// Its time on a processor, and what it is held to have had while it rested.
    pub(super) vtime: Duration,
    pub(super) place: Place,
    /// Where it ran last.
    pub(super) worker: Worker,
    /// It left to let others run, and waits for what they do.
    pub(super) yielded: bool,
    pub(super) usage: Usage,
}

impl Entry {
    pub(super) fn new(machine: MachineId, vtime: Duration) -> Self {
        let (place, worker, usage) = (Place::Parked, Worker(0), Usage::default());
        Self { machine, vtime, place, worker, yielded: false, usage }
    }

    /// For how long it has waited for a worker. Its machine was released last at `released`, and is
    /// not held.
    pub(super) fn waiting(&self, released: Duration, now: Duration) -> Duration {
        match self.place {
            Place::Ready { since } => now.saturating_sub(since.max(released)),
            Place::Parked | Place::Running | Place::Ended => Duration::ZERO,
        }
    }

    /// Enters into its account for how long it has waited.
    pub(super) fn settle_steal(&mut self, released: Duration, now: Duration) {
        self.usage.steal += self.waiting(released, now);
        if let Place::Ready { since } = &mut self.place {
            *since = now;
        }
    }
}

/// What a worker does.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// It waits for a call, or has had one and is on its way.
    Idle { called: bool },
    /// It runs a task.
    Running(Running),
}

impl Slot {
    pub(super) fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(running) => Some(running),
            Self::Idle { .. } => None,
        }
    }
}

/// A task on a worker.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) task: TaskId,
    /// When its quantum is over.
    pub(super) ends: Duration,
    /// It has been told to leave.
    pub(super) kicked: bool,
    /// It was told so because its quantum was over.
    pub(super) used_up: bool,
}

impl Running {
    pub(super) fn new(task: TaskId, ends: Duration) -> Self {
        Self { task, ends, kicked: false, used_up: false }
    }
}
