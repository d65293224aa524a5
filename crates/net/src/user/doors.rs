//! Ports of the host's that lead to the guest.

use super::datagrams::{EVENTS, hold_more};
use super::slab::{Id, Kind, Slab};
use super::tcp::reset;
use crate::config::{Forward, Protocol};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::listen;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Peers that may wait to be accepted. Of more the host drops what they send, and each tries again
/// after a second.
const BACKLOG: i32 = 4096;

/// A port of the host's.
#[derive(Debug)]
pub(super) enum Door {
    Tcp(TcpListener, Forward),
    Udp(UdpSocket, Forward),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Doors {
    all: Slab<Door>,
    /// Given up for a moment to refuse a peer when the process has no descriptor left.
    spare: Option<OwnedFd>,
}

impl Doors {
    pub(super) fn new() -> Self {
        Self { all: Slab::new(Kind::Forward), spare: None }
    }

    /// Opens the port that `forward` says, watched by `epoll`.
    ///
    /// # Errors
    /// It is taken, or the host has no descriptor left.
    pub(super) fn open(&mut self, forward: Forward, epoll: &OwnedFd) -> io::Result<()> {
        let door = Door::open(forward)?;
        let data = epoll::EventData::new_u64(self.all.next_id().word());
        epoll::add(epoll, door.descriptor(), data, EVENTS)?;
        self.all.insert(door);
        self.keep_spare();
        Ok(())
    }

    /// Has `epoll` tell of all that wait, also of those that it has told of.
    pub(super) fn look_again(&self, epoll: &OwnedFd) {
        for (id, door) in self.all.iter() {
            let data = epoll::EventData::new_u64(id.word());
            let _ = epoll::modify(epoll, door.descriptor(), data, EVENTS); // it is there
        }
    }

    /// The forwards, with the ports that the host has chosen.
    pub(super) fn forwards(&self) -> Vec<Forward> {
        self.all.values().map(Door::forward).collect()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Door> {
        self.all.get_mut(id)
    }

    /// The next peer that waits at the listener `id`, and the guest's port. `None`: nobody does.
    pub(super) fn accept(&mut self, id: Id) -> Option<(TcpStream, u16)> {
        loop {
            let Some(Door::Tcp(listener, forward)) = self.all.get_mut(id) else { return None };
            match listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    return Some((stream, forward.guest));
                }
                Ok(_) => {}
                Err(error) => match Errno::from_io_error(&error) {
                    // That one is refused; whoever waits behind may still come.
                    Some(Errno::MFILE | Errno::NFILE) if self.spare.take().is_some() => {
                        let refused = listener.accept().map(|(stream, _)| reset(&stream));
                        self.keep_spare();
                        refused.ok()?;
                    }
                    Some(Errno::INTR | Errno::CONNABORTED) => {}
                    _ => return None,
                },
            }
        }
    }

    fn keep_spare(&mut self) {
        self.spare = eventfd(0, EventfdFlags::CLOEXEC).ok();
    }

    /// The next datagram of a peer's at the port `id`, and the guest's port. `None`: there is none.
    pub(super) fn receive(
        &mut self,
        id: Id,
        buffer: &mut [u8],
    ) -> Option<(usize, SocketAddr, u16)> {
        let Some(Door::Udp(socket, forward)) = self.all.get_mut(id) else { return None };
        let (len, peer) = socket.recv_from(buffer).ok()?;
        Some((len, peer, forward.guest))
    }
}

impl Door {
    fn open(forward: Forward) -> io::Result<Self> {
        match forward.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(forward.host)?;
                listen(&listener, BACKLOG)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener, forward))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(forward.host)?;
                hold_more(&socket);
                socket.set_nonblocking(true)?;
                Ok(Self::Udp(socket, forward))
            }
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Udp(socket, _) => socket.as_fd(),
        }
    }

    fn forward(&self) -> Forward {
        let (forward, address) = match self {
            Self::Tcp(listener, forward) => (*forward, listener.local_addr()),
            Self::Udp(socket, forward) => (*forward, socket.local_addr()),
        };
        match address {
            Ok(host) => Forward { host, ..forward },
            Err(_) => forward,
        }
    }
}
