//! The same by IPv6. What leads to the host goes to ::1, where the machine has it.

use super::super::wire::{GATEWAY_V6, PREFIX_V6, RESOLVER_V6, ROUTER_V6};
use super::*;
use crate::config::Ipv6;
use smoltcp::wire::Ipv6Repr;
use std::net::Ipv6Addr;

pub(super) const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0x5054, 0xFF, 0xFE00, 1);
const LINK: Ipv6Addr = Ipv6Addr::new(0xFE80, 0, 0, 0, 0x5054, 0xFF, 0xFE00, 1);
const EVERYBODY: Ipv6Addr = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);

pub(super) fn packet(
    from: Ipv6Addr,
    to: Ipv6Addr,
    protocol: IpProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let repr = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 255,
    };
    let mut bytes = vec![0; ETHERNET_HEADER + repr.buffer_len() + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(MAC);
    frame.set_dst_addr(if to.is_multicast() { EthernetAddress::BROADCAST } else { OUR_MAC });
    frame.set_ethertype(EthernetProtocol::Ipv6);
    let mut packet = Ipv6Packet::new_unchecked(&mut bytes[ETHERNET_HEADER..]);
    repr.emit(&mut packet);
    packet.payload_mut().copy_from_slice(payload);
    bytes
}

/// An ICMPv6 message from `from`.
fn icmp(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let ip = Ip { source: from.into(), to: to.into(), protocol: IpProtocol::Icmpv6 };
    let sum = checksum_of(ip, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet(from, to, IpProtocol::Icmpv6, &message)
}

fn solicitation(from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    icmp(from, EVERYBODY, &message)
}

/// With the host's loopback, and none where the machine has no ::1.
fn to_host() -> Option<Rig> {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("this machine has no ::1: not tested");
        return None;
    }
    Some(Rig::to_host())
}

#[test]
fn our_addresses_are_taken_and_others_are_free() {
    let mut rig = Rig::new(UserConfig { ipv6: Ipv6::On, ..UserConfig::default() });
    for ours in [GATEWAY_V6, RESOLVER_V6, ROUTER_V6] {
        rig.send_frame(&solicitation(LINK, ours));
        // It goes to who asked, and is told so.
        let frame = rig.receive();
        let packet = Ipv6Packet::new_checked(&frame[ETHERNET_HEADER..]).expect("IPv6");
        assert_eq!((packet.src_addr(), packet.dst_addr(), packet.hop_limit()), (ours, LINK, 255));
        let message = packet.payload();
        assert_eq!(
            (message[0], message[4] & 0x40, &message[8..24]),
            (136, 0x40, &ours.octets()[..])
        );
        assert_eq!(message[24..], [&[2, 1][..], &OUR_MAC.0].concat());
        // Who only looks whether the address is free hears it with all others.
        rig.send_frame(&solicitation(Ipv6Addr::UNSPECIFIED, ours));
        let (_, _, message) = rig.receive_any();
        assert_eq!((message[0], message[4] & 0x40), (136, 0));
    }
    for free in [GUEST_V6, LINK] {
        rig.send_frame(&solicitation(Ipv6Addr::UNSPECIFIED, free));
        assert!(rig.inbox.frames.is_empty(), "{free}");
    }
}

#[test]
fn an_address_is_offered_where_it_is_of_use() {
    let ask = icmp(Ipv6Addr::UNSPECIFIED, ROUTER_V6, &[133, 0, 0, 0, 0, 0, 0, 0]);
    let everything = UserConfig { ipv6: Ipv6::On, ..UserConfig::default() };
    let net = UserNet::new(&everything).expect("a network");
    let mut rig = Rig { net, inbox: Inbox::default() };
    assert!(rig.net.deadline().is_none());
    rig.send_frame(&ask);
    let (from, _, message) = rig.receive_any();
    assert_eq!((from, message[0], message[1]), (ROUTER_V6.into(), 134, 0));
    assert_eq!(message[5], 0x40, "the resolver is there by DHCPv6, too");
    let prefix = [3, 4, 64, 0xC0];
    assert!(message.windows(4).any(|window| window == prefix), "{message:?}");
    assert!(message.windows(16).any(|window| window == PREFIX_V6.octets()));
    assert!(message.windows(16).any(|window| window == RESOLVER_V6.octets()));
    assert!(rig.net.deadline().is_some(), "it is said again");
    rig.net.reset();
    assert!(rig.net.deadline().is_none());
    // Without a way out there is nothing to offer, nor where it is not wanted.
    for ipv6 in [Ipv6::Auto, Ipv6::Off] {
        let mut rig = Rig::new(UserConfig { ipv6, ..UserConfig::default() });
        rig.send_frame(&ask);
        assert!(rig.inbox.frames.is_empty());
    }
}

