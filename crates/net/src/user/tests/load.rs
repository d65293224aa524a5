//! Much at once, and what has ended.

use super::super::resolvers::Resolvers;
use super::*;
use crate::BackendState;

fn forwards(protocol: Protocol) -> (Rig, SocketAddr) {
    let forward = vec![Forward { protocol, host: loopback(0), guest: 80 }];
    let rig = Rig::new(UserConfig { forward, ..UserConfig::default() });
    let host = rig.net.forwards()[0].host;
    (rig, host)
}

/// With what is pending or lost of the guest's.
fn undelivered(rig: &Rig) -> (usize, u64) {
    (rig.net.cable.pending(), rig.net.activity().lost)
}

#[test]
fn a_crowd_at_a_forward_is_let_in() {
    let (mut rig, host) = forwards(Protocol::Tcp);
    // Nobody accepts meanwhile: the host keeps them all.
    let connect = |_| TcpStream::connect_timeout(&host, PATIENCE).expect("there is room");
    let crowd: Vec<_> = (0..1000).map(connect).collect();
    let end = Instant::now() + PATIENCE;
    while rig.net.tcp.len() < crowd.len() {
        assert!(Instant::now() < end, "only {} have come", rig.net.tcp.len());
        rig.wait();
    }
    assert_eq!(rig.net.activity().flows.map(|flows| flows.tcp_opening), Some(1000));
}

/// A server that has heard of the guest's port 5, and who that is.
fn heard(rig: &mut Rig) -> (UdpSocket, SocketAddr) {
    let server = UdpSocket::bind(loopback(0)).expect("a port");
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let port = server.local_addr().expect("bound").port();
    rig.send_udp((5, port), GATEWAY, b"hello");
    let (_, from) = server.recv_from(&mut [0; 9]).expect("it arrives");
    (server, from)
}

/// 40 datagrams are more than Linux keeps by default.
#[test]
fn datagrams_wait_at_the_host_while_nobody_takes_them() {
    let mut rig = Rig::to_host();
    let (server, guest) = heard(&mut rig);
    let (mut forwarding, door) = forwards(Protocol::Udp);
    for number in 0..40 {
        server.send_to(&[number; 4000], guest).expect("sent");
        server.send_to(&[number; 4000], door).expect("sent");
    }
    for rig in [&mut rig, &mut forwarding] {
        rig.inbox.room = Some(0);
        for _ in 0..20 {
            rig.wait();
        }
        // The pieces of one datagram wait here, and all others at the host.
        assert_eq!(undelivered(rig), (3, 0));
        rig.inbox.room = Some(2);
        let mut fragments = Fragments::default();
        for number in 0..40 {
            let whole = loop {
                let frame = rig.receive();
                let packet = Ipv4Packet::new_checked(&frame[ETHERNET_HEADER..]).expect("IPv4");
                if let Some(whole) = fragments.add(&Piece::of_v4(&packet), Instant::now()) {
                    break whole;
                }
            };
            assert!(whole[8..] == [number; 4000], "datagram {number}");
        }
    }
}

/// A resolver that refuses is passed over at once, one that is silent after a while; who answers is
/// asked first from then on.
#[test]
fn another_resolver_answers_for_one_that_is_dead() {
    let silent = UdpSocket::bind(loopback(0)).expect("a port");
    let closed = UdpSocket::bind(loopback(0)).expect("a port");
    let good = UdpSocket::bind(loopback(0)).expect("a port");
    good.set_read_timeout(Some(PATIENCE)).expect("set");
    let all = [&closed, &silent, &good].map(|socket| socket.local_addr().expect("bound"));
    drop(closed);
    let net = UserNet::new(&UserConfig::default()).expect("a network");
    let mut rig = Rig { net, inbox: Inbox::default() };
    rig.net.reach.resolvers = Resolvers::of(all.into());
    let answer = std::thread::spawn(move || {
        for _ in 0..2 {
            let mut query = [0; 99];
            let (len, from) = good.recv_from(&mut query).expect("a query");
            query[2] |= 0x80;
            good.send_to(&query[..len], from).expect("sent");
        }
    });
    for ident in [1_u8, 2] {
        let asked = Instant::now();
        rig.send_udp((5353, 53), RESOLVER, &[0, ident, 1, 0, 9, 9]);
        let (from, _, udp) = rig.receive_ip();
        assert_eq!((from, &udp[8..]), (RESOLVER, &[0, ident, 0x81, 0, 9, 9][..]));
        let waited = asked.elapsed() >= Duration::from_millis(1400);
        assert_eq!(waited, ident == 1, "{:?}", asked.elapsed());
    }
    answer.join().expect("a resolver");
    assert_eq!(rig.net.datagrams.len(), 0);
}

