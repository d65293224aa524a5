//! One file of the host's behind a descriptor that stays the same.

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An epoll instance with one file at the most: readable when that is ready for what is wanted.
#[derive(Debug)]
pub(crate) struct Ready {
    epoll: OwnedFd,
    wanted: EventFlags,
}

impl Ready {
    /// With no file.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, wanted: EventFlags::empty() })
    }

    /// Wants `file` for this and nothing else from now on: for nothing, its end included, if that
    /// is empty.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn want(&mut self, file: impl AsFd, wanted: EventFlags) -> io::Result<()> {
        let data = EventData::new_u64(0);
        match (self.wanted.is_empty(), wanted.is_empty()) {
            _ if self.wanted == wanted => return Ok(()),
            (true, _) => epoll::add(&self.epoll, file, data, wanted)?,
            (false, true) => epoll::delete(&self.epoll, file)?,
            (false, false) => epoll::modify(&self.epoll, file, data, wanted)?,
        }
        self.wanted = wanted;
        Ok(())
    }

    /// The file has been closed.
    pub(crate) fn closed(&mut self) {
        self.wanted = EventFlags::empty();
    }

    /// See the type.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
