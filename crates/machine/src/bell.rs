//! What wakes the I/O thread: an eventfd.

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::sync::Arc;

/// Rung by any thread, any number of times, at any moment; heard by one.
#[derive(Clone, Debug)]
pub struct Bell {
    fd: Arc<OwnedFd>,
}

impl Bell {
    /// A new bell.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Wakes the listener. Never blocks: a counter that is full has been rung already.
    pub fn ring(&self) {
        let _ = rustix::io::write(&*self.fd, &1_u64.to_ne_bytes());
    }

    /// Takes note that it rang.
    pub(crate) fn silence(&self) {
        let _ = rustix::io::read(&*self.fd, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
