//! Time in a model.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each look at it lets time pass, so any wait is over and any quantum may be.
#[derive(Clone, Debug)]
pub struct Clock {
    now: Arc<AtomicU64>,
    step: u64,
}

impl Clock {
    /// A clock that moves on by `step` at each look.
    pub fn stepping(step: Duration) -> Self {
        Self { now: Arc::default(), step: step.as_nanos() as u64 }
    }

    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.now.fetch_add(self.step, Ordering::Relaxed))
    }
}
