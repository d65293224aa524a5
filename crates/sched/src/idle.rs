//! How a worker waits that has no task: it polls for a while before it sleeps.
//!
//! To wake a thread takes the host tens of microseconds, the more where its own processor is
//! virtual and has gone to rest. A processor that waits for another one, or for a device, is often
//! woken sooner than that. So a worker polls for as long as was worth it the last time, as KVM does
//! for a halted processor (Linux, Documentation/virt/kvm/halt-polling.rst): longer where it has
//! slept for a short time, not at all where it has slept for long. Between two looks the host's
//! other threads run.

use std::time::Duration;
use sync::atomic::{AtomicBool, Ordering};
use sync::{Condvar, MutexGuard};

/// For how long a worker polls at the most.
const MAX: Duration = Duration::from_micros(100);
/// For how long at first, once it has slept for less than [`MAX`].
const GROW_START: Duration = Duration::from_micros(10);

/// Where a worker waits for a call.
pub(crate) struct Idle {
    /// A hint, for a worker that polls.
    called: AtomicBool,
    bell: Condvar,
}

impl Idle {
    pub(crate) fn new() -> Self {
        Self { called: AtomicBool::new(false), bell: Condvar::new() }
    }

    /// The worker is to look for a task.
    pub(crate) fn call(&self) {
        self.called.store(true, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// Whoever has called before has been heard.
    pub(crate) fn expect(&self) {
        self.called.store(false, Ordering::Relaxed);
    }

    /// Polls until the worker is called, or has `waited` for as long as `limit` says.
    pub(crate) fn poll(&self, limit: HaltPoll, waited: impl Fn() -> Duration) {
        sync::yield_until(|| self.called.load(Ordering::Relaxed) || waited() >= limit.0);
    }

    /// Sleeps until the worker is called.
    pub(crate) fn sleep<'a, T>(&self, state: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        sync::wait(&self.bell, state)
    }
}

/// For how long a worker polls.
#[derive(Clone, Copy, Default)]
pub(crate) struct HaltPoll(Duration);

impl HaltPoll {
    pub(crate) fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The worker was called while it polled, for `polled`.
    pub(crate) fn was_called(&mut self, polled: Duration) {
        if polled > 2 * MAX {
            // Others use its processor of the host's: who sleeps gets that sooner.
            self.0 = Duration::ZERO;
        }
    }

    /// The worker polled for `polled`, and then slept: `waited` in all.
    pub(crate) fn slept(&mut self, polled: Duration, waited: Duration) {
        let worth_it = polled <= 2 * MAX && waited <= MAX;
        self.0 = if worth_it { (2 * self.0).clamp(GROW_START, MAX) } else { Duration::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sleeps_for_a_short_time_polls_the_longer() {
        let mut poll = HaltPoll::default();
        for expected in [10, 20, 40, 80, 100, 100] {
            poll.slept(poll.0, MAX);
            assert_eq!(poll.0, Duration::from_micros(expected));
        }
        poll.was_called(poll.0);
        assert_eq!(poll.0, MAX);
        poll.slept(MAX, 2 * MAX);
        assert_eq!(poll.0, Duration::ZERO);
    }

    #[test]
    fn who_has_to_share_its_processor_sleeps() {
        let long = 3 * MAX;
        let mut poll = HaltPoll(MAX);
        poll.was_called(long);
        assert_eq!(poll.0, Duration::ZERO);
        poll = HaltPoll(MAX);
        poll.slept(long, long);
        assert_eq!(poll.0, Duration::ZERO);
    }
}
