//! UDP, ICMP echo and DNS: each flow has a socket of the host's, and ends when it has been silent.

use super::context::{About, Context, Unreachable};
use super::reach::Reach;
use super::slab::{Id, Kind, Slab, Timer};
use super::wire::{Ends, Ip, checksum_of, is_ours};
use crate::Flows;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use smoltcp::wire::IpProtocol;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Flows at the most; the most silent end for new ones.
const FLOWS_MAX: usize = 1024;
/// Queries at the most; the oldest are given up for new ones.
const QUERIES_MAX: usize = 4096;
/// Bytes of datagrams that the host may keep for a flow while we do something else. Its own default
/// is some 25 datagrams of 4000 bytes, whose buffers it counts.
const HOST_BUFFER: usize = 1 << 20;
/// How long a flow may be silent (RFC 4787, 4.3: two minutes at least).
const SILENCE: Duration = Duration::from_secs(120);
/// How long an echo may take.
const ECHO: Duration = Duration::from_secs(10);
/// How long a resolver may take before the next is asked.
const ANSWER: Duration = Duration::from_millis(1500);
/// How often each resolver is asked.
const ROUNDS: usize = 2;
/// Datagrams of one flow that are taken in a turn.
const SHARE: usize = 64;
/// What each path carries (RFC 8200, 5).
const MTU_LEAST: u32 = 1280;
/// Payload of the longest datagram: an IPv6 packet's, less the UDP header.
const PAYLOAD_MAX: usize = 65527;
/// A socket is looked at until it has no more.
pub(super) const EVENTS: EventFlags = EventFlags::IN.union(EventFlags::ET);
/// ICMP's types (RFC 792), and ICMPv6's (RFC 4443, 4).
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// The protocol and both ends; for an echo the guest's port is the identifier.
type Key = (u8, Ends);

#[derive(Debug)]
struct Flow {
    key: Key,
    socket: Option<UdpSocket>,
    what: What,
    timer: Timer,
}

#[derive(Debug)]
enum What {
    Udp,
    Echo,
    /// A query of the guest's; which resolver was asked last, and how many were.
    Query(Vec<u8>, SocketAddr, usize),
    /// A peer of the host's that came to this forward.
    Peer(Id, SocketAddr),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Datagrams {
    flows: Slab<Flow>,
    by_key: HashMap<Key, Id>,
    /// How many of the flows are queries.
    queries: usize,
    buffer: Vec<u8>,
    next_port: u16,
}

/// Where the guest's datagram has to go that came to a forward.
pub(super) type Answer = (Id, SocketAddr);

impl Datagrams {
    pub(super) fn new() -> Self {
        Self {
            flows: Slab::new(Kind::Datagrams),
            by_key: HashMap::new(),
            queries: 0,
            buffer: vec![0; PAYLOAD_MAX],
            next_port: 0,
        }
    }

