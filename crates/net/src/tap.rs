//! A TAP device of the host's, which an administrator has made for this user.

use crate::inbound::Inbound;
use crate::ready::Ready;
use crate::vnet::{HEADER, Header};
use crate::{Activity, Backend, FRAME_MAX, Guest, Offload};
use rustix::event::epoll::EventFlags;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// Frames that are taken in a turn.
const TURN: usize = 64;

/// See the module. Frames carry what their sender has left undone; the host's kernel does it.
#[derive(Debug)]
pub(crate) struct Tap {
    device: host::Tap,
    ready: Ready,
    inbound: Inbound,
    buffer: Vec<u8>,
    lost: u64,
}

impl Tap {
    /// With its other end at `device`.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub(crate) fn new(device: host::Tap) -> io::Result<Self> {
        let ready = Ready::new()?;
        let buffer = vec![0; HEADER + FRAME_MAX];
        Ok(Self { device, ready, inbound: Inbound::default(), buffer, lost: 0 })
    }
}

impl Backend for Tap {
    fn transmit(&mut self, frame: &[u8], offload: Offload, _guest: &mut dyn Guest) {
        let header = Header::of(frame, offload).to_bytes();
        let pieces = [IoSlice::new(&header), IoSlice::new(frame)];
        let sent = self.device.file().write_vectored(&pieces);
        self.lost += u64::from(sent.is_err());
    }

    fn work(&mut self, guest: &mut dyn Guest) {
        for _ in 0..TURN {
            if !self.inbound.flush(guest) {
                break;
            }
            match self.device.file().read(&mut self.buffer) {
                Ok(len) => {
                    let Some((header, frame)) = self.buffer[..len].split_first_chunk() else {
                        break;
                    };
                    self.inbound.give(frame, Header::from_bytes(header).offload(), guest);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let room = self.inbound.flush(guest);
        let wanted = if room { EventFlags::IN } else { EventFlags::empty() };
        if let Err(error) = self.ready.want(self.device.file(), wanted) {
            tracing::warn!(target: "net", "cannot watch the guest's TAP device: {error}");
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.ready.descriptor()
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn reset(&mut self) {
        self.inbound.clear();
    }

    fn activity(&self) -> Activity {
        Activity { lost: self.lost, flows: None }
    }
}
