//! Wakes the I/O thread: an eventfd.

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::sync::Arc;

/// Notified by any thread, any number of times, at any moment; one thread listens.
#[derive(Clone, Debug)]
pub struct Notifier {
    fd: Arc<OwnedFd>,
}

impl Notifier {
    /// A new notifier.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Wakes the listener. Never blocks: a counter that is full has been raised already.
    pub fn notify(&self) {
        let _ = rustix::io::write(&*self.fd, &1_u64.to_ne_bytes());
    }

    /// Resets it, once the listener is awake.
    pub(crate) fn drain(&self) {
        let _ = rustix::io::read(&*self.fd, &mut [0; 8]);
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
