//! A network behind the host's sockets, without privileges: the guest is alone in 10.0.2.0/24 with
//! a router, which translates addresses.
//!
//! ```text
//! 10.0.2.15                the guest, by DHCP
//! 10.0.2.2     fec0::2     the router; with `host_loopback`, the host's 127.0.0.1 and ::1
//! 10.0.2.3     fec0::3     the resolver: asks the host's
//! ```
//! By IPv6 the guest makes addresses of its own in fec0::/64, or asks for fec0::15, where the
//! router offers it that.
//! Each connection and each flow of datagrams has a socket of the host's. Nothing but what
//! [`reach`] lets through opens one. Parts: [`tcp`], [`datagrams`] (UDP, echo, DNS), [`doors`]
//! (forwards), [`dhcp`], [`dhcpv6`], [`neighbors`].

mod addresses;
mod context;
mod datagrams;
mod dhcp;
mod dhcpv6;
mod doors;
mod fragments;
mod neighbors;
mod reach;
mod resolvers;
mod ring;
mod slab;
mod tcp;
#[cfg(test)]
mod tests;
mod wire;

pub use self::addresses::Addresses;
use self::addresses::may_be_guests;
use self::context::Context;
use self::datagrams::Datagrams;
use self::doors::{Door, Doors};
use self::fragments::{Fragments, Piece};
use self::neighbors::Router;
use self::reach::Reach;
use self::slab::{Id, Kind, Queue, Timers};
use self::tcp::Tcp;
use self::wire::{Cable, Ends, GATEWAY, GUEST, Ip, OUR_MAC, RESOLVER, checksum_of, is_ours};
use crate::config::{Forward, Protocol, UserConfig};
use crate::{Activity, Backend, BackendState, ETHERNET_HEADER, Flows, Guest, Offload};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol,
    Ipv4Packet, Ipv6Packet, TcpPacket, TcpRepr, UdpPacket,
};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Sockets that are looked at in a turn.
const EVENTS: usize = 64;
/// Bytes of the longest datagram.
const DATAGRAM_MAX: usize = 65507; // of IPv4, by which forwards lead to the guest

/// How far the sums of a frame of the guest's are to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sums {
    /// Each is there, and can be checked.
    Whole,
    /// The guest leaves the transport's to us.
    Partial,
}

/// Why there is no such network.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A port of the host's cannot be had.
    #[error(
        "cannot listen at {}:{address} for the guest: {source}; free that port, or give another in \
         `net`, or 0 for any", protocol.name()
    )]
    Forward {
        /// What it speaks.
        protocol: Protocol,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The host refuses what it needs.
    #[error("cannot set the guest's network up: {0}")]
    Host(#[from] io::Error),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct UserNet {
    epoll: OwnedFd,
    cable: Cable,
    reach: Reach,
    tcp: Tcp,
    datagrams: Datagrams,
    fragments: Fragments,
    router: Router,
    doors: Doors,
    /// Sockets that may have more datagrams or peers for the guest.
    waiting: Queue,
    timers: Timers,
    began: Instant,
}

impl UserNet {
    /// The network of `config`; its forwards are open from now on.
    ///
    /// # Errors
    /// A port is taken, or the host has no descriptor left.
    pub(crate) fn new(config: &UserConfig) -> Result<Self, UserError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let mut doors = Doors::new();
        for forward in &config.forward {
            let Forward { protocol, host: address, .. } = *forward;
            let refused = |source| UserError::Forward { protocol, address, source };
            doors.open(*forward, &epoll).map_err(refused)?;
        }
        Ok(Self {
            epoll,
            cable: Cable::new(),
            reach: Reach::new(config),
            tcp: Tcp::new(),
            datagrams: Datagrams::new(),
            fragments: Fragments::default(),
            router: Router::default(),
            doors,
            waiting: Queue::default(),
            timers: Timers::default(),
            began: Instant::now(),
        })
    }

    /// The forwards, with the ports that the host has chosen.
    pub(crate) fn forwards(&self) -> Vec<Forward> {
        self.doors.forwards()
    }

    /// Everything but a context, and the context.
    fn split<'a>(&'a mut self, guest: &'a mut dyn Guest) -> (Parts<'a>, Context<'a>) {
        let Self { epoll, cable, reach, tcp, datagrams, fragments, router, .. } = self;
        let Self { doors, waiting, timers, began, .. } = self;
        let parts = Parts { reach, tcp, datagrams, fragments, router, doors, waiting };
        let now = Instant::now();
        (parts, Context { cable, guest, timers, epoll, now, began: *began })
    }
}

