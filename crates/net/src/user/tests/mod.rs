//! The network by frames: a guest that is a test, and servers on the host's loopback.

mod load;
mod v6;

use super::wire::NETMASK;
use super::*;
use crate::config::Switch;
use crate::{Abilities, Delivery, Frame};
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, Icmpv4Packet, Ipv4Repr, TcpControl,
    TcpSeqNumber, UdpRepr,
};
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 1]);
const PATIENCE: Duration = Duration::from_secs(20);

/// What the guest has received, and whether it takes more.
#[derive(Default)]
struct Inbox {
    frames: VecDeque<Vec<u8>>,
    room: Option<usize>,
}

impl Guest for Inbox {
    fn abilities(&self) -> Abilities {
        Abilities { checksum: false, segmentation: true, segmentation_v6: true }
    }

    fn deliver(&mut self, frame: &Frame<'_>) -> Delivery {
        if self.room.is_some_and(|room| self.frames.len() >= room) {
            return Delivery::Full;
        }
        self.frames.push_back(frame.parts.concat());
        Delivery::Taken
    }
}

/// A guest and its network.
struct Rig {
    net: UserNet,
    inbox: Inbox,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Rig {
    /// With nothing in reach but the host's loopback.
    fn new(config: UserConfig) -> Self {
        let config = UserConfig { restrict: Switch::On, ..config };
        Self { net: UserNet::new(&config).expect("a network"), inbox: Inbox::default() }
    }

    fn to_host() -> Self {
        Self::new(UserConfig { host_loopback: Switch::On, ..UserConfig::default() })
    }

    fn send_frame(&mut self, bytes: &[u8]) {
        self.net.transmit(bytes, Offload::default(), &mut self.inbox);
        self.net.work(&mut self.inbox);
    }

    fn send_ip(&mut self, to: impl Into<IpAddr>, protocol: IpProtocol, payload: &[u8]) {
        let to = to.into();
        self.send_frame(&packet(guest(to), to, protocol, payload));
    }

    fn send_udp(&mut self, ports: (u16, u16), to: impl Into<IpAddr>, payload: &[u8]) {
        let to = to.into();
        let repr = UdpRepr { src_port: ports.0, dst_port: ports.1 };
        let mut bytes = vec![0; 8 + payload.len()];
        repr.emit(
            &mut UdpPacket::new_unchecked(&mut bytes),
            &guest(to).into(),
            &to.into(),
            payload.len(),
            |into| into.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
        self.send_ip(to, IpProtocol::Udp, &bytes);
    }

    /// The next frame.
    fn receive(&mut self) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(frame) = self.inbox.frames.pop_front() {
                return frame;
            }
            assert!(Instant::now() < end, "nothing comes");
            self.wait();
        }
    }

    /// Lets the network work when it has something to do, or after a moment.
    fn wait(&mut self) {
        let mut all = [PollFd::from_borrowed_fd(self.net.descriptor(), PollFlags::IN)];
        let moment = Timespec::try_from(Duration::from_millis(5)).expect("short");
        poll(&mut all, Some(&moment)).expect("poll");
        self.net.work(&mut self.inbox);
    }

    /// The next IPv4 packet: who from, which protocol, its payload.
    fn receive_ip(&mut self) -> (Ipv4Addr, IpProtocol, Vec<u8>) {
        match self.receive_any() {
            (IpAddr::V4(from), protocol, payload) => (from, protocol, payload),
            other => panic!("no IPv4: {other:?}"),
        }
    }

    /// The next packet.
    fn receive_any(&mut self) -> (IpAddr, IpProtocol, Vec<u8>) {
        let frame = self.receive();
        let bytes = &frame[ETHERNET_HEADER..];
        if EthernetFrame::new_unchecked(&frame).ethertype() == EthernetProtocol::Ipv6 {
            let packet = Ipv6Packet::new_checked(bytes).expect("IPv6");
            assert!(packet.dst_addr() == v6::GUEST_V6 || packet.dst_addr().is_multicast());
            return (packet.src_addr().into(), packet.next_header(), packet.payload().to_vec());
        }
        let packet = Ipv4Packet::new_checked(bytes).expect("IPv4");
        assert!(packet.verify_checksum());
        assert!(packet.dst_addr() == GUEST || packet.dst_addr().is_broadcast());
        (packet.src_addr().into(), packet.next_header(), packet.payload().to_vec())
    }
}

