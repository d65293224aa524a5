//! Whether a machine's tasks wait for a worker, told without the hub's lock.

use std::sync::Arc;
// Not `sync`'s: no thread relies on an order, so models of threads do without it.
use std::sync::atomic::{AtomicBool, Ordering};

/// A hint for a task that spins: whether it keeps others of its machine waiting. Right up to what
/// changes at this moment.
#[derive(Clone, Debug, Default)]
pub struct Rivals(Arc<AtomicBool>);

impl Rivals {
    /// Whether a task of the machine waits for a worker and may run.
    pub fn wait(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// From now on they do or do not. Written only where that is news: spinning tasks read it.
    pub(crate) fn tell(&self, wait: bool) {
        if self.wait() != wait {
            self.0.store(wait, Ordering::Relaxed);
        }
    }
}
