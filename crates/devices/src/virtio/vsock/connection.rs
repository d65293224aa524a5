//! One connection: a stream of the host's, and what both sides may still send (virtio 1.2,
//! 5.10.6.3).

use super::packet::{Header, SHUT_BOTH, SHUT_RECEIVE, SHUT_SEND};
use rustix::event::PollFlags;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::num::Wrapping;
use std::os::unix::net::UnixStream;

/// Bytes of the guest's that are kept for the host's side of a connection, which takes its time.
pub(super) const BUFFER: u32 = 256 << 10;

/// A port of the guest's or of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockPort(pub u32);

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) guest: u32,
    pub(super) host: u32,
}

/// What both ends have agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The guest has been asked.
    Asked,
    /// It is there.
    Open,
}

/// How a stream of the host's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// It may send.
    Sends,
    /// It sends no more.
    Sent,
    /// It has gone.
    Gone,
}

/// The stream failed, or the guest broke the rules: the connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reset;

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) phase: Phase,
    pub(super) host: Host,
    /// A look at the stream may find something.
    readable: bool,
    writable: bool,
    /// What the guest has said that it does no more.
    shut: u32,
    /// The host's side has been told that the guest sends no more.
    passed_on: bool,
    to_host: VecDeque<u8>,
    /// Bytes that the host's side has taken.
    forwarded: Wrapping<u32>,
    /// As much of it as the guest has been told.
    told: Wrapping<u32>,
    /// Bytes sent to the guest.
    sent: Wrapping<u32>,
    /// What the guest keeps at the most, and has taken.
    guest_room: u32,
    guest_taken: Wrapping<u32>,
    /// The guest has been asked for room.
    pub(super) asked: bool,
}

impl Connection {
    /// Over `stream`, which does not block.
    pub(super) fn new(stream: UnixStream, phase: Phase) -> Self {
        Self {
            stream,
            phase,
            host: Host::Sends,
            readable: true,
            writable: true,
            shut: 0,
            passed_on: false,
            to_host: VecDeque::new(),
            forwarded: Wrapping(0),
            told: Wrapping(0),
            sent: Wrapping(0),
            guest_room: 0,
            guest_taken: Wrapping(0),
            asked: false,
        }
    }

    /// The guest's packet says how much room it has.
    pub(super) fn hear(&mut self, header: &Header) {
        self.guest_room = header.buf_alloc;
        self.guest_taken = Wrapping(header.fwd_cnt);
        self.asked &= self.credit() == 0;
    }

    /// Bytes that the guest has room for. None, where it has said what cannot be.
    fn credit(&self) -> u32 {
        let on_the_way = (self.sent - self.guest_taken).0;
        self.guest_room.saturating_sub(on_the_way)
    }

    /// What a packet to the guest tells of this side's room. It counts as told.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        (BUFFER, self.forwarded.0)
    }

    /// Whether the guest should hear of room by a packet for that.
    pub(super) fn has_news(&self) -> bool {
        (self.forwarded - self.told).0 >= BUFFER / 4
    }

    /// Whether something of the host's can be sent on now.
    pub(super) fn can_send(&self) -> bool {
        self.may_read() && self.readable && self.credit() > 0
    }

    /// Whether the guest has to be asked for room.
    pub(super) fn is_stuck(&self) -> bool {
        self.may_read() && self.readable && self.credit() == 0 && !self.asked
    }

    fn may_read(&self) -> bool {
        let listens = self.shut & SHUT_RECEIVE == 0;
        self.phase == Phase::Open && self.host == Host::Sends && listens
    }

    /// Bytes from the host for the guest, as many as `into` and the guest have room for. None:
    /// there are none now.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<Option<usize>, Reset> {
        let most = into.len().min(self.credit() as usize);
        let Some(into) = into.get_mut(..most).filter(|into| !into.is_empty()) else {
            return Ok(None);
        };
        match self.stream.read(into) {
            Ok(0) => self.host = Host::Sent,
            Ok(count) => {
                self.sent += count as u32;
                return Ok(Some(count));
            }
            Err(error) if waits(&error) => self.readable = false,
            Err(_) => return Err(Reset),
        }
        Ok(None)
    }

    /// Bytes from the guest for the host.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), Reset> {
        let room = (BUFFER as usize).saturating_sub(self.to_host.len());
        let may = self.phase == Phase::Open && self.shut & SHUT_SEND == 0;
        if !may || self.host == Host::Gone || bytes.len() > room {
            return Err(Reset);
        }
        self.to_host.extend(bytes);
        self.flush()
    }

    /// Gives the host's side what it takes now.
    pub(super) fn flush(&mut self) -> Result<(), Reset> {
        while self.writable && !self.to_host.is_empty() {
            match self.stream.write(self.to_host.as_slices().0) {
                Ok(count) => {
                    self.to_host.drain(..count);
                    self.forwarded += count as u32;
                }
                Err(error) if waits(&error) => self.writable = false,
                Err(_) => return Err(Reset),
            }
        }
        if self.to_host.is_empty() && self.shut & SHUT_SEND != 0 && !self.passed_on {
            self.passed_on = true;
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// The guest does no more what `flags` say.
    pub(super) fn shut(&mut self, flags: u32) -> Result<(), Reset> {
        self.shut |= flags & SHUT_BOTH;
        self.flush()
    }

    /// Whether the guest has ended it, and the host's side has got everything.
    pub(super) fn is_over(&self) -> bool {
        self.shut == SHUT_BOTH && (self.to_host.is_empty() || self.host == Host::Gone)
    }

    /// What to wait for at the stream; `takes`: the guest has a buffer for it. None: nothing.
    pub(super) fn interest(&self, takes: bool) -> Option<PollFlags> {
        let mut flags = PollFlags::empty();
        if takes && self.may_read() && !self.readable && self.credit() > 0 {
            flags |= PollFlags::IN;
        }
        if !self.to_host.is_empty() && !self.writable {
            flags |= PollFlags::OUT;
        }
        // That it has gone altogether is told without being asked for.
        (!flags.is_empty() || self.host == Host::Sent).then_some(flags)
    }

    /// This has come of it. True: the host's side has gone.
    pub(super) fn came(&mut self, flags: PollFlags) -> bool {
        let over = PollFlags::HUP | PollFlags::ERR;
        self.readable |= flags.intersects(PollFlags::IN | over);
        self.writable |= flags.intersects(PollFlags::OUT | over);
        let goes = self.host == Host::Sent && flags.intersects(over);
        if goes {
            self.host = Host::Gone;
            self.to_host.clear();
        }
        goes
    }
}

/// Whether there is nothing just now.
pub(super) fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
