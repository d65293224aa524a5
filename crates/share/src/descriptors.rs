//! How many of the process's descriptors the shares may hold.
//!
//! A machine needs some for itself. Three quarters of the limit are for files that guests look at
//! and have open, split among the shares there are.

use rustix::process::{Resource, getrlimit};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shares of this process.
static SHARES: AtomicUsize = AtomicUsize::new(0);

/// A share's part; there is one less share when it is dropped.
#[derive(Debug)]
pub(crate) struct Budget(());

impl Budget {
    pub(crate) fn new() -> Self {
        SHARES.fetch_add(1, Ordering::Relaxed);
        Self(())
    }

    /// Descriptors that the share may have now.
    pub(crate) fn most(&self) -> usize {
        /// None needs more.
        const ENOUGH: u64 = 1 << 16;
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH).min(ENOUGH) as usize;
        let all = limit - limit / 4;
        (all / SHARES.load(Ordering::Relaxed).max(1)).max(16)
    }

    /// Directories that it may watch. Half of the user's are left to his other programs.
    pub(crate) fn watches(&self) -> usize {
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches");
        let limit = limit.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(8192_usize);
        limit / 2 / SHARES.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        SHARES.fetch_sub(1, Ordering::Relaxed);
    }
}
