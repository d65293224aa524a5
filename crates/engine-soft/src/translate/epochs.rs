//! What processors share for an epoch, and when it is freed: nobody is stopped for that.
//!
//! There is one current value. [`Epochs::advance`] puts another in its place and begins a new
//! epoch. Each processor goes on with what it has until it comes to a place where it keeps nothing
//! of it ([`Member::renew`]); it is told to come there soon. The old value is freed by whoever lets
//! go of it last. A processor that does not run has nothing to go on with: it *parks* what it has,
//! and finds it again when it runs, or finds that an epoch has passed and it was freed meanwhile.
//!
//! While somebody still has the value of the epoch before, no new epoch begins: there are two
//! values at the most.
//!
//! Locks: a leaf each, the list's before a member's. Whoever is notified is called with none held.

use std::sync::{Arc, Weak};
use sync::atomic::{AtomicU64, Ordering};
use sync::{Mutex, lock};

/// Has a processor come to where it renews what it has. Called from any thread.
pub(crate) type Notify = Box<dyn Fn() + Send + Sync>;

/// See the module.
pub(crate) struct Epochs<T> {
    number: AtomicU64,
    state: Mutex<State<T>>,
}

struct State<T> {
    now: Arc<T>,
    before: Weak<T>,
    members: Vec<Arc<Place<T>>>,
}

/// What others see of a member.
struct Place<T> {
    parked: Mutex<Option<Arc<T>>>,
    notify: Notify,
}

/// One processor's share.
pub(crate) struct Member<T> {
    epochs: Arc<Epochs<T>>,
    place: Arc<Place<T>>,
    /// Of which epoch it has the value, or had it.
    number: u64,
    held: Option<Arc<T>>,
}

impl<T> Epochs<T> {
    /// The first epoch, with `value`.
    pub(crate) fn new(value: T) -> Self {
        let state = State { now: Arc::new(value), before: Weak::new(), members: Vec::new() };
        Self { number: AtomicU64::new(1), state: Mutex::new(state) }
    }

    /// The current epoch's number.
    #[inline(always)]
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// The current epoch's value.
    pub(crate) fn current(&self) -> Arc<T> {
        lock(&self.state).now.clone()
    }

    /// A processor that has nothing yet.
    pub(crate) fn join(self: &Arc<Self>, notify: Notify) -> Member<T> {
        let place = Arc::new(Place { parked: Mutex::new(None), notify });
        lock(&self.state).members.push(place.clone());
        Member { epochs: self.clone(), place, number: 0, held: None }
    }

    /// Begins a new epoch with what `make` gives. False: somebody still has the value of the epoch
    /// before.
    ///
    /// # Errors
    /// What `make` says.
    pub(crate) fn advance<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<bool, E> {
        let mut state = lock(&self.state);
        if state.before.strong_count() != 0 {
            return Ok(false);
        }
        let old = std::mem::replace(&mut state.now, Arc::new(make()?));
        state.before = Arc::downgrade(&old);
        self.number.fetch_add(1, Ordering::SeqCst);
        let members = state.members.clone();
        drop(state);
        for member in &members {
            // Who parks after this finds the new number.
            let parked = lock(&member.parked).take();
            drop(parked);
        }
        drop(old);
        members.iter().for_each(|member| (member.notify)());
        Ok(true)
    }
}

impl<T> Member<T> {
    /// The value that the processor has.
    #[inline(always)]
    pub(crate) fn held(&self) -> Option<&T> {
        self.held.as_deref()
    }

    /// The epoch of that value.
    #[inline(always)]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether that is the current one.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.held.is_some() && self.number == self.epochs.number()
    }

    /// Takes the current value. The processor keeps nothing of what it had.
    pub(crate) fn renew(&mut self) {
        let state = lock(&self.epochs.state);
        self.number = self.epochs.number();
        let old = self.held.replace(state.now.clone());
        drop(state);
        drop(old);
    }

    /// The processor does not run for a while.
    pub(crate) fn park(&mut self) {
        let mut parked = lock(&self.place.parked);
        // Whoever has moved the number before this leaves it to us, whoever does later finds it.
        let current = self.is_current();
        let old = self.held.take();
        if current {
            *parked = old;
        } else {
            drop(parked);
            drop(old);
        }
    }

    /// It runs again. False: what it had is gone; it has nothing until it renews.
    pub(crate) fn resume(&mut self) -> bool {
        if self.held.is_none() {
            self.held = lock(&self.place.parked).take();
        }
        self.is_current()
    }
}

impl<T> Drop for Member<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.epochs.state);
        state.members.retain(|other| !Arc::ptr_eq(other, &self.place));
    }
}
