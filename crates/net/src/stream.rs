//! A cable to a program on this host that speaks the stream protocol of QEMU (`-netdev
//! stream,addr.type=unix`) and passt: each frame after its length, four bytes, the most significant
//! first. Neither side leaves anything undone in its frames.
//!
//! The program listens, and we connect. While nobody does, the cable is unplugged, and we try again
//! each second.

use crate::inbound::Inbound;
use crate::offload::carry_out;
use crate::ready::Ready;
use crate::{Activity, Backend, ETHERNET_HEADER, Guest, Link, Offload};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a frame's length.
const LENGTH: usize = 4;
/// Bytes of the longest frame that is taken: QEMU's.
const PEER_FRAME_MAX: usize = 4096 + 65536;
/// Bytes that wait for the program; what comes then is lost.
const PENDING_MAX: usize = 4 << 20;
/// Bytes that are read in a turn.
const TURN: usize = 256 << 10;
/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Stream {
    path: PathBuf,
    ready: Ready,
    socket: Option<OwnedFd>,
    /// When we try again at the earliest.
    retry: Instant,
    /// Why there is no socket has been told.
    told: bool,
    /// Of the program's: what has come of a frame, and those after it.
    received: Vec<u8>,
    inbound: Inbound,
    /// Bytes for the program.
    pending: Vec<u8>,
    whole: Vec<u8>,
    lost: u64,
}

impl Stream {
    /// A cable to who listens at `path`, now or later.
    ///
    /// # Errors
    /// The host has no descriptor left, or `path` is no name of a socket.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        SocketAddrUnix::new(path)?;
        let mut stream = Self {
            path: path.into(),
            ready: Ready::new()?,
            socket: None,
            retry: Instant::now(),
            told: false,
            received: Vec::new(),
            inbound: Inbound::default(),
            pending: Vec::new(),
            whole: Vec::new(),
            lost: 0,
        };
        stream.connect();
        Ok(stream)
    }

    fn connect(&mut self) {
        let now = Instant::now();
        if self.socket.is_some() || now < self.retry {
            return;
        }
        self.retry = now + RETRY;
        let connected = reach(&self.path).and_then(|socket| {
            self.ready.want(&socket, EventFlags::IN)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => (self.socket, self.told) = (Some(socket), false),
            Err(error) => self.tell(&format!("nobody answers: {error}")),
        }
    }

    /// Says once why the cable is unplugged.
    fn tell(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            let path = self.path.display();
            tracing::warn!(
                target: "net",
                "the guest's network at {path} is unplugged, {why}; it is tried again each second"
            );
        }
    }

    fn hang_up(&mut self, why: &str) {
        self.socket = None;
        self.ready.closed();
        self.received.clear();
        self.pending.clear();
        self.tell(why);
    }

    /// Sends what waits, as far as the program takes it.
    fn send(&mut self) {
        let Some(socket) = &self.socket else { return };
        let mut sent = 0;
        let error = loop {
            if sent == self.pending.len() {
                break None;
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(socket, &self.pending[sent..], flags) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break None,
                Err(error) => break Some(error),
            }
        };
        self.pending.drain(..sent);
        if let Some(error) = error {
            self.hang_up(&format!("the other end has gone: {error}"));
        }
    }

    /// Takes what the program has sent, until the guest has no more room.
    fn receive(&mut self, guest: &mut dyn Guest) {
        let mut taken = 0;
        while taken < TURN && self.inbound.flush(guest) {
            let Some(socket) = &self.socket else { return };
            let before = self.received.len();
            self.received.resize(before + (64 << 10), 0);
            let came = recv(socket, &mut self.received[before..], RecvFlags::DONTWAIT);
            let count = came.as_ref().map_or(0, |(count, _)| *count);
            self.received.truncate(before + count);
            match came {
                Ok((0, _)) => return self.hang_up("the other end has gone"),
                Ok(_) => taken += count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => return self.hang_up(&format!("the other end has gone: {error}")),
            }
            if let Err(length) = self.unpack(guest) {
                let why = format!("the other end speaks otherwise: a frame of {length} bytes");
                return self.hang_up(&why);
            }
        }
    }

    /// Gives the frames that are there. `Err`: one cannot be as long as that.
    fn unpack(&mut self, guest: &mut dyn Guest) -> Result<(), usize> {
        let mut at = 0;
        while let Some((head, rest)) = self.received[at..].split_first_chunk::<LENGTH>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > PEER_FRAME_MAX {
                return Err(length);
            }
            let Some(frame) = rest.get(..length) else { break };
            if length >= ETHERNET_HEADER {
                self.inbound.give(frame, Offload::default(), guest);
            }
            at += LENGTH + length;
        }
        self.received.drain(..at);
        Ok(())
    }
}