struct Parts<'a> {
    reach: &'a mut Reach,
    tcp: &'a mut Tcp,
    datagrams: &'a mut Datagrams,
    fragments: &'a mut Fragments,
    router: &'a mut Router,
    doors: &'a mut Doors,
    waiting: &'a mut Queue,
}

impl Parts<'_> {
    /// The guest's IPv4 packet.
    fn packet_v4(&mut self, bytes: &[u8], sums: Sums, cx: &mut Context<'_>) {
        let Ok(packet) = Ipv4Packet::new_checked(bytes) else { return };
        if packet.version() != 4 || !packet.verify_checksum() {
            return;
        }
        let (source, protocol) = (packet.src_addr(), packet.next_header());
        let ip = Ip { source: source.into(), to: packet.dst_addr().into(), protocol };
        cx.cable.guest.note(ip.source);
        if packet.more_frags() || packet.frag_offset() != 0 {
            if source == GUEST {
                self.piece(&Piece::of_v4(&packet), cx);
            }
            return;
        }
        if source == GUEST {
            return self.payload(ip, packet.payload(), sums, cx);
        }
        // Who has no address yet asks for one.
        let dhcp = UdpPacket::new_checked(packet.payload())
            .is_ok_and(|udp| udp.dst_port() == dhcp::SERVER_PORT);
        if source.is_unspecified() && protocol == IpProtocol::Udp && dhcp {
            self.payload(ip, packet.payload(), sums, cx);
        }
    }

    /// The guest's IPv6 packet. Of headers between IP's and the payload's there may be the one of
    /// fragments.
    fn packet_v6(&mut self, bytes: &[u8], sums: Sums, cx: &mut Context<'_>) {
        let Ok(packet) = Ipv6Packet::new_checked(bytes) else { return };
        if packet.version() != 6 || !self.reach.has_ipv6() {
            return;
        }
        let (source, protocol) = (packet.src_addr(), packet.next_header());
        let ip = Ip { source: source.into(), to: packet.dst_addr().into(), protocol };
        cx.cable.guest.note(ip.source);
        if !may_be_guests(source) {
            // On the link alone.
            let link = source.is_unspecified() || source.is_unicast_link_local();
            if link && protocol == IpProtocol::Icmpv6 && stays_on_the_link(packet.dst_addr()) {
                self.icmp(ip, packet.payload(), cx);
            }
            let servers = protocol == IpProtocol::Udp && packet.dst_addr() == dhcpv6::SERVERS;
            if source.is_unicast_link_local() && servers {
                self.udp(ip, packet.payload(), sums, cx);
            }
            return;
        }
        match Piece::of_v6(&packet) {
            Some(piece) => self.piece(&piece, cx),
            None => self.payload(ip, packet.payload(), sums, cx),
        }
    }

    fn piece(&mut self, piece: &Piece<'_>, cx: &mut Context<'_>) {
        if let Some(payload) = self.fragments.add(piece, cx.now) {
            self.payload(piece.ip, &payload, Sums::Whole, cx);
        }
    }

    /// The payload of a packet of the guest's.
    fn payload(&mut self, ip: Ip, payload: &[u8], sums: Sums, cx: &mut Context<'_>) {
        if ip.to == ip.source {
            return;
        }
        match ip.protocol {
            IpProtocol::Tcp => {
                let mut checks = ChecksumCapabilities::ignored();
                if sums == Sums::Whole {
                    checks.tcp = Checksum::Both;
                }
                let Ok(packet) = TcpPacket::new_checked(payload) else { return };
                let repr = TcpRepr::parse(&packet, &ip.source.into(), &ip.to.into(), &checks);
                if let Ok(repr) = repr {
                    let ends = ends(ip, repr.src_port, repr.dst_port);
                    self.tcp.segment(ends, &repr, self.reach, cx);
                }
            }
            IpProtocol::Udp => self.udp(ip, payload, sums, cx),
            IpProtocol::Icmp if ip.to.is_ipv4() => self.icmp(ip, payload, cx),
            IpProtocol::Icmpv6 if ip.to.is_ipv6() => self.icmp(ip, payload, cx),
            _ => {}
        }
    }

    fn icmp(&mut self, ip: Ip, message: &[u8], cx: &mut Context<'_>) {
        // The sum of all, its own place included, is 0.
        if message.len() < 8 || checksum_of(ip, message) != 0 {
            return;
        }
        if ip.to.is_ipv6() {
            self.router.hear(ip, message, self.reach, cx);
        }
        if !ip.to.is_multicast() && !ip.source.is_unspecified() {
            self.datagrams.icmp(ip, message, self.reach, cx);
        }
    }

    fn udp(&mut self, ip: Ip, bytes: &[u8], sums: Sums, cx: &mut Context<'_>) {
        let Ok(packet) = UdpPacket::new_checked(bytes) else { return };
        // A sum of 0 is none; IPv6 has to have one (RFC 8200, 8.1).
        let checked = sums == Sums::Whole && (packet.checksum() != 0 || ip.to.is_ipv6());
        let wrong = checked
            && (packet.checksum() == 0
                || !packet.verify_checksum(&ip.source.into(), &ip.to.into()));
        if wrong {
            return;
        }
        let quiet = match ip.to {
            IpAddr::V4(to) => {
                let all = to.is_broadcast();
                if packet.dst_port() == dhcp::SERVER_PORT && (to == GATEWAY || all) {
                    return dhcp::answer(packet.payload(), self.reach.restrict(), cx);
                }
                all || to.is_multicast() || to.octets()[3] == 255
            }
            IpAddr::V6(to) => {
                if let (dhcpv6::SERVERS, dhcpv6::SERVER_PORT, IpAddr::V6(source)) =
                    (to, packet.dst_port(), ip.source)
                {
                    return dhcpv6::answer(source, packet.payload(), self.reach, cx);
                }
                to.is_multicast()
            }
        };
        if quiet || packet.src_port() == 0 {
            return;
        }
        let ends = ends(ip, packet.src_port(), packet.dst_port());
        let answer = self.datagrams.udp(ends, packet.payload(), self.reach, cx);
        if let Some((door, peer)) = answer
            && let Some(Door::Udp(socket, _)) = self.doors.get_mut(door)
        {
            let _ = socket.send_to(packet.payload(), peer); // or it is lost, as datagrams are
        }
    }

    fn arp(bytes: &[u8], cx: &mut Context<'_>) {
        let Ok(packet) = ArpPacket::new_checked(bytes) else { return };
        let Ok(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr: asked,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        cx.cable.guest.note(source_protocol_addr.into());
        if asked != GATEWAY && asked != RESOLVER {
            return;
        }
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: OUR_MAC,
            source_protocol_addr: asked,
            target_hardware_addr: source_hardware_addr,
            target_protocol_addr: source_protocol_addr,
        };
        let mut frame = cx.cable.frame(EthernetProtocol::Arp, reply.buffer_len());
        reply.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET_HEADER..]));
        cx.cable.give(frame, cx.guest);
    }

    /// Takes what peers have brought to a door. True: there may be more.
    fn visit(&mut self, id: Id, cx: &mut Context<'_>) -> bool {
        let mut buffer = Vec::new();
        for _ in 0..EVENTS {
            if cx.cable.is_full() {
                return true;
            }
            match self.doors.get_mut(id) {
                Some(Door::Tcp(..)) => {
                    let Some((stream, port)) = self.doors.accept(id) else { return false };
                    self.tcp.accepted(stream, port, cx);
                }
                Some(Door::Udp(..)) => {
                    buffer.resize(DATAGRAM_MAX, 0);
                    let came = self.doors.receive(id, &mut buffer);
                    let Some((len, peer, port)) = came else { return false };
                    self.datagrams.visit((id, peer), port, &buffer[..len], cx);
                }
                None => return false,
            }
        }
        true
    }

    /// Takes from the sockets that may have something, each once, while the guest has room.
    fn receive(&mut self, cx: &mut Context<'_>) {
        for _ in 0..self.waiting.len() {
            if cx.cable.is_full() {
                return;
            }
            let Some(id) = self.waiting.pop() else { return };
            let more = match id.kind() {
                Kind::Connection => false,
                Kind::Datagrams => self.datagrams.ready(id, self.reach, cx),
                Kind::Forward => self.visit(id, cx),
            };
            if more {
                self.waiting.push(id);
            }
        }
    }

    fn events(&mut self, cx: &mut Context<'_>) {
        let none =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [none; EVENTS];
        let now = Timespec::default();
        let count = match epoll::wait(cx.epoll, &mut events[..], Some(&now)) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => {
                tracing::warn!(target: "net", "cannot watch the guest's sockets: {error}");
                0
            }
        };
        for event in &events[..count] {
            let id = Id::from_word(event.data.u64());
            match id.kind() {
                Kind::Connection => self.tcp.ready(id, event.flags, cx),
                Kind::Datagrams | Kind::Forward => self.waiting.push(id),
            }
        }
    }
}

