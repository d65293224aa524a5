//! Semaphores: a count, and a queue of those who wait until it is not zero.
//!
//! Whoever signals hands over directly to the first in the queue, so nobody can be overtaken for
//! ever.

use crate::process::Pid;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// At one time.
const MAX: usize = 256;

#[derive(Default)]
struct Semaphore {
    owner: Pid,
    count: u64,
    waiting: VecDeque<Pid>,
}

/// All semaphores, by number. A semaphore lives as long as the process that created it.
#[derive(Default)]
pub struct Semaphores {
    all: BTreeMap<u64, Semaphore>,
    next: u64,
    released: Vec<Pid>,
}

impl Semaphores {
    pub fn create(&mut self, owner: Pid, count: u64) -> Option<u64> {
        if self.all.len() >= MAX {
            return None;
        }
        self.next += 1;
        self.all.insert(self.next, Semaphore { owner, count, ..Semaphore::default() });
        Some(self.next)
    }

    /// Takes one: true. Has to wait: false, and is in the queue.
    pub fn wait(&mut self, id: u64, pid: Pid) -> Option<bool> {
        let semaphore = self.all.get_mut(&id)?;
        if semaphore.count > 0 {
            semaphore.count -= 1;
            return Some(true);
        }
        semaphore.waiting.push_back(pid);
        Some(false)
    }

    /// Gives one; tells who may now go on, if somebody waited.
    pub fn signal(&mut self, id: u64) -> Option<Option<Pid>> {
        let semaphore = self.all.get_mut(&id)?;
        let next = semaphore.waiting.pop_front();
        if next.is_none() {
            semaphore.count = semaphore.count.saturating_add(1);
        }
        Some(next)
    }

    /// The process has ended: it waits for nothing any more, and its semaphores are gone.
    pub fn forget(&mut self, pid: Pid) {
        for semaphore in self.all.values_mut() {
            semaphore.waiting.retain(|&waiting| waiting != pid);
        }
        let gone: Vec<u64> =
            self.all.iter().filter(|(_, s)| s.owner == pid).map(|(&id, _)| id).collect();
        for id in gone {
            self.released.extend(self.all.remove(&id).map(|s| s.waiting).into_iter().flatten());
        }
    }

    /// Those who waited for a semaphore that is gone.
    pub fn take_released(&mut self) -> Vec<Pid> {
        core::mem::take(&mut self.released)
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }
}
