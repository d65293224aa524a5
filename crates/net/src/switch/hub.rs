//! The switch itself: a thread that passes messages between the ports of one socket.

use super::table::{Table, Target};
use super::{BUFFER, HELLO, MESSAGE_MAX, is_mine};
use crate::vnet::HEADER;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, listen, recv, send, socket_with,
};
use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Ports at the most.
const PORTS_MAX: usize = 256;
/// Bytes that wait for a port; what comes then is lost to it.
const WAITING_MAX: usize = 4 << 20;
/// Messages of one port that are taken in a turn.
const TURN: usize = 64;
/// Ports that may wait to be accepted.
const BACKLOG: i32 = 64;

/// See the module. Dropped, the switch ends, and its ports find another.
#[derive(Debug)]
pub(super) struct Hub {
    path: PathBuf,
    /// To the thread: end.
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    /// Serves at the socket `path`, which nobody else does, and where something may have been left.
    ///
    /// # Errors
    /// The host refuses.
    pub(super) fn start(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&listener, &SocketAddrUnix::new(path)?)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listen(&listener, BACKLOG)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mine = Arc::clone(&bell);
        let work = move || {
            // It serves guests. Where the host refuses, all is as before.
            let _ = host::give_up_privileges();
            Ports::default().serve(&listener, &mine);
        };
        let thread = Some(thread::Builder::new().name("switch".into()).spawn(work)?);
        Ok(Self { path: path.into(), bell, thread })
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Before the socket closes, so that it is nobody else's that goes.
        let _ = fs::remove_file(&self.path);
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
        self.thread.take().map(JoinHandle::join);
    }
}

struct Port {
    number: u64,
    socket: OwnedFd,
    /// It has said that it speaks as we do.
    greeted: bool,
    waiting: VecDeque<Rc<[u8]>>,
    /// Bytes of them.
    bytes: usize,
}

/// The ports that are there.
struct Ports {
    ports: Vec<Port>,
    table: Table<u64>,
    next: u64,
}

impl Default for Ports {
    fn default() -> Self {
        Self { ports: Vec::new(), table: Table::new(), next: 0 }
    }
}

impl Ports {
    /// Passes messages on until `bell` rings.
    fn serve(mut self, listener: &OwnedFd, bell: &OwnedFd) {
        let mut buffer = vec![0; MESSAGE_MAX + 1];
        loop {
            let mut fds =
                vec![PollFd::new(bell, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
            fds.extend(self.ports.iter().map(|port| {
                let write =
                    if port.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                PollFd::new(&port.socket, PollFlags::IN | write)
            }));
            let _ = poll(&mut fds, None);
            let came: Vec<_> = fds.iter().map(PollFd::revents).collect();
            if !came[0].is_empty() {
                return;
            }
            let ready = self.ports.iter().zip(&came[2..]).filter(|(_, came)| !came.is_empty());
            let ready: Vec<_> = ready.map(|(port, _)| port.number).collect();
            for number in ready {
                if self.turn(number, &mut buffer).is_err() {
                    self.ports.retain(|port| port.number != number);
                    self.table.forget(number);
                }
            }
            if !came[1].is_empty() {
                self.admit(listener);
            }
        }
    }

    /// Lets in who has come, if it is a process of this user's.
    fn admit(&mut self, listener: &OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        while let Ok(socket) = accept_with(listener, flags) {
            if self.ports.len() >= PORTS_MAX || !is_mine(&socket) {
                continue;
            }
            let _ = set_socket_send_buffer_size(&socket, BUFFER); // or the usual one
            self.next += 1;
            let (greeted, waiting, bytes) = (false, [Rc::from(HELLO)].into(), HELLO.len());
            self.ports.push(Port { number: self.next, socket, greeted, waiting, bytes });
        }
    }

    /// Sends the port what waits for it, and passes on what it has sent.
    ///
    /// # Errors
    /// It has gone, or speaks otherwise.
    fn turn(&mut self, number: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let now = Instant::now();
        for _ in 0..TURN {
            let port = self.ports.iter_mut().find(|port| port.number == number);
            let Some(port) = port else { return Ok(()) };
            port.flush()?;
            let len = match recv(&port.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Errno::PIPE),
                Ok((len, _)) => len,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error),
            };
            let message = &buffer[..len];
            if !port.greeted {
                if message != HELLO {
                    return Err(Errno::PROTO);
                }
                port.greeted = true;
            } else if let Some(frame) = message.get(HEADER..)
                && len <= MESSAGE_MAX
            {
                let target = self.table.forward(frame, number, now);
                self.pass(message, number, target);
            }
        }
        Ok(())
    }

    fn pass(&mut self, message: &[u8], from: u64, target: Target<u64>) {
        if target == Target::None {
            return;
        }
        let message: Rc<[u8]> = message.into();
        for port in &mut self.ports {
            let wanted = match target {
                Target::One(number) => port.number == number,
                _ => port.number != from,
            };
            if wanted && port.greeted && port.bytes + message.len() <= WAITING_MAX {
                port.bytes += message.len();
                port.waiting.push_back(Rc::clone(&message));
                // An error is found in its own turn.
                let _ = port.flush();
            }
        }
    }
}

impl Port {
    fn flush(&mut self) -> Result<(), Errno> {
        while let Some(message) = self.waiting.front() {
            match send(&self.socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                // A message is sent whole. One that no socket of this host's holds is lost.
                Ok(_) | Err(Errno::MSGSIZE) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            }
            self.bytes = self.bytes.saturating_sub(message.len());
            self.waiting.pop_front();
        }
        Ok(())
    }
}