/// Connects to who listens at `path`, without waiting.
fn reach(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

impl Backend for Stream {
    fn transmit(&mut self, frame: &[u8], offload: Offload, _guest: &mut dyn Guest) {
        let Self { pending, whole, lost, socket, .. } = self;
        if socket.is_none() {
            *lost += 1;
            return;
        }
        carry_out(frame, offload, whole, |frame| {
            if pending.len() + LENGTH + frame.len() > PENDING_MAX {
                *lost += 1;
                return;
            }
            pending.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            pending.extend_from_slice(frame);
        });
    }

    fn work(&mut self, guest: &mut dyn Guest) {
        self.connect();
        self.send();
        self.receive(guest);
        let Some(socket) = &self.socket else { return };
        let room = self.inbound.flush(guest);
        let read = if room { EventFlags::IN } else { EventFlags::empty() };
        let write = if self.pending.is_empty() { EventFlags::empty() } else { EventFlags::OUT };
        if let Err(error) = self.ready.want(socket, read | write) {
            self.hang_up(&format!("this host cannot watch it: {error}"));
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.ready.descriptor()
    }

    fn deadline(&self) -> Option<Instant> {
        self.socket.is_none().then_some(self.retry)
    }

    fn reset(&mut self) {
        self.inbound.clear();
    }

    fn link(&self) -> Link {
        if self.socket.is_some() { Link::Up } else { Link::Down }
    }

    fn activity(&self) -> Activity {
        Activity { lost: self.lost, flows: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Inbox, folder, frame, next, until};
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn packed(frame: &[u8]) -> Vec<u8> {
        [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
    }

    fn unpacked(peer: &mut UnixStream) -> Vec<u8> {
        let mut length = [0; LENGTH];
        peer.read_exact(&mut length).expect("a length");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        peer.read_exact(&mut frame).expect("a frame");
        frame
    }

    #[test]
    fn frames_pass_both_ways_however_they_come() {
        let path = folder().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (mut stream, mut inbox) = (Stream::new(&path).expect("a cable"), Inbox::default());
        assert_eq!(stream.link(), Link::Up);
        let (mut peer, _) = listener.accept().expect("the cable");
        let (first, second) = (frame(1, 2, &[7; 50]), frame(1, 3, &[8; 60_000]));
        let bytes = [packed(&first), packed(&[1; 5]), packed(&second)].concat();
        let (head, tail) = bytes.split_at(70);
        peer.write_all(head).expect("sent");
        assert_eq!(next(&mut stream, &mut inbox).0, first);
        inbox.room = 0;
        peer.write_all(tail).expect("sent");
        until(&mut stream, &mut inbox, |stream, _| !stream.received.is_empty());
        inbox.room = 1;
        assert_eq!(next(&mut stream, &mut inbox).0, second, "what is too short is none");
        // A sum is left undone.
        let mut out = frame(2, 1, &[9; 46]);
        out[50..52].fill(0);
        let offload = Offload { checksum: Some((34, 16)), segment: None };
        stream.transmit(&out, offload, &mut inbox);
        stream.work(&mut inbox);
        let got = unpacked(&mut peer);
        assert_eq!(smoltcp::wire::checksum::data(&got[34..]), 0xffff);
        assert_eq!(got[..50], out[..50]);
    }

    #[test]
    fn a_peer_goes_and_comes() {
        let path = folder().join("socket");
        let (mut stream, mut inbox) = (Stream::new(&path).expect("a cable"), Inbox::default());
        assert_eq!(stream.link(), Link::Down);
        stream.transmit(&frame(1, 2, &[0; 50]), Offload::default(), &mut inbox);
        assert_eq!(stream.activity().lost, 1);
        let listener = UnixListener::bind(&path).expect("a socket");
        until(&mut stream, &mut inbox, |stream, _| stream.link() == Link::Up);
        drop(listener.accept().expect("the cable"));
        until(&mut stream, &mut inbox, |stream, _| stream.link() == Link::Down);
        until(&mut stream, &mut inbox, |stream, _| stream.link() == Link::Up);
        let (mut peer, _) = listener.accept().expect("the cable again");
        peer.write_all(&[0xff; 100]).expect("nonsense");
        until(&mut stream, &mut inbox, |stream, _| stream.link() == Link::Down);
        assert!(inbox.frames.is_empty());
    }

    #[test]
    fn a_peer_that_reads_nothing_costs_bounded_memory() {
        let path = folder().join("socket");
        let _listener = UnixListener::bind(&path).expect("a socket");
        let (mut stream, mut inbox) = (Stream::new(&path).expect("a cable"), Inbox::default());
        let long = frame(1, 2, &[0; 60_000]);
        while stream.activity().lost == 0 {
            stream.transmit(&long, Offload::default(), &mut inbox);
            stream.work(&mut inbox);
        }
        assert!(stream.pending.len() <= PENDING_MAX);
        assert_eq!(stream.link(), Link::Up);
    }
}