impl Backend for UserNet {
    fn transmit(&mut self, bytes: &[u8], offload: Offload, guest: &mut dyn Guest) {
        let sums = if offload.checksum.is_some() { Sums::Partial } else { Sums::Whole };
        let Ok(frame) = EthernetFrame::new_checked(bytes) else { return };
        if !frame.src_addr().is_unicast() {
            return;
        }
        self.cable.guest_mac = frame.src_addr();
        if frame.dst_addr() != OUR_MAC && frame.dst_addr().is_unicast() {
            return;
        }
        let (mut parts, mut cx) = self.split(guest);
        match frame.ethertype() {
            EthernetProtocol::Arp => Parts::arp(frame.payload(), &mut cx),
            EthernetProtocol::Ipv4 => parts.packet_v4(frame.payload(), sums, &mut cx),
            EthernetProtocol::Ipv6 => parts.packet_v6(frame.payload(), sums, &mut cx),
            _ => {}
        }
    }

    fn work(&mut self, guest: &mut dyn Guest) {
        let (mut parts, mut cx) = self.split(guest);
        parts.events(&mut cx);
        while let Some(id) = cx.timers.pop(cx.now) {
            match id.kind() {
                Kind::Connection => parts.tcp.expired(id, &mut cx),
                Kind::Datagrams => parts.datagrams.expired(id, parts.reach, &mut cx),
                Kind::Forward => {}
            }
        }
        parts.router.work(parts.reach, &mut cx);
        if cx.cable.flush(cx.guest) {
            parts.tcp.unblock();
        }
        parts.receive(&mut cx);
        parts.tcp.work(&mut cx);
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn deadline(&self) -> Option<Instant> {
        let receives = self.waiting.len() > 0 || self.tcp.has_severed();
        let busy = self.tcp.is_busy() || receives && !self.cable.is_full();
        let busy = busy.then(Instant::now);
        busy.or(self.timers.soonest().into_iter().chain(self.router.due()).min())
    }

    fn reset(&mut self) {
        let mut nobody = Nobody;
        let (parts, mut cx) = self.split(&mut nobody);
        parts.tcp.clear(&mut cx);
        parts.datagrams.clear(&mut cx);
        parts.fragments.clear();
        parts.router.clear();
        parts.waiting.clear();
        parts.doors.look_again(cx.epoll);
        self.cable.clear();
    }

    fn save(&self) -> BackendState {
        let station = self.cable.guest_mac;
        let station = station.is_unicast().then_some(station.0);
        BackendState { station, addresses: self.cable.guest, connections: self.tcp.save() }
    }

    fn restore(&mut self, state: BackendState) {
        let BackendState { station, addresses, connections } = state;
        self.cable.guest = addresses;
        if let Some(station) = station.map(EthernetAddress).filter(EthernetAddress::is_unicast) {
            self.cable.guest_mac = station;
        }
        self.tcp.sever(connections);
    }

    fn activity(&self) -> Activity {
        let mut flows = Flows::default();
        self.tcp.count(&mut flows);
        self.datagrams.count(&mut flows);
        Activity { lost: self.cable.lost, flows: Some(flows) }
    }
}

/// The ends of a flow of the guest's, to which a packet with header `ip` belongs.
fn ends(ip: Ip, port: u16, remote: u16) -> Ends {
    Ends { guest: SocketAddr::new(ip.source, port), remote: SocketAddr::new(ip.to, remote) }
}

/// Whether packets to `ip` go no further than the link.
fn stays_on_the_link(ip: Ipv6Addr) -> bool {
    is_ours(ip.into()) || ip.segments()[0] == 0xFF02
}

/// A guest that is not there.
struct Nobody;

impl Guest for Nobody {
    fn abilities(&self) -> crate::Abilities {
        crate::Abilities::default()
    }

    fn deliver(&mut self, _frame: &crate::Frame<'_>) -> crate::Delivery {
        crate::Delivery::Taken
    }
}
