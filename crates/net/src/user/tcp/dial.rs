//! Connections of the guest's, as long as the host connects: where several may answer, one after
//! the other is tried.

use super::conn::{Conn, Fate, State};
use super::{EVENTS, Tcp, about};
use crate::user::context::Context;
use crate::user::slab::Id;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long one is waited for where there are others.
const ANSWER: Duration = Duration::from_millis(1500);

/// Who else may answer, and when the next is tried.
#[derive(Debug)]
pub(super) struct Others {
    left: VecDeque<SocketAddr>,
    pub(super) due: Instant,
}

/// A socket that connects to the first of `all` that the host has a way to, and those after it.
///
/// # Errors
/// There is none.
pub(super) fn dial(
    mut all: VecDeque<SocketAddr>,
    now: Instant,
) -> io::Result<(TcpStream, Option<Others>)> {
    let mut why = io::ErrorKind::ConnectionRefused.into();
    while let Some(target) = all.pop_front() {
        match begin(target) {
            Ok(stream) => {
                let others = Others { left: all, due: now + ANSWER };
                return Ok((stream, Some(others).filter(|others| !others.left.is_empty())));
            }
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn begin(target: SocketAddr) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

impl Tcp {
    /// The host has connected with the other end of `id`, or it has not.
    pub(super) fn connected(&mut self, id: Id, cx: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match conn.stream.take_error() {
            Ok(None) => {
                conn.others = None;
                conn.open(cx);
                self.enqueue(id);
            }
            error => self.dial_next(id, error.ok().flatten(), cx),
        }
    }

    /// Tries the next who may answer; where there is none, the guest is told `why`.
    pub(super) fn dial_next(&mut self, id: Id, why: Option<io::Error>, cx: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let why = match conn.others.take() {
            Some(others) => conn.dial(others.left, id, cx).err(),
            None => why.or_else(|| Some(io::ErrorKind::ConnectionRefused.into())),
        };
        if let Some(why) = why {
            let about = about(conn.ends, conn.syn());
            let fate = if cx.tell(about, &why) { Fate::Done } else { Fate::Broken };
            self.settle(id, fate, cx);
        }
    }
}

impl Conn {
    /// Connects anew, to one of `all`.
    fn dial(&mut self, all: VecDeque<SocketAddr>, id: Id, cx: &mut Context<'_>) -> io::Result<()> {
        debug_assert_eq!(self.state, State::Connecting);
        (self.stream, self.others) = dial(all, cx.now)?;
        (self.readable, self.writable) = (false, false);
        self.prepare();
        cx.watch(&self.stream, id, EVENTS)?;
        let due = self.due(cx.now);
        cx.timers.set(id, &mut self.timer, due);
        Ok(())
    }
}