/// A DHCPv6 message with these options.
fn dhcp(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = vec![kind, 1, 2, 3];
    for (code, data) in options {
        message.extend(code.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(*data);
    }
    to_servers(&message)
}

fn to_servers(message: &[u8]) -> Vec<u8> {
    let mut udp = vec![0; 8 + message.len()];
    let servers = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 1, 2);
    UdpRepr { src_port: 546, dst_port: 547 }.emit(
        &mut UdpPacket::new_unchecked(&mut udp),
        &LINK.into(),
        &servers.into(),
        message.len(),
        |into| into.copy_from_slice(message),
        &ChecksumCapabilities::default(),
    );
    packet(LINK, servers, IpProtocol::Udp, &udp)
}

/// The answer: its kind and its options.
fn answered(rig: &mut Rig) -> (u8, Vec<(u16, Vec<u8>)>) {
    let frame = rig.receive();
    let packet = Ipv6Packet::new_checked(&frame[ETHERNET_HEADER..]).expect("IPv6");
    assert_eq!((packet.src_addr(), packet.dst_addr()), (ROUTER_V6, LINK));
    let udp = UdpPacket::new_checked(packet.payload()).expect("UDP");
    assert_eq!((udp.src_port(), udp.dst_port()), (547, 546));
    let (&[kind, 1, 2, 3], mut rest) = udp.payload().split_first_chunk().expect("a header") else {
        panic!("another transaction");
    };
    let mut options = Vec::new();
    while let Some((&[a, b, c, d], data)) = rest.split_first_chunk() {
        let (data, more) = data.split_at(u16::from_be_bytes([c, d]).into());
        options.push((u16::from_be_bytes([a, b]), data.to_vec()));
        rest = more;
    }
    (kind, options)
}

#[test]
fn dhcp_gives_an_address_and_the_resolver_where_the_router_offers_them() {
    let with = |ipv6| UserConfig { ipv6, ..UserConfig::default() };
    let network = |config| UserNet::new(&config).expect("a network");
    let mut rig = Rig { net: network(with(Ipv6::On)), inbox: Inbox::default() };
    let (client, association) = (&[0, 3, 0, 1, 9, 9][..], [7_u8; 12]);
    let asks = [(1, client), (3, &association[..])];
    rig.send_frame(&dhcp(1, &asks));
    let (kind, offered) = answered(&mut rig);
    assert_eq!((kind, &offered[0]), (2, &(1, client.to_vec())), "an offer to this client");
    let server = offered[1].1.clone();
    assert_eq!(offered[2].1[..4], [7; 4]);
    assert_eq!(offered[2].1[12..32], [&[0, 5, 0, 24][..], &wire::GUEST_V6.octets()].concat());
    assert_eq!(offered[3], (23, RESOLVER_V6.octets().to_vec()));
    // Request, and each later one, of this server.
    for kind in [3, 5] {
        rig.send_frame(&dhcp(kind, &[asks[0], asks[1], (2, &server)]));
        assert_eq!(answered(&mut rig), (7, offered.clone()));
    }
    // Only the resolver; and an address in one step.
    rig.send_frame(&dhcp(11, &[(1, client)]));
    let (kind, told) = answered(&mut rig);
    assert_eq!((kind, told.last()), (7, offered.last()));
    rig.send_frame(&dhcp(1, &[asks[0], asks[1], (14, &[])]));
    let (kind, told) = answered(&mut rig);
    assert!(kind == 7 && told.contains(&(14, vec![])), "{told:?}");
    // An address of elsewhere is no use here.
    let elsewhere = [&association[..], &[0, 5, 0, 24, 0x20], &[1; 23]].concat();
    rig.send_frame(&dhcp(4, &[asks[0], (3, &elsewhere)]));
    assert!(answered(&mut rig).1.contains(&(13, vec![0, 4])));
    // For another server, without a client, cut off, of no kind.
    for (kind, options) in [
        (3, &[asks[0], asks[1], (2, &[0; 10])][..]),
        (1, &[asks[1]]),
        (11, &[asks[0], asks[1]]),
        (99, &asks),
    ] {
        rig.send_frame(&dhcp(kind, options));
        assert!(rig.inbox.frames.is_empty(), "{kind}");
    }
    for config in [with(Ipv6::Off), UserConfig { restrict: Switch::On, ..with(Ipv6::Auto) }] {
        let mut rig = Rig { net: network(config), inbox: Inbox::default() };
        rig.send_frame(&dhcp(1, &asks));
        assert!(rig.inbox.frames.is_empty());
    }
}

