//! VM time for devices: a clock to read and a queue of deadlines.
//!
//! All times are VM nanoseconds, which stand still while the machine is paused. The host's timers
//! are the machine's affair: it sleeps until [`TimerQueue::next_deadline`], calls
//! [`TimerQueue::expire`], and is told through the wake callback when the soonest deadline has
//! moved forward.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use sync::lock;

/// One second in VM nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// The VM clock.
pub trait Clock: Send + Sync {
    /// VM nanoseconds since the machine was created; never decreases.
    fn now(&self) -> u64;
}

/// One moment on both of a machine's clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instant {
    /// VM nanoseconds.
    pub ns: u64,
    /// The guest's TSC.
    pub tsc: u64,
}

/// The guest's time-stamp counter as the local APIC's timer needs it.
pub trait Tsc: Send + Sync {
    /// VM time and the guest's TSC now.
    fn instant(&self) -> Instant;
    /// What RDTSC would give the guest now.
    fn guest_tsc(&self) -> u64;
    /// How far the guest has moved this TSC from the machine's, which stands still while the
    /// machine does and which nothing else moves.
    fn moved(&self) -> u64;
    /// VM nanoseconds until the guest's TSC reaches `tsc`; 0 if it has passed.
    fn ns_until(&self, tsc: u64) -> u64;
}

