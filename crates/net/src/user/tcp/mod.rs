//! All TCP connections, and the ports of the host's that lead to the guest.

mod conn;
mod dial;

use self::conn::{Conn, Fate, RING_LEAST, State};
use self::dial::dial;
use super::context::{About, Context};
use super::reach::Reach;
use super::slab::{Id, Kind, Slab};
use super::wire::{BARE, Ends};
use crate::{CONNECTIONS_MAX, Connection, Flows};
use rustix::event::epoll::EventFlags;
use rustix::net::sockopt::set_socket_linger;
use smoltcp::wire::{IpProtocol, TcpControl, TcpRepr, TcpSeqNumber};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// Bytes that all rings may hold together, beyond what each holds at first.
const RINGS_MAX: usize = 128 << 20;
/// What the host is to tell of a connection's socket.
const EVENTS: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// See the module.
#[derive(Debug)]
pub(super) struct Tcp {
    conns: Slab<Conn>,
    by_ends: HashMap<Ends, Id>,
    /// Those that have something to do.
    queue: VecDeque<Id>,
    /// Those that have something for the guest, when it has room.
    blocked: Vec<Id>,
    /// Those of the guest's that ended with the process that it was saved in. It is to be told.
    severed: Vec<Connection>,
    spare: usize,
    numbers: RandomState,
    /// The next port of the gateway's that a forward uses.
    next_port: u16,
}