/// Debian's dhcpcd 9.4.1, as it was heard in a guest that took the address: its question and its
/// request, with another transaction's number, and what it was answered.
#[test]
fn a_client_of_debians_has_its_address() {
    const CLIENT: &str = "0001000e00010001329f935e523ac1924969";
    const SERVER: &str = "0002000a0003000152550a000202";
    const WISHES: &str = "0006000400520053000800020000001000410000\
        9f08003b6468637063642d392e342e313a4c696e75782d362e312e302d35372d636c6f75642d616d6436343a\
        7838365f36343a47656e75696e65496e74656c";
    const LEASE: &str = "000300280000000100005460000087000005\
        0018fec000000000000000000000000000150000a8c000015180\
        00170010fec00000000000000000000000000003";
    let hex = |parts: &[&str]| -> Vec<u8> {
        let digits = parts.concat();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits");
        (0..digits.len()).step_by(2).map(byte).collect()
    };
    let net = UserNet::new(&UserConfig { ipv6: Ipv6::On, ..UserConfig::default() });
    let mut rig = Rig { net: net.expect("a network"), inbox: Inbox::default() };
    let solicit = hex(&["01010203", CLIENT, "0003000c000000010000000000000000", WISHES]);
    let request = "00030028000000010000000000000000\
        00050018fec000000000000000000000000000150000a8c000015180";
    let request = hex(&["03010203", CLIENT, SERVER, request, WISHES]);
    for (asked, kind) in [(solicit, "02"), (request, "07")] {
        rig.send_frame(&to_servers(&asked));
        let frame = rig.receive();
        let packet = Ipv6Packet::new_checked(&frame[ETHERNET_HEADER..]).expect("IPv6");
        let udp = UdpPacket::new_checked(packet.payload()).expect("UDP");
        assert_eq!(udp.payload(), hex(&[kind, "010203", CLIENT, SERVER, LEASE]));
    }
}

#[test]
fn a_connection_carries_both_ways() {
    let Some(mut rig) = to_host() else { return };
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut peer = Peer::connect_by(&mut rig, GATEWAY_V6.into(), port);
    let (mut stream, _) = listener.accept().expect("it connects");
    peer.send(&mut rig, TcpControl::Fin, b"to the host");
    let server = std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("the guest's end");
        stream.write_all(&bytes(300_000)).expect("the other half is open");
        all
    });
    let (taken, ended) = peer.take(&mut rig, usize::MAX);
    assert!(ended && taken == bytes(300_000), "{} bytes", taken.len());
    assert_eq!(server.join().expect("a server"), b"to the host");
    drop(listener);
    let mut peer = Peer { port: 9, remote: peer.remote, next: 7, expected: 0, window: 100 };
    peer.send(&mut rig, TcpControl::Syn, &[]);
    assert_eq!(peer.hear(&mut rig).control, TcpControl::Rst, "nobody listens any more");
}

#[test]
fn datagrams_go_both_ways_in_fragments_where_they_are_long() {
    let Some(mut rig) = to_host() else { return };
    let server = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port");
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let port = server.local_addr().expect("bound").port();
    rig.send_udp((5, port), GATEWAY_V6, b"short");
    let mut buffer = vec![0; 6000];
    let (len, from) = server.recv_from(&mut buffer).expect("it arrives");
    assert_eq!(&buffer[..len], b"short");
    server.send_to(&bytes(5000), from).expect("sent");
    let mut fragments = Fragments::default();
    let whole = loop {
        let frame = rig.receive();
        assert!(frame.len() <= 1514);
        let packet = Ipv6Packet::new_checked(&frame[ETHERNET_HEADER..]).expect("IPv6");
        let piece = Piece::of_v6(&packet).expect("a fragment");
        if let Some(whole) = fragments.add(&piece, Instant::now()) {
            break whole;
        }
    };
    assert!(whole[8..] == bytes(5000));
    // Back the same way: the reply's ports exchanged, and so the sum is the same.
    let mut back = whole.clone();
    back.swap(0, 2);
    back.swap(1, 3);
    for (number, part) in back.chunks(1440).enumerate().rev() {
        let place = (number * 1440) as u16 | u16::from((number + 1) * 1440 < back.len());
        let mut piece = vec![17, 0];
        piece.extend(place.to_be_bytes());
        piece.extend([0, 0, 0, 9]);
        piece.extend(part);
        rig.send_ip(GATEWAY_V6, IpProtocol::from(44), &piece);
    }
    let (len, _) = server.recv_from(&mut buffer).expect("it arrives");
    assert!(buffer[..len] == bytes(5000));
    drop(server);
    rig.send_udp((5, port), GATEWAY_V6, b"anyone?");
    let (_, protocol, told) = rig.receive_any();
    assert_eq!((protocol, told[0], told[1]), (IpProtocol::Icmpv6, 1, 4), "nobody listens");
    assert_eq!(told[8..16], [0x60, 0, 0, 0, 0, 8, 17, 64], "of which packet");
}

