//! An Ethernet switch that the machines of one user share, in whatever process they are.
//!
//! ```text
//! a machine ── Port ──┐
//! a machine ── Port ──┤ NAME.switch (SOCK_SEQPACKET) ── Hub, a thread of one of the processes
//! a machine ── Port ──┘
//! ```
//! The first port starts the hub; when that ends, with its process, the next port that misses it
//! starts another. Who does so holds `NAME.switch-lock`. A message is a frame after a [`vnet`]
//! header: what a sender leaves undone stays so as far as the receiver's guest takes it.
//!
//! [`vnet`]: crate::vnet

mod hub;
mod table;
#[cfg(test)]
mod tests;

use self::hub::Hub;
use crate::inbound::Inbound;
use crate::ready::Ready;
use crate::vnet::{HEADER, Header};
use crate::{Activity, Backend, FRAME_MAX, Guest, Link, Offload};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_peercred};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What each side says first. It changes with the protocol.
const HELLO: &[u8] = b"gemello switch 1";
/// Bytes of the longest message.
const MESSAGE_MAX: usize = HEADER + FRAME_MAX;
/// Bytes that a socket is to hold, if the host permits.
const BUFFER: usize = 1 << 20;
/// Bytes that wait for the hub; what comes then is lost.
const WAITING_MAX: usize = 4 << 20;
/// Messages that are taken in a turn.
const TURN: usize = 64;
/// Until the next attempt to find the hub, or to be it: others may be about to.
const RETRY: Duration = Duration::from_millis(20);
/// The same where the first attempts have failed.
const RETRY_LATER: Duration = Duration::from_secs(1);
/// How long a guest does not notice that the hub is another.
const UNNOTICED: Duration = Duration::from_secs(1);

/// A port of a switch, to which a guest is joined.
#[derive(Debug)]
pub(crate) struct Port {
    path: PathBuf,
    lock: PathBuf,
    ready: Ready,
    socket: Option<OwnedFd>,
    /// The hub has said that it speaks as we do.
    greeted: bool,
    /// When the hub was last there, and when we look again.
    seen: Instant,
    retry: Instant,
    told: bool,
    /// The switch itself, where it fell to us.
    hub: Option<Hub>,
    inbound: Inbound,
    waiting: VecDeque<Vec<u8>>,
    /// Bytes of them.
    bytes: usize,
    buffer: Vec<u8>,
    lost: u64,
}