/// A clock that is moved by hand.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// At zero.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Moves to `now`.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }

    /// Moves on by `ns`.
    pub fn advance(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A TSC that ticks once per VM nanosecond of its clock.
impl Tsc for ManualClock {
    fn instant(&self) -> Instant {
        let now = self.now();
        Instant { ns: now, tsc: now }
    }

    fn guest_tsc(&self) -> u64 {
        self.now()
    }

    fn moved(&self) -> u64 {
        0
    }

    fn ns_until(&self, tsc: u64) -> u64 {
        tsc.saturating_sub(self.now())
    }
}

/// What a timer calls when its deadline has passed.
pub trait Expire: Send + Sync {
    /// `now` is at or after the deadline. The timer is disarmed; it may be armed again from here.
    fn expired(&self, now: u64);
}

/// [`Expire`] for a device that lives in a mutex.
pub trait ExpireMut: Send {
    /// As [`Expire::expired`].
    fn expired(&mut self, now: u64);
}

impl<T: ExpireMut> Expire for Mutex<T> {
    fn expired(&self, now: u64) {
        lock(self).expired(now);
    }
}

/// Names a timer of a [`TimerQueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(usize);

struct Slot {
    name: &'static str,
    deadline: Option<u64>,
    owner: Option<Weak<dyn Expire>>,
}

#[derive(Default)]
struct Inner {
    slots: Vec<Slot>,
    due: BTreeSet<(u64, TimerId)>,
}

/// Deadlines, soonest first. Thread-safe.
#[derive(Default)]
pub struct TimerQueue {
    inner: Mutex<Inner>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl TimerQueue {
    /// An empty queue.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Calls `wake` whenever the soonest deadline becomes sooner. It is called with devices locked
    /// and must only ring a bell (an eventfd). The first caller wins.
    pub fn on_wake(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// A new, disarmed timer without owner; see [`Timer::connect`].
    pub fn timer(self: &Arc<Self>, name: &'static str) -> Timer {
        let mut inner = lock(&self.inner);
        let id = TimerId(inner.slots.len());
        inner.slots.push(Slot { name, deadline: None, owner: None });
        Timer { queue: Arc::clone(self), id }
    }

    /// Arms timer `id` for VM time `deadline`, in place of any earlier deadline.
    pub fn arm(&self, id: TimerId, deadline: u64) {
        let sooner = {
            let mut inner = lock(&self.inner);
            let before = inner.due.first().map(|&(at, _)| at);
            inner.replace(id, Some(deadline));
            before.is_none_or(|at| deadline < at)
        };
        if sooner && let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Disarms timer `id`.
    pub fn cancel(&self, id: TimerId) {
        lock(&self.inner).replace(id, None);
    }

    /// The soonest deadline in VM nanoseconds, if any timer is armed.
    pub fn next_deadline(&self) -> Option<u64> {
        lock(&self.inner).due.first().map(|&(at, _)| at)
    }

    /// Calls the owner of every timer whose deadline is at or before `now`, soonest first, without
    /// the queue's lock. A timer that its owner arms again for a time at or before `now` waits for
    /// the next call. Returns how many expired.
    pub fn expire(&self, now: u64) -> usize {
        let due = lock(&self.inner).take_due(now);
        let count = due.len();
        for owner in due.into_iter().filter_map(|owner| owner.upgrade()) {
            owner.expired(now);
        }
        count
    }
}

impl Inner {
    fn replace(&mut self, id: TimerId, deadline: Option<u64>) {
        let Some(slot) = self.slots.get_mut(id.0) else { return };
        if let Some(old) = slot.deadline {
            self.due.remove(&(old, id));
        }
        slot.deadline = deadline;
        if let Some(new) = deadline {
            self.due.insert((new, id));
        }
    }

    fn take_due(&mut self, now: u64) -> Vec<Weak<dyn Expire>> {
        let mut owners = Vec::new();
        while let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            if let Some(slot) = self.slots.get_mut(id.0) {
                slot.deadline = None;
                tracing::trace!(target: "timers", name = slot.name, late_ns = now - at, "expired");
                owners.extend(slot.owner.clone());
            }
        }
        owners
    }
}

impl fmt::Debug for TimerQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = lock(&self.inner);
        let armed =
            inner.due.iter().filter_map(|&(at, id)| Some((inner.slots.get(id.0)?.name, at)));
        f.debug_map().entries(armed).finish()
    }
}

/// One timer of a queue: what a device holds.
#[derive(Clone, Debug)]
pub struct Timer {
    queue: Arc<TimerQueue>,
    id: TimerId,
}

impl Timer {
    /// Names the owner that [`TimerQueue::expire`] calls.
    pub fn connect(&self, owner: Weak<dyn Expire>) {
        if let Some(slot) = lock(&self.queue.inner).slots.get_mut(self.id.0) {
            slot.owner = Some(owner);
        }
    }

    /// Arms for VM time `deadline`.
    pub fn arm(&self, deadline: u64) {
        self.queue.arm(self.id, deadline);
    }

    /// Arms for `deadline`, or disarms.
    pub fn set(&self, deadline: Option<u64>) {
        match deadline {
            Some(at) => self.arm(at),
            None => self.cancel(),
        }
    }

    /// Disarms.
    pub fn cancel(&self) {
        self.queue.cancel(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Recorder(Mutex<Vec<u64>>);

    impl Expire for Recorder {
        fn expired(&self, now: u64) {
            lock(&self.0).push(now);
        }
    }

    #[test]
    fn expires_in_order_and_once() {
        let queue = TimerQueue::new();
        let recorder = Arc::new(Recorder(Mutex::default()));
        let owner: Arc<dyn Expire> = Arc::clone(&recorder) as _;
        let (a, b) = (queue.timer("a"), queue.timer("b"));
        a.connect(Arc::downgrade(&owner));
        b.connect(Arc::downgrade(&owner));
        a.arm(30);
        b.arm(10);
        a.arm(20);
        assert_eq!(queue.next_deadline(), Some(10));
        assert_eq!(queue.expire(9), 0);
        assert_eq!(queue.expire(10), 1);
        assert_eq!(queue.next_deadline(), Some(20));
        b.arm(25);
        b.cancel();
        assert_eq!(queue.expire(100), 1);
        assert_eq!(*lock(&recorder.0), [10, 100]);
        assert_eq!(queue.next_deadline(), None);
    }

    #[test]
    fn wakes_only_for_a_sooner_deadline() {
        let queue = TimerQueue::new();
        let rung = Arc::new(AtomicU64::new(0));
        let bell = Arc::clone(&rung);
        queue.on_wake(move || {
            bell.fetch_add(1, Ordering::SeqCst);
        });
        let (a, b) = (queue.timer("a"), queue.timer("b"));
        a.arm(100);
        b.arm(200);
        b.arm(100);
        b.arm(50);
        assert_eq!(rung.load(Ordering::SeqCst), 2);
    }
}