#[test]
fn the_router_answers_echo_requests_and_what_is_prohibited_is_told() {
    let mut rig = Rig::new(UserConfig::default());
    let request = [128, 0, 0, 0, 1, 2, 3, 4, b'x'];
    rig.send_frame(&icmp(GUEST_V6, GATEWAY_V6, &request));
    let (from, _, reply) = rig.receive_any();
    assert_eq!((from, reply[0], &reply[4..]), (GATEWAY_V6.into(), 129, &request[4..]));
    let elsewhere = "2001:db8::1".parse().expect("an address");
    rig.send_frame(&icmp(GUEST_V6, elsewhere, &request));
    let (from, _, told) = rig.receive_any();
    assert_eq!((from, told[0], told[1]), (GATEWAY_V6.into(), 1, 1));
    // A message whose sum is wrong is none.
    let mut wrong = icmp(GUEST_V6, GATEWAY_V6, &request);
    *wrong.last_mut().expect("bytes") ^= 1;
    rig.send_frame(&wrong);
    assert!(rig.inbox.frames.is_empty());
}

/// It is known by its search for others that have its address. A peer that came before it waits,
/// and one with both has its peers by IPv4.
#[test]
fn forwards_lead_to_a_guest_that_has_ipv6_alone() {
    let forward = |protocol| Forward { protocol, host: loopback(0), guest: 80 };
    let all = vec![forward(Protocol::Tcp), forward(Protocol::Udp)];
    let mut rig = Rig::new(UserConfig { forward: all, ipv6: Ipv6::On, ..UserConfig::default() });
    let open = rig.net.forwards();
    let mut stream = TcpStream::connect(open[0].host).expect("it is open");
    let (from, _, _) = rig.receive_ip();
    assert_eq!(from, GATEWAY, "nothing is known of the guest");
    rig.send_frame(&solicitation(Ipv6Addr::UNSPECIFIED, GUEST_V6));
    let packet = loop {
        if let (IpAddr::V6(GATEWAY_V6), IpProtocol::Tcp, bytes) = rig.receive_any() {
            break TcpPacket::new_checked(bytes).expect("TCP");
        }
    };
    takes(&mut rig, GATEWAY_V6.into(), &packet, &mut stream);
    rig.inbox.frames.clear();

    let udp = UdpSocket::bind(loopback(0)).expect("a port");
    udp.send_to(b"ping", open[1].host).expect("sent");
    let (from, _, bytes) = rig.receive_any();
    let packet = UdpPacket::new_checked(&bytes[..]).expect("UDP");
    assert_eq!((from, packet.payload()), (GATEWAY_V6.into(), &b"ping"[..]));
    rig.send_udp((80, packet.src_port()), GATEWAY_V6, b"pong");
    let mut buffer = [0; 9];
    udp.set_read_timeout(Some(PATIENCE)).expect("set");
    let (len, from) = udp.recv_from(&mut buffer).expect("an answer");
    assert_eq!((&buffer[..len], from), (&b"pong"[..], open[1].host));

    let saved = rig.net.save();
    rig.send_udp((1, 9), Ipv4Addr::new(10, 0, 2, 255), b"");
    assert_ne!(rig.net.save(), saved);
    let udp = UdpSocket::bind(loopback(0)).expect("a port");
    udp.send_to(b"ping", open[1].host).expect("sent");
    assert_eq!(rig.receive_any().0, GATEWAY);
    rig.net.reset();
    rig.net.restore(saved);
    let udp = UdpSocket::bind(loopback(0)).expect("a port");
    udp.send_to(b"ping", open[1].host).expect("sent");
    assert_eq!(rig.receive_any().0, GATEWAY_V6);
}

#[test]
fn a_forward_from_the_loopback_of_ipv6_leads_to_the_guest() {
    if to_host().is_none() {
        return;
    }
    let host = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let forward = vec![Forward { protocol: Protocol::Tcp, host, guest: 80 }];
    let mut rig = Rig::new(UserConfig { forward, ..UserConfig::default() });
    let open = rig.net.forwards();
    assert!(open[0].host.port() != 0 && open[0].host.is_ipv6());
    let _stream = TcpStream::connect(open[0].host).expect("it is open");
    let (from, _, bytes) = rig.receive_ip();
    let packet = TcpPacket::new_checked(&bytes[..]).expect("TCP");
    assert!((from, packet.dst_port()) == (GATEWAY, 80) && packet.syn());
}