impl Port {
    /// A port of the switch `name`, whose socket is in `folder`: this user's alone.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn new(folder: &Path, name: &str) -> io::Result<Self> {
        let now = Instant::now();
        let mut port = Self {
            path: folder.join(format!("{name}.switch")),
            lock: folder.join(format!("{name}.switch-lock")),
            ready: Ready::new()?,
            socket: None,
            greeted: false,
            seen: now,
            retry: now,
            told: false,
            hub: None,
            inbound: Inbound::default(),
            waiting: VecDeque::new(),
            bytes: 0,
            buffer: vec![0; MESSAGE_MAX + 1],
            lost: 0,
        };
        SocketAddrUnix::new(&port.path)?;
        port.join()?;
        Ok(port)
    }

    /// Finds the hub, or becomes it, unless another is about to.
    fn join(&mut self) -> io::Result<()> {
        let noticed = self.seen.elapsed() >= UNNOTICED;
        self.retry = Instant::now() + if noticed { RETRY_LATER } else { RETRY };
        let socket = match reach(&self.path)? {
            Some(socket) => socket,
            None => {
                let mut options = File::options();
                let lock = options.create(true).truncate(false).write(true).open(&self.lock)?;
                match lock.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Ok(()),
                    Err(TryLockError::Error(error)) => return Err(error),
                }
                // Somebody may have been faster.
                match reach(&self.path)? {
                    Some(socket) => socket,
                    None => {
                        self.hub = None; // it had ended
                        self.hub = Some(Hub::start(&self.path)?);
                        let gone = || io::Error::from(io::ErrorKind::ConnectionRefused);
                        reach(&self.path)?.ok_or_else(gone)?
                    }
                }
            }
        };
        let _ = set_socket_send_buffer_size(&socket, BUFFER); // or the usual one
        send(&socket, HELLO, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        self.ready.want(&socket, EventFlags::IN)?;
        (self.socket, self.greeted) = (Some(socket), false);
        Ok(())
    }

    fn rejoin(&mut self) {
        if self.socket.is_some() || Instant::now() < self.retry {
            return;
        }
        if let Err(error) = self.join()
            && !std::mem::replace(&mut self.told, true)
        {
            let path = self.path.display();
            tracing::warn!(target: "net", "the guest's switch {path} cannot be had: {error}");
        }
    }

    fn leave(&mut self) {
        self.socket = None;
        self.ready.closed();
        (self.greeted, self.bytes) = (false, 0);
        self.lost += self.waiting.drain(..).count() as u64;
    }

    /// Sends what waits, as far as the hub takes it.
    fn send(&mut self) -> Result<(), Errno> {
        let Some(socket) = &self.socket else { return Ok(()) };
        while let Some(message) = self.waiting.front() {
            match send(socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => {}
                // A message is sent whole.
                Err(Errno::AGAIN | Errno::NOBUFS) => break,
                Err(Errno::INTR) => continue,
                // This host's sockets hold no message of that size.
                Err(Errno::MSGSIZE) => self.lost += 1,
                Err(error) => return Err(error),
            }
            self.bytes = self.bytes.saturating_sub(message.len());
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Takes what has come, until the guest has no more room.
    fn receive(&mut self, guest: &mut dyn Guest) -> Result<(), Errno> {
        let Some(socket) = &self.socket else { return Ok(()) };
        for _ in 0..TURN {
            if !self.inbound.flush(guest) {
                break;
            }
            let len = match recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Errno::PIPE),
                Ok((len, _)) => len,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let message = &self.buffer[..len];
            if !self.greeted {
                if message != HELLO {
                    return Err(Errno::PROTO);
                }
                (self.greeted, self.told) = (true, false);
            } else if let Some((header, frame)) = message.split_first_chunk()
                && len <= MESSAGE_MAX
            {
                self.inbound.give(frame, Header::from_bytes(header).offload(), guest);
            }
        }
        Ok(())
    }
}

/// Whether the other end of `socket` is a process of this user's.
fn is_mine(socket: impl AsFd) -> bool {
    socket_peercred(socket).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

/// Connects to the hub at `path`. `None`: there is none.
fn reach(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) if is_mine(&socket) => Ok(Some(socket)),
        Ok(()) => Err(io::Error::other("another user serves it")),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Backend for Port {
    fn transmit(&mut self, frame: &[u8], offload: Offload, _guest: &mut dyn Guest) {
        let len = HEADER + frame.len();
        if self.socket.is_none() || self.bytes + len > WAITING_MAX {
            self.lost += 1;
            return;
        }
        self.bytes += len;
        self.waiting.push_back([&Header::of(frame, offload).to_bytes()[..], frame].concat());
    }

    fn work(&mut self, guest: &mut dyn Guest) {
        self.rejoin();
        let done = self.send().and_then(|()| self.receive(guest));
        let room = self.inbound.flush(guest);
        let Some(socket) = &self.socket else { return };
        self.seen = Instant::now();
        let read = if room { EventFlags::IN } else { EventFlags::empty() };
        let write = if self.waiting.is_empty() { EventFlags::empty() } else { EventFlags::OUT };
        if done.is_err() || self.ready.want(socket, read | write).is_err() {
            self.leave();
            self.rejoin();
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
        let there = self.socket.is_some() || self.seen.elapsed() < UNNOTICED;
        if there { Link::Up } else { Link::Down }
    }

    fn activity(&self) -> Activity {
        Activity { lost: self.lost, flows: None }
    }
}