impl Tcp {
    pub(super) fn new() -> Self {
        Self {
            conns: Slab::new(Kind::Connection),
            by_ends: HashMap::new(),
            queue: VecDeque::new(),
            blocked: Vec::new(),
            severed: Vec::new(),
            spare: RINGS_MAX,
            numbers: RandomState::new(),
            next_port: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }

    /// All that the guest takes to be open.
    pub(super) fn save(&self) -> Vec<Connection> {
        self.conns.values().map(Conn::save).chain(self.severed.iter().copied()).collect()
    }

    /// The guest takes these to be open, and they are not.
    pub(super) fn sever(&mut self, connections: Vec<Connection>) {
        self.severed = connections;
    }

    pub(super) fn has_severed(&self) -> bool {
        !self.severed.is_empty()
    }

    /// Tells the guest of those that are severed, while it has room. Where it waits for another
    /// number, it says so, and that is answered as any segment of no connection is (RFC 5961, 3.2).
    fn tell_severed(&mut self, cx: &mut Context<'_>) {
        while !cx.cable.is_full()
            && let Some(connection) = self.severed.pop()
        {
            let Connection { guest, remote, next, expected } = connection;
            let ends = Ends { guest, remote };
            if self.by_ends.contains_key(&ends) || guest.is_ipv4() != remote.is_ipv4() {
                continue;
            }
            let repr = TcpRepr {
                src_port: remote.port(),
                dst_port: guest.port(),
                control: TcpControl::Rst,
                seq_number: TcpSeqNumber(next.cast_signed()),
                ack_number: Some(TcpSeqNumber(expected.cast_signed())),
                ..BARE
            };
            cx.cable.tcp(ends, &repr, (&[], &[]), u16::MAX, cx.guest);
        }
    }

    /// Counts them by their state.
    pub(super) fn count(&self, flows: &mut Flows) {
        flows.tcp_open = self.conns.values().filter(|conn| conn.state == State::Open).count();
        flows.tcp_opening = self.len() - flows.tcp_open;
    }

    /// Whether somebody has something to do now.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The guest has sent `segment`.
    pub(super) fn segment(
        &mut self,
        ends: Ends,
        segment: &TcpRepr<'_>,
        reach: &Reach,
        cx: &mut Context<'_>,
    ) {
        if let Some(&id) = self.by_ends.get(&ends) {
            if let Some(conn) = self.conns.get_mut(id) {
                let fate = conn.segment(segment);
                self.settle(id, fate, cx);
                self.enqueue(id);
            }
            return;
        }
        match (segment.control, segment.ack_number) {
            (TcpControl::Syn, None) => {
                let connected = self.connect(ends, segment, reach, cx);
                let about = about(ends, segment.seq_number.0);
                if connected.is_err_and(|error| !cx.tell(about, &error)) {
                    refuse(ends, segment, cx);
                }
            }
            (TcpControl::Rst, _) => {}
            _ => refuse(ends, segment, cx),
        }
    }

    fn connect(
        &mut self,
        ends: Ends,
        syn: &TcpRepr<'_>,
        reach: &Reach,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        if self.len() >= CONNECTIONS_MAX {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (stream, others) = dial(reach.tcp(ends.remote).into(), cx.now)?;
        let mut conn = Conn::new(ends, stream, State::Connecting, self.number(ends, cx));
        conn.others = others;
        conn.take_options(syn);
        self.add(conn, cx)?;
        Ok(())
    }

    /// A peer of the host's has come to a port that leads to the guest's `port`.
    pub(super) fn accepted(&mut self, stream: TcpStream, port: u16, cx: &mut Context<'_>) {
        if self.len() >= CONNECTIONS_MAX {
            return reset(&stream);
        }
        let Some(ends) = self.free_port(port, cx) else { return reset(&stream) };
        let mut conn = Conn::new(ends, stream, State::Opening, self.number(ends, cx));
        conn.open(cx);
        if let Err(error) = self.add(conn, cx) {
            tracing::warn!(target: "net", "a forwarded connection is lost: {error}");
        }
    }

    /// The guest's `port`, and one of the gateway's that it is not connected with.
    fn free_port(&mut self, port: u16, cx: &Context<'_>) -> Option<Ends> {
        for _ in 0..=CONNECTIONS_MAX {
            self.next_port = self.next_port.wrapping_add(1);
            let ends = cx.cable.guest.ends(port, 32768 + self.next_port % 28000);
            if !self.by_ends.contains_key(&ends) {
                return Some(ends);
            }
        }
        None
    }

    /// A first sequence number (RFC 6528): it moves with time, and cannot be guessed.
    fn number(&self, ends: Ends, cx: &Context<'_>) -> u32 {
        let ticks = cx.now.duration_since(cx.began).as_micros() / 4;
        (self.numbers.hash_one(ends) as u32).wrapping_add(ticks as u32)
    }

    fn add(&mut self, conn: Conn, cx: &mut Context<'_>) -> io::Result<()> {
        conn.prepare();
        cx.watch(&conn.stream, self.conns.next_id(), EVENTS)?;
        let ends = conn.ends;
        let id = self.conns.insert(conn);
        self.by_ends.insert(ends, id);
        self.enqueue(id);
        Ok(())
    }

    fn enqueue(&mut self, id: Id) {
        if let Some(conn) = self.conns.get_mut(id)
            && !std::mem::replace(&mut conn.queued, true)
        {
            self.queue.push_back(id);
        }
    }

    /// The host's socket is ready.
    pub(super) fn ready(&mut self, id: Id, events: EventFlags, cx: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let ended = events.intersects(EventFlags::ERR | EventFlags::HUP);
        conn.readable |= ended || events.intersects(EventFlags::IN | EventFlags::RDHUP);
        conn.writable |= ended || events.contains(EventFlags::OUT);
        if conn.state == State::Connecting && conn.writable {
            return self.connected(id, cx);
        }
        self.enqueue(id);
    }

    /// It may be time for `id` to send again.
    pub(super) fn expired(&mut self, id: Id, cx: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if cx.timers.expired(id, &mut conn.timer, cx.now) {
            if conn.state == State::Connecting {
                return self.dial_next(id, None, cx);
            }
            self.follow_guest(id, cx);
            let Some(conn) = self.conns.get_mut(id) else { return };
            let fate = conn.resend(cx);
            let due = conn.due(cx.now);
            cx.timers.set(id, &mut conn.timer, due);
            self.settle(id, fate, cx);
        }
    }

    /// A peer of the host's that waits for a guest which has turned out to have other addresses is
    /// led there.
    fn follow_guest(&mut self, id: Id, cx: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let (old, port) = (conn.ends, conn.ends.guest.port());
        let moved = cx.cable.guest.ends(port, old.remote.port()).guest != old.guest;
        if conn.state != State::Opening || conn.outgoing || !moved {
            return;
        }
        if let Some(ends) = self.free_port(port, cx) {
            self.by_ends.remove(&old);
            self.by_ends.insert(ends, id);
            if let Some(conn) = self.conns.get_mut(id) {
                conn.ends = ends;
            }
        }
    }

    /// The guest has room again.
    pub(super) fn unblock(&mut self) {
        for id in std::mem::take(&mut self.blocked) {
            self.enqueue(id);
        }
    }

    /// Has each that has something to do do it, once.
    pub(super) fn work(&mut self, cx: &mut Context<'_>) {
        self.tell_severed(cx);
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else { break };
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.queued = false;
            let fate = conn.pump(cx);
            for ring in conn.busy_rings() {
                if self.spare >= ring.limit() {
                    self.spare -= ring.limit();
                    ring.raise();
                }
            }
            let due = conn.due(cx.now);
            cx.timers.set(id, &mut conn.timer, due);
            self.settle(id, fate, cx);
        }
    }

    fn settle(&mut self, id: Id, fate: Fate, cx: &mut Context<'_>) {
        match fate {
            Fate::Lives => return,
            Fate::Again => return self.enqueue(id),
            Fate::Blocked => return self.blocked.push(id),
            Fate::Done | Fate::Broken | Fate::Refused => {}
        }
        let Some(conn) = self.conns.remove(id) else { return };
        match fate {
            Fate::Broken => conn.reset(cx),
            Fate::Refused => reset(&conn.stream),
            _ => {}
        }
        cx.timers.forget(id, &conn.timer);
        self.by_ends.remove(&conn.ends);
        self.spare += conn.to_guest.limit() + conn.from_guest.limit() - 2 * RING_LEAST;
    }

    /// Ends all; peers of the host's are told.
    pub(super) fn clear(&mut self, cx: &mut Context<'_>) {
        let ids: Vec<_> = self.by_ends.values().copied().collect();
        ids.into_iter().for_each(|id| self.settle(id, Fate::Refused, cx));
        (self.queue, self.blocked, self.severed) = Default::default();
    }
}

/// A packet with this sequence number.
fn about(ends: Ends, number: i32) -> About {
    About { protocol: IpProtocol::Tcp, ends, word: number.cast_unsigned() }
}

/// Tells the host's peer that the connection is broken.
pub(in crate::user) fn reset(stream: &TcpStream) {
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
}

/// Tells the guest that there is no such connection (RFC 9293, 3.10.7.1).
fn refuse(ends: Ends, segment: &TcpRepr<'_>, cx: &mut Context<'_>) {
    let opens = segment.control == TcpControl::Syn;
    let len = segment.payload.len() + usize::from(opens || segment.control == TcpControl::Fin);
    let after = TcpSeqNumber(segment.seq_number.0.wrapping_add(len as i32));
    let repr = TcpRepr {
        src_port: ends.remote.port(),
        dst_port: segment.src_port,
        control: TcpControl::Rst,
        seq_number: segment.ack_number.unwrap_or(TcpSeqNumber(0)),
        ack_number: segment.ack_number.is_none().then_some(after),
        window_len: 0,
        ..BARE
    };
    cx.cable.tcp(ends, &repr, (&[], &[]), u16::MAX, cx.guest);
}
