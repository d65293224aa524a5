//! Locking that survives a panic elsewhere: a device's state is consistent between any two of its
//! methods.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex` whether or not another thread panicked while holding it.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