    /// Counts them by their kind.
    pub(super) fn count(&self, flows: &mut Flows) {
        for flow in self.flows.values() {
            *match flow.what {
                What::Udp | What::Peer(..) => &mut flows.udp,
                What::Echo => &mut flows.echo,
                What::Query(..) => &mut flows.dns,
            } += 1;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The guest has sent `payload`. If that is for a forward's peer, where to send it is the
    /// answer.
    pub(super) fn udp(
        &mut self,
        ends: Ends,
        payload: &[u8],
        reach: &Reach,
        cx: &mut Context<'_>,
    ) -> Option<Answer> {
        let about = About { protocol: IpProtocol::Udp, ends, word: 0 };
        let key = (IpProtocol::Udp.into(), ends);
        if Reach::is_resolver(ends.remote) {
            if reach.resolves() {
                self.query(key, payload, reach, cx);
            } else {
                cx.unreachable(about, Unreachable::Prohibited);
            }
            return None;
        }
        let id = match self.by_key.get(&key) {
            Some(&id) => id,
            None => {
                let Some(target) = reach.address(ends.remote) else {
                    cx.unreachable(about, Unreachable::Prohibited);
                    return None;
                };
                let socket = self.socket(|| connected(target), cx);
                match socket.and_then(|socket| self.add(key, Some(socket), What::Udp, cx)) {
                    Ok(id) => id,
                    Err(error) => {
                        cx.tell(about, &error);
                        return None;
                    }
                }
            }
        };
        let flow = self.flows.get_mut(id)?;
        cx.timers.set(id, &mut flow.timer, Some(cx.now + SILENCE));
        if let What::Peer(forward, peer) = flow.what {
            return Some((forward, peer));
        }
        let socket = flow.socket.as_ref()?;
        // An error is that of an earlier one, perhaps: once more.
        if let Err(error) = socket.send(payload).or_else(|_| socket.send(payload)) {
            match Errno::from_io_error(&error) {
                Some(Errno::MSGSIZE) => {
                    let v4 = ends.remote.is_ipv4();
                    let mtu = if v4 { sockopt::ip_mtu(socket) } else { sockopt::ipv6_mtu(socket) };
                    cx.unreachable(about, Unreachable::TooLong(mtu.unwrap_or(MTU_LEAST)));
                }
                _ => {
                    cx.tell(about, &error);
                }
            }
        }
        None
    }

    /// The guest has sent the ICMP or ICMPv6 `message`, whose sum is right.
    pub(super) fn icmp(&mut self, ip: Ip, message: &[u8], reach: &Reach, cx: &mut Context<'_>) {
        let request = if ip.to.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
        let [kind, 0, _, _, high, low, _, _, ..] = *message else { return };
        if kind != request {
            return;
        }
        if is_ours(ip.to) {
            let reply = Ip { source: ip.to, to: ip.source, ..ip };
            return echo_reply(reply, &mut message.to_vec(), cx);
        }
        let ident = u16::from_be_bytes([high, low]);
        let (guest, remote) = (SocketAddr::new(ip.source, ident), SocketAddr::new(ip.to, 0));
        let ends = Ends { guest, remote };
        let key = (ip.protocol.into(), ends);
        // Where ports are, an ICMP packet has its type and code.
        let quoted = Ends { guest: SocketAddr::new(ip.source, u16::from(request) << 8), remote };
        let about = About { protocol: ip.protocol, ends: quoted, word: 0 };
        let id = match self.by_key.get(&key) {
            Some(&id) => id,
            None => {
                let Some(target) = reach.address(remote) else {
                    return cx.unreachable(about, Unreachable::Prohibited);
                };
                let socket = self.socket(|| echo_socket(target), cx);
                match socket.and_then(|socket| self.add(key, Some(socket), What::Echo, cx)) {
                    Ok(id) => id,
                    Err(error) => {
                        cx.tell(about, &error);
                        return;
                    }
                }
            }
        };
        let Some(flow) = self.flows.get_mut(id) else { return };
        cx.timers.set(id, &mut flow.timer, Some(cx.now + ECHO));
        if let Some(Err(error)) = flow.socket.as_ref().map(|socket| socket.send(message)) {
            cx.tell(about, &error);
        }
    }

    fn query(&mut self, key: Key, payload: &[u8], reach: &Reach, cx: &mut Context<'_>) {
        let Some(&resolver) = reach.resolvers.list().first() else { return };
        let socket = self.socket(|| connected(resolver), cx);
        // A socket that refuses at once is as one that refuses later.
        let socket = socket.inspect(|socket| drop(socket.send(payload))).ok();
        let what = What::Query(payload.to_vec(), resolver, 1);
        if let Ok(id) = self.add(key, socket, what, cx)
            && let Some(flow) = self.flows.get_mut(id)
        {
            cx.timers.set(id, &mut flow.timer, Some(cx.now + ANSWER));
        }
    }

    /// Asks the next resolver; after the last, gives the query up.
    fn ask_next(&mut self, id: Id, reach: &Reach, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        let What::Query(payload, resolver, asked) = &mut flow.what else { return };
        let list = reach.resolvers.list();
        let at = list.iter().position(|one| one == resolver).map_or(0, |at| at + 1);
        let next = list.get(at % list.len().max(1));
        let Some(&next) = next.filter(|_| *asked < ROUNDS * list.len()) else {
            return self.give_up(id, cx);
        };
        (*resolver, *asked) = (next, *asked + 1);
        let socket = connected(next);
        flow.socket = socket.inspect(|socket| drop(socket.send(payload))).ok();
        if let Some(socket) = &flow.socket {
            let _ = cx.watch(socket, id, EVENTS);
        }
        cx.timers.set(id, &mut flow.timer, Some(cx.now + ANSWER));
    }

    /// A peer of the host's has sent `payload` to the `forward` that leads to the guest's `port`.
    pub(super) fn visit(
        &mut self,
        (forward, peer): Answer,
        port: u16,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) {
        let same = |flow: &&Flow| match flow.what {
            What::Peer(own, who) => (own, who) == (forward, peer),
            _ => false,
        };
        let known = self.flows.values().find(same).map(|flow| flow.key);
        let key = match known {
            Some(key) => key,
            None => {
                self.next_port = self.next_port.wrapping_add(1);
                let ends = cx.cable.guest.ends(port, 32768 + self.next_port % 28000);
                let key = (IpProtocol::Udp.into(), ends);
                if self.add(key, None, What::Peer(forward, peer), cx).is_err() {
                    return;
                }
                key
            }
        };
        if let Some(&id) = self.by_key.get(&key)
            && let Some(flow) = self.flows.get_mut(id)
        {
            cx.timers.set(id, &mut flow.timer, Some(cx.now + SILENCE));
        }
        cx.cable.udp(key.1, payload, cx.guest);
    }

    fn add(
        &mut self,
        key: Key,
        socket: Option<UdpSocket>,
        what: What,
        cx: &mut Context<'_>,
    ) -> io::Result<Id> {
        let query = matches!(what, What::Query(..));
        let (count, most) = match query {
            true => (self.queries, QUERIES_MAX),
            false => (self.flows.len() - self.queries, FLOWS_MAX),
        };
        if count >= most {
            self.end_oldest(|flow| matches!(flow.what, What::Query(..)) == query, cx);
        }
        if let Some(socket) = &socket {
            cx.watch(socket, self.flows.next_id(), EVENTS)?;
        }
        let mut flow = Flow { key, socket, what, timer: Timer::default() };
        cx.timers.set(self.flows.next_id(), &mut flow.timer, Some(cx.now + SILENCE));
        let id = self.flows.insert(flow);
        if query {
            self.queries += 1;
        } else {
            self.by_key.insert(key, id);
        }
        Ok(id)
    }

    /// What `make` makes. Where the process has no descriptor left, the most silent flow gives its.
    fn socket(
        &mut self,
        make: impl Fn() -> io::Result<UdpSocket>,
        cx: &mut Context<'_>,
    ) -> io::Result<UdpSocket> {
        match make() {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => {
                self.end_oldest(|flow| flow.socket.is_some(), cx);
                make()
            }
            made => made,
        }
    }

    /// Ends the flow that would end first of those that are `meant`. The guest hears of a query.
    fn end_oldest(&mut self, meant: impl Fn(&Flow) -> bool, cx: &mut Context<'_>) {
        let mut all = cx.timers.all_of(Kind::Datagrams);
        let oldest = all.find(|id| self.flows.get(*id).is_some_and(&meant));
        drop(all);
        oldest.inspect(|id| self.give_up(*id, cx));
    }

    /// Ends a flow. To a query, there will be no answer.
    fn give_up(&mut self, id: Id, cx: &mut Context<'_>) {
        if let Some(Flow { what: What::Query(payload, ..), key: (_, ends), .. }) =
            self.flows.get(id)
        {
            cx.cable.udp(*ends, &server_failure(payload), cx.guest);
        }
        self.remove(id, cx);
    }

    fn remove(&mut self, id: Id, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.remove(id) else { return };
        cx.timers.forget(id, &flow.timer);
        self.queries -= usize::from(matches!(flow.what, What::Query(..)));
        if self.by_key.get(&flow.key) == Some(&id) {
            self.by_key.remove(&flow.key);
        }
    }

    /// Takes what the host's socket may have, while the guest has room. True: there may be more.
    pub(super) fn ready(&mut self, id: Id, reach: &mut Reach, cx: &mut Context<'_>) -> bool {
        for _ in 0..SHARE {
            if cx.cable.is_full() {
                return true;
            }
            let Some(flow) = self.flows.get_mut(id) else { return false };
            let Some(socket) = &flow.socket else { return false };
            let (protocol, ends) = flow.key;
            let received = socket.recv(&mut self.buffer);
            let len = match received {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) if matches!(flow.what, What::Query(..)) => {
                    self.ask_next(id, reach, cx);
                    continue;
                }
                Err(error) => {
                    let about = About { protocol: protocol.into(), ends, word: 0 };
                    cx.tell(about, &error);
                    continue;
                }
            };
            let payload = &mut self.buffer[..len];
            match &flow.what {
                What::Udp | What::Peer(..) => {
                    cx.cable.udp(ends, payload, cx.guest);
                    cx.timers.set(id, &mut flow.timer, Some(cx.now + SILENCE));
                }
                What::Echo if len >= 8 => {
                    payload[4..6].copy_from_slice(&ends.guest.port().to_be_bytes());
                    let (source, to) = (ends.remote.ip(), ends.guest.ip());
                    echo_reply(Ip { source, to, protocol: protocol.into() }, payload, cx);
                }
                What::Echo => {}
                What::Query(asked, resolver, _) => {
                    if payload.get(..2) != asked.get(..2) {
                        continue; // another query's
                    }
                    reach.resolvers.prefer(*resolver);
                    cx.cable.udp(ends, payload, cx.guest);
                    self.remove(id, cx);
                    return false;
                }
            }
        }
        true
    }

    /// `id` may have been silent too long.
    pub(super) fn expired(&mut self, id: Id, reach: &Reach, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        if !cx.timers.expired(id, &mut flow.timer, cx.now) {
            return;
        }
        match flow.what {
            What::Query(..) => self.ask_next(id, reach, cx),
            _ => self.remove(id, cx),
        }
    }

    /// Ends all.
    pub(super) fn clear(&mut self, cx: &mut Context<'_>) {
        let all: Vec<_> = cx.timers.all_of(Kind::Datagrams).collect();
        all.into_iter().for_each(|id| self.remove(id, cx));
        self.by_key.clear();
        self.flows = Slab::new(Kind::Datagrams);
    }
}

fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    hold_more(&socket);
    socket.connect(target)?;
    Ok(socket)
}

/// Has the host keep as much for `socket` as it allows, [`HOST_BUFFER`] at the most.
pub(super) fn hold_more(socket: &UdpSocket) {
    let _ = sockopt::set_socket_recv_buffer_size(socket, HOST_BUFFER); // or its default
}

/// Linux's socket for echoes, which `net.ipv4.ping_group_range` allows.
fn echo_socket(target: SocketAddr) -> io::Result<UdpSocket> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (family, protocol) = match target {
        SocketAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        SocketAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
    let socket = UdpSocket::from(socket);
    socket.connect(target)?;
    Ok(socket)
}

/// Gives the guest `message`, with header `ip`, as an echo reply.
fn echo_reply(ip: Ip, message: &mut [u8], cx: &mut Context<'_>) {
    message[0] = if ip.to.is_ipv4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
    message[2..4].fill(0);
    let sum = checksum_of(ip, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    cx.cable.packet(ip, message, cx.guest);
}

/// The answer of a server that cannot answer (RFC 1035, 4.1.1).
fn server_failure(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    if let Some(flags) = answer.get_mut(2..4) {
        flags[0] |= 0x80;
        flags[1] = 0x82;
    }
    answer
}
