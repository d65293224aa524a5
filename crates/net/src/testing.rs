//! A guest that is a test.

use crate::{Abilities, Backend, Delivery, Frame, Guest, Offload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// What it has received, what it can do, and for how many frames it has room.
pub(crate) struct Inbox {
    pub(crate) frames: VecDeque<(Vec<u8>, Offload)>,
    pub(crate) abilities: Abilities,
    pub(crate) room: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        let (frames, abilities) = Default::default();
        Self { frames, abilities, room: usize::MAX }
    }
}

impl Guest for Inbox {
    fn abilities(&self) -> Abilities {
        self.abilities
    }

    fn deliver(&mut self, frame: &Frame<'_>) -> Delivery {
        if self.frames.len() >= self.room {
            return Delivery::Full;
        }
        self.frames.push_back((frame.parts.concat(), frame.offload));
        Delivery::Taken
    }
}

/// Lets `backend` work when it wants to, until `done`.
pub(crate) fn until<B: Backend>(
    backend: &mut B,
    inbox: &mut Inbox,
    done: impl Fn(&B, &Inbox) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    while !done(backend, inbox) {
        assert!(Instant::now() < end, "it never comes to that");
        let mut fds = [PollFd::from_borrowed_fd(backend.descriptor(), PollFlags::IN)];
        let moment = Timespec::try_from(Duration::from_millis(5)).expect("short");
        poll(&mut fds, Some(&moment)).expect("poll");
        backend.work(inbox);
    }
}

/// The next frame that `backend` has for the guest.
pub(crate) fn next(backend: &mut impl Backend, inbox: &mut Inbox) -> (Vec<u8>, Offload) {
    until(backend, inbox, |_, inbox| !inbox.frames.is_empty());
    inbox.frames.pop_front().expect("one")
}

/// A frame to station `to` from station `from`, with a payload.
pub(crate) fn frame(to: u8, from: u8, payload: &[u8]) -> Vec<u8> {
    let to = if to == 0xff { [0xff; 6] } else { [0x52, 0, 0, 0, 0, to] };
    [&to[..], &[0x52, 0, 0, 0, 0, from, 0x88, 0xb5], payload].concat()
}

/// An empty folder of this test's own, whose thread is called after it.
pub(crate) fn folder() -> PathBuf {
    let name = std::thread::current().name().unwrap_or_default().replace(':', "-");
    let folder = std::env::temp_dir().join(format!("gemello-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}
