//! Flows by number, and when each has to be looked at.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Instant;

/// A flow's name: also of one that has ended, and then of no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u64);

/// What an [`Id`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    Datagrams,
    Forward,
}

impl Id {
    pub(super) fn kind(self) -> Kind {
        match self.0 >> 62 {
            0 => Kind::Connection,
            1 => Kind::Datagrams,
            _ => Kind::Forward,
        }
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }

    /// For epoll.
    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// The reverse of [`Id::word`].
    pub(super) fn from_word(word: u64) -> Self {
        Self(word)
    }
}

/// Flows of one kind.
#[derive(Debug)]
pub(super) struct Slab<T> {
    kind: u64,
    slots: Vec<Option<(Id, T)>>,
    vacant: Vec<usize>,
    /// How many there ever were.
    count: u64,
}

impl<T> Slab<T> {
    pub(super) fn new(kind: Kind) -> Self {
        let kind = match kind {
            Kind::Connection => 0,
            Kind::Datagrams => 1,
            Kind::Forward => 2,
        };
        Self { kind, slots: Vec::new(), vacant: Vec::new(), count: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// The next one's name.
    pub(super) fn next_id(&self) -> Id {
        let index = self.vacant.last().copied().unwrap_or(self.slots.len());
        Id(self.kind << 62 | (self.count & 0x3FFF_FFFF) << 32 | index as u64)
    }

    pub(super) fn insert(&mut self, value: T) -> Id {
        let id = self.next_id();
        self.count += 1;
        match self.vacant.pop() {
            Some(index) => self.slots[index] = Some((id, value)),
            None => self.slots.push(Some((id, value))),
        }
        id
    }

    pub(super) fn get(&self, id: Id) -> Option<&T> {
        match self.slots.get(id.index()) {
            Some(Some((own, value))) if *own == id => Some(value),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.slots.get_mut(id.index()) {
            Some(Some((own, value))) if *own == id => Some(value),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        self.get_mut(id)?;
        self.vacant.push(id.index());
        self.slots[id.index()].take().map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Id, T)> {
        self.slots.iter().flatten()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }
}

/// Those that may have more to do, each once, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<Id>,
    there: HashSet<Id>,
}

impl Queue {
    pub(super) fn push(&mut self, id: Id) {
        if self.there.insert(id) {
            self.order.push_back(id);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Id> {
        let id = self.order.pop_front()?;
        self.there.remove(&id);
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn clear(&mut self) {
        self.order.clear();
        self.there.clear();
    }
}

/// Who has to be looked at, and when: once for each flow at the most, perhaps too early.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Id)>);

/// A flow's place in [`Timers`].
#[derive(Debug, Default)]
pub(super) struct Timer {
    due: Option<Instant>,
    queued: Option<Instant>,
}

impl Timers {
    /// Has `id` looked at at `due`.
    pub(super) fn set(&mut self, id: Id, timer: &mut Timer, due: Option<Instant>) {
        timer.due = due;
        let Some(due) = due else { return };
        match timer.queued {
            Some(queued) if queued <= due => {}
            queued => {
                if let Some(queued) = queued {
                    self.0.remove(&(queued, id));
                }
                self.0.insert((due, id));
                timer.queued = Some(due);
            }
        }
    }

    /// Forgets `id`, which has ended.
    pub(super) fn forget(&mut self, id: Id, timer: &Timer) {
        if let Some(queued) = timer.queued {
            self.0.remove(&(queued, id));
        }
    }

    /// Somebody whose turn it may be.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Id> {
        let &(due, id) = self.0.first().filter(|&&(due, _)| due <= now)?;
        self.0.remove(&(due, id));
        Some(id)
    }

    /// Whether it is the turn of `id`, which [`Timers::pop`] gave; else it waits on.
    pub(super) fn expired(&mut self, id: Id, timer: &mut Timer, now: Instant) -> bool {
        timer.queued = None;
        match timer.due {
            Some(due) if due > now => {
                self.set(id, timer, Some(due));
                false
            }
            due => due.is_some(),
        }
    }

    pub(super) fn soonest(&self) -> Option<Instant> {
        self.0.first().map(|&(due, _)| due)
    }

    /// Of those of `kind` that wait, in the order in which they are looked at.
    pub(super) fn all_of(&self, kind: Kind) -> impl Iterator<Item = Id> {
        self.0.iter().map(|&(_, id)| id).filter(move |id| id.kind() == kind)
    }
}