/// The same by TCP. The one that is silent has no room for peers.
#[test]
fn another_resolver_is_connected_to_for_one_that_is_dead() {
    let closed = TcpListener::bind(loopback(0)).expect("a port");
    let full = TcpListener::bind(loopback(0)).expect("a port");
    rustix::net::listen(&full, 0).expect("set");
    let (good, _) = listener();
    let all = [&closed, &full, &good].map(|socket| socket.local_addr().expect("bound"));
    drop(closed);
    let _waits = TcpStream::connect(all[1]).expect("the one that there is room for");
    let net = UserNet::new(&UserConfig::default()).expect("a network");
    let mut rig = Rig { net, inbox: Inbox::default() };
    rig.net.reach.resolvers = Resolvers::of(all.into());
    let asked = Instant::now();
    let mut peer = Peer::connect_by(&mut rig, RESOLVER.into(), 53);
    assert!(asked.elapsed() >= Duration::from_millis(1400), "{:?}", asked.elapsed());
    let (mut stream, _) = good.accept().expect("it connects");
    peer.send(&mut rig, TcpControl::None, b"query");
    let mut query = [0; 5];
    stream.read_exact(&mut query).expect("the guest's");
    assert_eq!(&query, b"query");
    // Where none answers, the guest is told.
    drop(good);
    rig.inbox.frames.clear();
    rig.net.reach.resolvers = Resolvers::of(vec![all[0], all[2]]);
    let mut peer = Peer { port: 9, remote: peer.remote, next: 7, expected: 0, window: 100 };
    peer.send(&mut rig, TcpControl::Syn, &[]);
    assert_eq!(peer.hear(&mut rig).control, TcpControl::Rst);
    assert_eq!(rig.net.tcp.len(), 1);
}

/// Each that is given up is answered, and datagrams' flows stay.
#[test]
fn more_queries_than_there_is_room_for_fail_by_name() {
    let silent = UdpSocket::bind(loopback(0)).expect("a port");
    let dns = silent.local_addr().ok();
    let config =
        UserConfig { dns, restrict: Switch::Off, host_loopback: Switch::On, ..Default::default() };
    let net = UserNet::new(&config).expect("a network");
    let mut rig = Rig { net, inbox: Inbox::default() };
    let (_server, _) = heard(&mut rig);
    let began = Instant::now();
    for ident in 0..5000_u16 {
        let [high, low] = ident.to_be_bytes();
        rig.send_udp((5353, 53), RESOLVER, &[high, low, 1, 0]);
    }
    let mut failed = 0;
    while rig.inbox.frames.pop_front().is_some() {
        failed += 1;
    }
    // Those that have waited too long were asked again, and have room all the same.
    assert!(failed >= 5000 - 4096, "{failed} in {:?}", began.elapsed());
    let flows = rig.net.activity().flows.expect("it knows");
    assert_eq!((flows.udp, flows.dns + failed), (1, 5000));
}

#[test]
fn a_restored_guest_that_only_waits_hears_that_its_connections_are_gone() {
    let (listener, port) = listener();
    let mut before = Rig::to_host();
    let mut peer = Peer::connect(&mut before, port);
    let (mut stream, _) = listener.accept().expect("it connects");
    stream.write_all(b"so far").expect("open");
    assert_eq!(peer.take(&mut before, 6).0, b"so far");
    let state = before.net.save();
    drop((before, stream));
    for state in [state.clone(), {
        // It is saved again before it has gone on.
        let mut between = Rig::to_host();
        between.net.restore(state);
        between.net.save()
    }] {
        let mut rig = Rig::to_host();
        rig.net.restore(state);
        rig.inbox.room = Some(0);
        rig.net.work(&mut rig.inbox);
        rig.inbox.room = None;
        let frame = rig.receive();
        assert_eq!(EthernetFrame::new_unchecked(&frame).dst_addr(), MAC);
        rig.inbox.frames.push_back(frame);
        let heard = peer.hear(&mut rig);
        assert_eq!((heard.control, heard.number), (TcpControl::Rst, peer.expected));
        assert_eq!(heard.ack, Some(peer.next));
        assert_eq!(rig.net.save().connections, []);
    }
    // What is open is not broken by a restore in the same process, nor what makes no sense sent.
    let mut rig = Rig::to_host();
    let mut peer = Peer::connect(&mut rig, port);
    let mut state = rig.net.save();
    state.connections.push(crate::Connection {
        remote: "[::1]:1".parse().expect("an address"),
        ..state.connections[0]
    });
    rig.net.restore(BackendState { station: Some([0xFF; 6]), ..state });
    let (mut stream, _) = listener.accept().expect("it connects");
    stream.write_all(b"still").expect("open");
    assert_eq!(peer.take(&mut rig, 5).0, b"still");
}
