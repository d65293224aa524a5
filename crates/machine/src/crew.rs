//! The processors of a machine that runs, as their scheduler has them.

use sched::{Group, Task, TaskId, Usage};
use std::sync::{Arc, Mutex};
use sync::lock;
use vcpu::Signals;
use x86::addr::VcpuId;

/// A group of tasks, one for each processor.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) group: Group,
    tasks: Mutex<Vec<TaskId>>,
}

impl Crew {
    pub(crate) fn new(group: Group) -> Self {
        Self { group, tasks: Mutex::default() }
    }

    /// The next processor, which could run from now on.
    pub(crate) fn add(&self, task: Box<dyn Task>, signals: &Arc<Signals>) {
        let id = self.group.add(task, signals);
        lock(&self.tasks).push(id);
    }

    /// The task of the processor with this APIC id.
    pub(crate) fn task(&self, processor: VcpuId) -> Option<TaskId> {
        lock(&self.tasks).get(processor.0 as usize).copied()
    }

    /// What each processor has had up to now.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        lock(&self.tasks).iter().map(|task| self.group.usage(*task)).collect()
    }
}
