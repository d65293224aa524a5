//! Locks that survive a panic elsewhere.
//!
//! A file that takes its locks and atomics from here, and none from `std`, can be run under a model
//! of them as well (`tests/interleavings`).
//!
//! What gemello guards by a mutex is consistent between any two statements that change it, so a
//! poisoned lock is as good as any other.
#![forbid(unsafe_code)]

pub use std::sync::{Condvar, Mutex, MutexGuard, atomic};
use std::sync::{PoisonError, TryLockError, WaitTimeoutResult};
use std::time::Duration;

/// Locks `mutex`, whether or not another thread panicked while it held it.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `mutex`, unless another thread has it.
pub fn try_lock<T: ?Sized>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Waits on `condition`, without the lock meanwhile.
pub fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// As [`wait`], for `time` at the most.
pub fn wait_for<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    time: Duration,
) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
    condition.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner)
}

/// Lets the host's other threads run until it is `done`.
pub fn yield_until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::yield_now();
    }
}