/// The guest's address that packets to `to` come from.
fn guest(to: IpAddr) -> IpAddr {
    if to.is_ipv4() { GUEST.into() } else { v6::GUEST_V6.into() }
}

fn packet(
    from: impl Into<IpAddr>,
    to: impl Into<IpAddr>,
    protocol: IpProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; ETHERNET_HEADER];
    let (src_addr, dst_addr) = match (from.into(), to.into()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => return v6::packet(from, to, protocol, payload),
        mixed => panic!("no packet has {mixed:?}"),
    };
    let repr = Ipv4Repr {
        src_addr,
        dst_addr,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    bytes.resize(ETHERNET_HEADER + repr.buffer_len() + payload.len(), 0);
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(MAC);
    frame.set_dst_addr(OUR_MAC);
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_HEADER..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    bytes
}

/// The guest's end of a connection.
struct Peer {
    port: u16,
    remote: SocketAddr,
    next: u32,
    expected: u32,
    window: u16,
}

/// What a segment of the network's says.
#[derive(Debug)]
struct Heard {
    control: TcpControl,
    number: u32,
    ack: Option<u32>,
    payload: Vec<u8>,
}

impl Peer {
    fn send(&mut self, rig: &mut Rig, control: TcpControl, payload: &[u8]) {
        let opens = control == TcpControl::Syn;
        let repr = TcpRepr {
            src_port: self.port,
            dst_port: self.remote.port(),
            control,
            seq_number: TcpSeqNumber(self.next.cast_signed()),
            ack_number: (self.expected != 0).then_some(TcpSeqNumber(self.expected.cast_signed())),
            window_len: self.window,
            window_scale: opens.then_some(0),
            max_seg_size: opens.then_some(1460),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        let (from, to) = (guest(self.remote.ip()).into(), self.remote.ip().into());
        repr.emit(
            &mut TcpPacket::new_unchecked(&mut bytes),
            &from,
            &to,
            &ChecksumCapabilities::default(),
        );
        self.next = self.next.wrapping_add(repr.segment_len() as u32);
        rig.send_ip(self.remote.ip(), IpProtocol::Tcp, &bytes);
    }

    fn hear(&mut self, rig: &mut Rig) -> Heard {
        let (from, protocol, bytes) = rig.receive_any();
        assert_eq!((from, protocol), (self.remote.ip(), IpProtocol::Tcp));
        let packet = TcpPacket::new_checked(&bytes[..]).expect("TCP");
        let checks = ChecksumCapabilities::default();
        let repr =
            TcpRepr::parse(&packet, &from.into(), &guest(from).into(), &checks).expect("TCP");
        assert_eq!((repr.src_port, repr.dst_port), (self.remote.port(), self.port));
        Heard {
            control: repr.control,
            number: repr.seq_number.0.cast_unsigned(),
            ack: repr.ack_number.map(|ack| ack.0.cast_unsigned()),
            payload: repr.payload.to_vec(),
        }
    }

    /// Connects with the host's `port`.
    fn connect(rig: &mut Rig, port: u16) -> Self {
        Self::connect_by(rig, GATEWAY.into(), port)
    }

    /// The same by `gateway`.
    fn connect_by(rig: &mut Rig, gateway: IpAddr, port: u16) -> Self {
        let remote = SocketAddr::new(gateway, port);
        let mut peer = Self { port: 4000, remote, next: 7, expected: 0, window: u16::MAX };
        peer.send(rig, TcpControl::Syn, &[]);
        let heard = peer.hear(rig);
        assert_eq!((heard.control, heard.ack), (TcpControl::Syn, Some(8)));
        peer.expected = heard.number.wrapping_add(1);
        peer.send(rig, TcpControl::None, &[]);
        peer
    }

    /// Takes data in order and acknowledges each segment, until FIN or `len` bytes.
    fn take(&mut self, rig: &mut Rig, len: usize) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        while all.len() < len {
            let heard = self.hear(rig);
            assert_ne!(heard.control, TcpControl::Rst);
            if heard.number != self.expected {
                continue; // sent again
            }
            let ends = heard.control == TcpControl::Fin;
            self.expected = self.expected.wrapping_add(heard.payload.len() as u32);
            self.expected = self.expected.wrapping_add(ends.into());
            if !heard.payload.is_empty() || ends {
                self.send(rig, TcpControl::None, &[]);
            }
            all.extend(heard.payload);
            if ends {
                return (all, true);
            }
        }
        (all, false)
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind(loopback(0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn the_router_and_the_resolver_are_found() {
    let mut rig = Rig::new(UserConfig::default());
    for (asked, there) in [(GATEWAY, true), (RESOLVER, true), (Ipv4Addr::new(10, 0, 2, 9), false)] {
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: MAC,
            source_protocol_addr: GUEST,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: asked,
        };
        let mut bytes = vec![0; ETHERNET_HEADER + request.buffer_len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        frame.set_src_addr(MAC);
        frame.set_dst_addr(EthernetAddress::BROADCAST);
        frame.set_ethertype(EthernetProtocol::Arp);
        request.emit(&mut ArpPacket::new_unchecked(&mut bytes[ETHERNET_HEADER..]));
        rig.send_frame(&bytes);
        assert_eq!(rig.inbox.frames.pop_front().is_some(), there, "{asked}");
    }
}

fn dhcp(message_type: DhcpMessageType, wish: Option<Ipv4Addr>) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let repr = DhcpRepr {
        message_type,
        transaction_id: 77,
        secs: 0,
        client_hardware_address: MAC,
        client_ip: none,
        your_ip: none,
        server_ip: none,
        router: None,
        subnet_mask: None,
        relay_agent_ip: none,
        broadcast: false,
        requested_ip: wish,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).expect("fits");
    let mut udp = vec![0; 8 + bytes.len()];
    UdpRepr { src_port: 68, dst_port: 67 }.emit(
        &mut UdpPacket::new_unchecked(&mut udp),
        &none.into(),
        &Ipv4Addr::BROADCAST.into(),
        bytes.len(),
        |into| into.copy_from_slice(&bytes),
        &ChecksumCapabilities::default(),
    );
    packet(none, Ipv4Addr::BROADCAST, IpProtocol::Udp, &udp)
}

#[test]
fn one_lease_is_given_and_others_are_refused() {
    for (asked, wish, expected) in [
        (DhcpMessageType::Discover, None, DhcpMessageType::Offer),
        (DhcpMessageType::Request, Some(GUEST), DhcpMessageType::Ack),
        (DhcpMessageType::Request, Some(Ipv4Addr::new(10, 0, 2, 99)), DhcpMessageType::Nak),
    ] {
        let mut net = UserNet::new(&UserConfig::default()).expect("a network");
        let mut inbox = Inbox::default();
        net.transmit(&dhcp(asked, wish), Offload::default(), &mut inbox);
        let mut rig = Rig { net, inbox };
        let (from, protocol, udp) = rig.receive_ip();
        assert_eq!((from, protocol), (GATEWAY, IpProtocol::Udp));
        let udp = UdpPacket::new_checked(&udp[..]).expect("UDP");
        let packet = DhcpPacket::new_checked(udp.payload()).expect("DHCP");
        let repr = DhcpRepr::parse(&packet).expect("DHCP");
        assert_eq!((repr.message_type, repr.transaction_id), (expected, 77));
        if expected != DhcpMessageType::Nak {
            assert_eq!((repr.your_ip, repr.router), (GUEST, Some(GATEWAY)));
            assert_eq!(repr.subnet_mask, Some(NETMASK));
            assert_eq!(repr.dns_servers.expect("one")[..], [RESOLVER]);
        }
    }
}

#[test]
fn a_connection_carries_both_ways_and_closes_by_halves() {
    let (listener, port) = listener();
    let mut rig = Rig::to_host();
    let mut peer = Peer::connect(&mut rig, port);
    let (mut stream, _) = listener.accept().expect("it connects");
    peer.send(&mut rig, TcpControl::None, b"to the host");
    peer.send(&mut rig, TcpControl::Fin, b"!");
    let mut all = Vec::new();
    let server = std::thread::spawn(move || {
        stream.read_to_end(&mut all).expect("the guest's end");
        stream.write_all(&bytes(300_000)).expect("the other half is open");
        all
    });
    let (taken, ended) = peer.take(&mut rig, usize::MAX);
    assert!(ended && taken == bytes(300_000), "{} bytes", taken.len());
    assert_eq!(server.join().expect("a server"), b"to the host!");
    let end = Instant::now() + PATIENCE;
    while rig.net.tcp.len() != 0 {
        assert!(Instant::now() < end, "the connection stays");
        rig.wait();
    }
}

#[test]
fn a_guest_that_takes_nothing_holds_the_host_up_and_loses_nothing() {
    let (listener, port) = listener();
    let mut rig = Rig::to_host();
    let mut peer = Peer::connect(&mut rig, port);
    let (mut stream, _) = listener.accept().expect("it connects");
    let server = std::thread::spawn(move || stream.write_all(&bytes(3_000_000)));
    rig.inbox.room = Some(0);
    for _ in 0..20 {
        rig.wait();
    }
    assert!(rig.inbox.frames.is_empty());
    rig.inbox.room = Some(2);
    let (taken, _) = peer.take(&mut rig, 3_000_000);
    assert!(taken == bytes(3_000_000));
    server.join().expect("a server").expect("all is taken");
}

#[test]
fn what_is_lost_on_the_way_is_sent_again() {
    let (listener, port) = listener();
    let mut rig = Rig::to_host();
    let mut peer = Peer::connect(&mut rig, port);
    let (mut stream, _) = listener.accept().expect("it connects");
    stream.write_all(&bytes(1000)).expect("taken");
    let lost = peer.hear(&mut rig);
    let again = peer.hear(&mut rig);
    assert_eq!((lost.number, lost.payload), (again.number, again.payload));
}

#[test]
fn refusals_are_told() {
    let (listener, port) = listener();
    drop(listener);
    for (mut rig, to, port) in [
        (Rig::to_host(), GATEWAY, port),
        (Rig::new(UserConfig::default()), GATEWAY, port),
        (Rig::to_host(), Ipv4Addr::new(192, 0, 2, 1), 80),
    ] {
        let remote = SocketAddr::from((to, port));
        let mut peer = Peer { port: 9, remote, next: 7, expected: 0, window: 100 };
        peer.send(&mut rig, TcpControl::Syn, &[]);
        let heard = peer.hear(&mut rig);
        assert_eq!((heard.control, heard.ack), (TcpControl::Rst, Some(8)), "{remote}");
        assert_eq!(rig.net.tcp.len(), 0);
    }
}

#[test]
fn a_segment_of_no_connection_is_answered_by_a_reset() {
    let mut rig = Rig::to_host();
    let remote = SocketAddr::from((GATEWAY, 80));
    let mut peer = Peer { port: 9, remote, next: 7, expected: 1234, window: 100 };
    peer.send(&mut rig, TcpControl::None, b"since a restore");
    let heard = peer.hear(&mut rig);
    assert_eq!((heard.control, heard.number), (TcpControl::Rst, 1234));
}

#[test]
fn a_reset_of_either_side_reaches_the_other() {
    let (listener, port) = listener();
    let mut rig = Rig::to_host();
    let mut peer = Peer::connect(&mut rig, port);
    let (mut stream, _) = listener.accept().expect("it connects");
    peer.send(&mut rig, TcpControl::Rst, &[]);
    let error = stream.read(&mut [0; 9]).expect_err("the guest has reset it");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let mut peer = Peer::connect(&mut rig, port);
    let (stream, _) = listener.accept().expect("it connects");
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("set");
    drop(stream);
    assert_eq!(peer.hear(&mut rig).control, TcpControl::Rst);
    assert_eq!(rig.net.tcp.len(), 0);
}

/// The guest takes the connection to its port 80 that `packet` from `gateway` asks for, and says
/// hello on it; `stream` is the host's end.
fn takes(
    rig: &mut Rig,
    gateway: IpAddr,
    packet: &TcpPacket<impl AsRef<[u8]>>,
    stream: &mut TcpStream,
) {
    assert!(packet.syn() && packet.dst_port() == 80);
    let remote = SocketAddr::from((gateway, packet.src_port()));
    let expected = packet.seq_number().0.cast_unsigned().wrapping_add(1);
    let mut peer = Peer { port: 80, remote, next: 5, expected, window: 1000 };
    peer.send(rig, TcpControl::Syn, &[]);
    peer.send(rig, TcpControl::None, b"hello");
    let mut all = [0; 5];
    stream.read_exact(&mut all).expect("the guest's");
    assert_eq!(&all, b"hello");
}

#[test]
fn a_forward_leads_to_the_guest() {
    let forward = |protocol| Forward { protocol, host: loopback(0), guest: 80 };
    let all = vec![forward(Protocol::Tcp), forward(Protocol::Udp)];
    let mut rig = Rig::new(UserConfig { forward: all, ..UserConfig::default() });
    // The guest's address is known from its first frame.
    rig.send_udp((1, 9), Ipv4Addr::new(10, 0, 2, 255), b"");
    let open = rig.net.forwards();
    assert!(open.iter().all(|forward| forward.host.port() != 0));
    let udp = UdpSocket::bind(loopback(0)).expect("a port");
    udp.send_to(b"ping", open[1].host).expect("sent");
    let (from, _, bytes) = rig.receive_ip();
    let packet = UdpPacket::new_checked(&bytes[..]).expect("UDP");
    assert_eq!((from, packet.dst_port(), packet.payload()), (GATEWAY, 80, &b"ping"[..]));
    rig.send_udp((80, packet.src_port()), GATEWAY, b"pong");
    udp.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut buffer = [0; 9];
    let (len, from) = udp.recv_from(&mut buffer).expect("an answer");
    assert_eq!((&buffer[..len], from), (&b"pong"[..], open[1].host));

    let mut stream = TcpStream::connect(open[0].host).expect("it is open");
    let (_, _, bytes) = rig.receive_ip();
    let packet = TcpPacket::new_checked(&bytes[..]).expect("TCP");
    takes(&mut rig, GATEWAY.into(), &packet, &mut stream);
    let stream = TcpStream::connect(open[0].host).expect("it is open");
    let refused = std::thread::spawn(move || {
        let mut stream = stream;
        stream.read(&mut [0; 1])
    });
    let packet = loop {
        let (_, _, bytes) = rig.receive_ip();
        let packet = TcpPacket::new_checked(bytes).expect("TCP");
        if packet.syn() {
            break packet;
        }
    };
    let remote = SocketAddr::from((GATEWAY, packet.src_port()));
    let expected = packet.seq_number().0.cast_unsigned().wrapping_add(1);
    let mut peer = Peer { port: 80, remote, next: 0, expected, window: 0 };
    peer.send(&mut rig, TcpControl::Rst, &[]);
    let error = refused.join().expect("a client").expect_err("the guest refuses");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn long_datagrams_go_in_fragments() {
    let server = UdpSocket::bind(loopback(0)).expect("a port");
    let port = server.local_addr().expect("bound").port();
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut rig = Rig::to_host();
    let mut udp = vec![0; 8 + 5000];
    UdpRepr { src_port: 5, dst_port: port }.emit(
        &mut UdpPacket::new_unchecked(&mut udp),
        &GUEST.into(),
        &GATEWAY.into(),
        5000,
        |into| into.copy_from_slice(&bytes(5000)),
        &ChecksumCapabilities::default(),
    );
    for (number, part) in udp.chunks(1480).enumerate().rev() {
        let mut frame = packet(GUEST, GATEWAY, IpProtocol::Udp, part);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET_HEADER..]);
        packet.set_ident(9);
        packet.set_dont_frag(false);
        packet.set_more_frags((number + 1) * 1480 < udp.len());
        packet.set_frag_offset(number as u16 * 1480);
        packet.fill_checksum();
        rig.send_frame(&frame);
    }
    let mut buffer = vec![0; 6000];
    let (len, from) = server.recv_from(&mut buffer).expect("it arrives");
    assert!(buffer[..len] == bytes(5000));
    server.send_to(&buffer[..len], from).expect("sent");
    let mut fragments = Fragments::default();
    let whole = loop {
        let frame = rig.receive();
        let packet = Ipv4Packet::new_checked(&frame[ETHERNET_HEADER..]).expect("IPv4");
        assert!(frame.len() <= 1514);
        if let Some(whole) = fragments.add(&Piece::of_v4(&packet), Instant::now()) {
            break whole;
        }
    };
    assert!(whole[8..] == bytes(5000));
}

#[test]
fn a_closed_port_is_told_by_icmp() {
    let closed = UdpSocket::bind(loopback(0)).expect("a port").local_addr().expect("bound").port();
    let mut rig = Rig::to_host();
    rig.send_udp((5, closed), GATEWAY, b"anyone?");
    let (_, protocol, bytes) = rig.receive_ip();
    assert_eq!(protocol, IpProtocol::Icmp);
    let packet = Icmpv4Packet::new_checked(&bytes[..]).expect("ICMP");
    assert!(packet.verify_checksum());
    assert_eq!((bytes[0], bytes[1]), (3, 3));
    assert_eq!(&bytes[28..32], [5_u16.to_be_bytes(), closed.to_be_bytes()].concat());
}

#[test]
fn the_router_answers_echo_requests() {
    let mut rig = Rig::new(UserConfig::default());
    let mut request = [8, 0, 0, 0, 1, 2, 3, 4, b'x'];
    let sum = !smoltcp::wire::checksum::data(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    rig.send_ip(GATEWAY, IpProtocol::Icmp, &request);
    let (from, _, reply) = rig.receive_ip();
    assert_eq!((from, reply[0], &reply[4..]), (GATEWAY, 0, &request[4..]));
    rig.send_ip(Ipv4Addr::new(192, 0, 2, 1), IpProtocol::Icmp, &request);
    let (_, _, told) = rig.receive_ip();
    assert_eq!((told[0], told[1]), (3, 13), "out of reach");
}

#[test]
fn queries_are_answered_by_the_resolver_that_is_named() {
    let server = UdpSocket::bind(loopback(0)).expect("a port");
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let dns = Some(loopback(server.local_addr().expect("bound").port()));
    let net = UserNet::new(&UserConfig { dns, ..UserConfig::default() }).expect("a network");
    let mut rig = Rig { net, inbox: Inbox::default() };
    // Two at once from one port, as libraries ask.
    for ident in [1_u8, 2] {
        rig.send_udp((5353, 53), RESOLVER, &[0, ident, 1, 0, 9, 9]);
    }
    for ident in [1_u8, 2] {
        let mut buffer = [0; 99];
        let (len, from) = server.recv_from(&mut buffer).expect("a query");
        assert_eq!(&buffer[..len], [0, ident, 1, 0, 9, 9]);
        server.send_to(&[0, ident, 0x81, 0x80], from).expect("sent");
        let (from, _, udp) = rig.receive_ip();
        assert_eq!((from, &udp[8..]), (RESOLVER, &[0, ident, 0x81, 0x80][..]));
    }
    assert_eq!(rig.net.datagrams.len(), 0);
    drop(server);
    rig.send_udp((5353, 53), RESOLVER, &[0, 3, 1, 0]);
    let (_, _, udp) = rig.receive_ip();
    assert_eq!(udp[8..], [0, 3, 0x81, 0x82], "a dead resolver: SERVFAIL");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Frames of a guest that means harm: any bytes, and packets with any payload.
    #[test]
    fn no_frame_does_harm(
        frames in prop::collection::vec(
            (0..6_u8, prop::collection::vec(any::<u8>(), 0..120), any::<u16>()), 1..60
        ),
    ) {
        let (_listener, port) = listener();
        let mut rig = Rig::to_host();
        for (kind, mut bytes, number) in frames {
            if bytes.len() > 24 && number % 2 == 0 {
                bytes[2..4].copy_from_slice(&port.to_be_bytes());
                (bytes[12], bytes[13]) = (0x50, number.to_be_bytes()[0] & 0x1F);
            }
            let protocol = match kind {
                0 => IpProtocol::Tcp,
                1 => IpProtocol::Udp,
                2 => IpProtocol::Icmp,
                _ => IpProtocol::from(number as u8),
            };
            let mut frame = packet(GUEST, GATEWAY, protocol, &bytes);
            match kind {
                4 => frame = bytes,
                5 => {
                    let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET_HEADER..]);
                    packet.set_frag_offset(number);
                    packet.set_more_frags(number & 1 != 0);
                    packet.fill_checksum();
                }
                _ => {}
            }
            let partial = Offload { checksum: Some((34, 16)), segment: None };
            rig.net.transmit(&frame, partial, &mut rig.inbox);
            rig.net.work(&mut rig.inbox);
        }
        rig.net.reset();
        prop_assert_eq!(rig.net.tcp.len() + rig.net.datagrams.len(), 0);
    }
}
