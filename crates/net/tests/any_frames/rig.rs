//! A user-mode network whose guest and whose host's programs are driven by bytes: for property
//! tests and for cargo-fuzz.
//!
//! The guest follows its connections' numbers, so that what is not quite right gets far. Besides
//! not panicking and not hanging: a frame is never longer than a frame may be, and after a reset
//! nothing is left to wait for.

use net::{
    Abilities, Backend, Cable, Connection, Delivery, ETHERNET_HEADER, FRAME_MAX, Forward, Frame,
    Guest, Ipv6, Offload, Plugged, Protocol, Switch, UserConfig,
};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

const GUEST: [u8; 4] = [10, 0, 2, 15];
const GATEWAY: [u8; 4] = [10, 0, 2, 2];
const RESOLVER: [u8; 4] = [10, 0, 2, 3];
/// Ports of the guest's that it uses.
const PORTS: u16 = 4;
const FIRST_PORT: u16 = 4000;
/// Programs of the host's at a time.
const PROGRAMS: usize = 8;

/// How far a connection is, as the guest sees it.
#[derive(Clone, Copy, Default)]
struct Flow {
    /// The other port.
    remote: u16,
    next: u32,
    expected: u32,
}

/// What the guest has heard.
struct Inbox {
    flows: [Flow; PORTS as usize],
    room: usize,
    abilities: Abilities,
    frames: usize,
}

impl Guest for Inbox {
    fn abilities(&self) -> Abilities {
        self.abilities
    }

    fn deliver(&mut self, frame: &Frame<'_>) -> Delivery {
        if self.room == 0 {
            return Delivery::Full;
        }
        self.room -= 1;
        self.frames += 1;
        assert!((ETHERNET_HEADER..=FRAME_MAX).contains(&frame.size()));
        assert!(frame.offload.checksum.is_none() || self.abilities.checksum);
        assert!(frame.offload.segment.is_none() || self.abilities.segmentation);
        self.learn(&frame.parts.concat());
        Delivery::Taken
    }
}

impl Inbox {
    fn learn(&mut self, frame: &[u8]) {
        let Some(tcp) = frame.get(34..54).filter(|_| frame[12..14] == [8, 0] && frame[23] == 6)
        else {
            return;
        };
        let short = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let long = |at: usize| u32::from(short(at)) << 16 | u32::from(short(at + 2));
        let Some(flow) = self.flows.get_mut(usize::from(short(2).wrapping_sub(FIRST_PORT))) else {
            return;
        };
        let payload = frame.len() as u32 - 34 - u32::from(tcp[12] >> 4) * 4;
        let ends = (tcp[13] & 3 != 0) as u32; // SYN, FIN
        flow.remote = short(0);
        flow.expected = long(4).wrapping_add(payload + ends);
        if tcp[13] & 16 != 0 {
            flow.next = long(8);
        }
    }
}

struct Rig {
    net: Box<dyn Backend>,
    inbox: Inbox,
    /// Nothing leads elsewhere: any address may be tried.
    restricted: bool,
    listener: TcpListener,
    port: u16,
    echo: UdpSocket,
    programs: Vec<TcpStream>,
    doors: Vec<SocketAddr>,
}

impl Rig {
    fn new(kind: u8) -> Self {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(here).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("bound").port();
        let echo = UdpSocket::bind(here).expect("a port");
        echo.set_nonblocking(true).expect("a socket");
        let restricted = kind & 1 == 0;
        let forward = |protocol| Forward { protocol, host: here, guest: FIRST_PORT };
        let resolver = echo.local_addr().expect("bound").port();
        let config = UserConfig {
            forward: vec![forward(Protocol::Tcp), forward(Protocol::Udp)],
            host_loopback: Switch::On,
            restrict: restricted.into(),
            ipv6: Ipv6::On,
            dns: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, resolver))),
        };
        let plugged = Cable::User(config).plug().expect("a network");
        let Plugged { backend: net, watch: _, forwards } = plugged;
        let doors = forwards.iter().map(|forward| forward.host).collect();
        let abilities = Abilities {
            checksum: kind & 2 != 0,
            segmentation: kind & 6 == 6,
            segmentation_v6: kind & 10 == 10,
        };
        let inbox = Inbox { flows: Default::default(), room: 64, abilities, frames: 0 };
        Self { net, inbox, restricted, listener, port, echo, programs: vec![], doors }
    }

    /// Sends a frame; where it could lead elsewhere, it leads to the gateway or the resolver.
    fn send(&mut self, mut frame: Vec<u8>) {
        frame.resize(frame.len().max(ETHERNET_HEADER), 0);
        let version_4 = frame[12..14] == [8, 0] && frame.len() >= 34;
        if version_4 && !self.restricted {
            let to = if frame[33] & 1 == 0 { GATEWAY } else { RESOLVER };
            frame[30..34].copy_from_slice(&to);
            complete(&mut frame);
        }
        if self.restricted || version_4 || frame[12..14] == [8, 6] {
            let tcp = Offload { checksum: Some((34, 16)), segment: None };
            self.net.transmit(&frame, tcp, &mut self.inbox);
        }
        self.net.work(&mut self.inbox);
    }

    fn segment(&mut self, [port, flags, shift, len, seed, back, ..]: [u8; 8]) {
        let number = u16::from(port) % PORTS;
        let flow = &mut self.inbox.flows[usize::from(number)];
        let mut flags = flags & 0x1F;
        if flow.remote == 0 || flags & 2 != 0 {
            (flow.remote, flags) = (self.port, 2);
        }
        // Mostly the right number, or near it.
        let near = |shift: u8| if shift < 0xC0 { 0 } else { i32::from(shift.cast_signed()) };
        let from = flow.next.wrapping_add_signed(near(shift) * 100);
        let ack = flow.expected.wrapping_add_signed(near(back) * 100);
        let mut bytes = [(FIRST_PORT + number).to_be_bytes(), flow.remote.to_be_bytes()].concat();
        bytes.extend(from.to_be_bytes());
        bytes.extend(ack.to_be_bytes());
        bytes.extend([0x50, flags, back, seed, 0, 0, 0, 0]);
        let len = if flags & 2 != 0 { 0 } else { usize::from(len) * usize::from(seed) };
        bytes.extend((0..len).map(|i| (i as u8).wrapping_mul(seed)));
        let sent = len as u32 + u32::from(flags & 3 != 0);
        if near(shift) == 0 {
            flow.next = flow.next.wrapping_add(sent);
        }
        self.send(packet(6, GATEWAY, &bytes));
    }

    fn datagram(&mut self, [port, to, len, seed, ..]: [u8; 8]) {
        let echo = self.echo.local_addr().expect("bound").port();
        let (address, remote) = match to % 5 {
            0 => (GATEWAY, echo),
            1 => (RESOLVER, 53),
            2 => (GATEWAY, 67),
            3 => (GATEWAY, 1),
            _ => (GATEWAY, 32768 + u16::from(seed)),
        };
        let len = 8 + u16::from(len) * u16::from(seed >> 4);
        let mut bytes = (FIRST_PORT + u16::from(port) % PORTS).to_be_bytes().to_vec();
        bytes.extend(remote.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend((8..len).map(|i| (i as u8).wrapping_mul(seed)));
        self.send(packet(17, address, &bytes));
    }

    /// A packet of which this is a piece, or a message of ICMP's, or anything at all.
    fn odd(&mut self, kind: u8, [a, b, c, d, v0, v1, v2, v3]: [u8; 8]) {
        let noise: Vec<u8> = [a, b, c, d, v0, v1, v2, v3].repeat(usize::from(a % 32));
        let mut frame = packet(if kind == 1 { 1 } else { b }, GATEWAY, &noise);
        match kind {
            0 => {
                frame[20..22].copy_from_slice(&[c & 0x3F, d]);
                complete(&mut frame);
            }
            1 if noise.len() >= 8 => {
                frame[34..38].copy_from_slice(&[8, 0, 0, 0]);
                let sum = sum(&frame[34..]);
                frame[36..38].copy_from_slice(&sum.to_be_bytes());
            }
            2 if c >= 192 => frame = dhcpv6(d % 13, &noise, [v0 % 26, v1 % 64, v2]),
            2 if c % 3 == 2 => {
                // IPv6, to the router or to all, whatever follows.
                frame.splice(12..34, version_6(b, noise.len() as u16, a & 1));
            }
            2 => frame[12..14].copy_from_slice(&[[8, 0], [8, 6], [0x86, 0xDD]][usize::from(c % 3)]),
            _ => {
                let at = usize::from(c) % frame.len();
                frame[at] ^= d;
            }
        }
        self.send(frame);
    }

    /// Something that programs of the host do.
    fn program(&mut self, [what, which, len, seed, ..]: [u8; 8]) {
        if self.programs.len() < PROGRAMS
            && let Ok((stream, _)) = self.listener.accept()
        {
            stream.set_nonblocking(true).expect("a socket");
            self.programs.push(stream);
        }
        if what % 8 == 0 && self.programs.len() < PROGRAMS {
            let stream = TcpStream::connect(self.doors[0]).expect("it listens");
            stream.set_nonblocking(true).expect("a socket");
            self.programs.push(stream);
        }
        let mut buffer = vec![seed; 1 + usize::from(len) * 300];
        if what % 8 == 1 {
            drop(self.echo.send_to(&buffer[..usize::from(len)], self.doors[1]));
        }
        if let Ok((count, from)) = self.echo.recv_from(&mut buffer) {
            drop(self.echo.send_to(&buffer[..count], from));
        }
        let count = self.programs.len().max(1);
        if let Some(program) = self.programs.get_mut(usize::from(which) % count) {
            match what % 8 {
                2 | 3 => drop(program.write(&buffer)),
                4 => drop(program.read(&mut buffer)),
                5 => drop(program.shutdown(std::net::Shutdown::Write)),
                6 => drop(self.programs.swap_remove(usize::from(which) % count)),
                _ => {}
            }
        }
        self.net.work(&mut self.inbox);
    }

    /// The guest was saved with what it has open, and with what it can never have had.
    fn restore(&mut self, [a, b, c, d, ..]: [u8; 8]) {
        let mut state = self.net.save();
        let address = |bytes: [u8; 2]| match bytes {
            [0..128, port] => SocketAddr::from((GUEST, port.into())),
            [_, port] => SocketAddr::from((Ipv6Addr::LOCALHOST, port.into())),
        };
        let connection = Connection {
            guest: address([a, b]),
            remote: address([c, d]),
            next: d.into(),
            expected: a.into(),
        };
        state.connections.extend(std::iter::repeat_n(connection, b.into()));
        state.station = state.station.map(|station| station.map(|byte| byte ^ (d & 1)));
        self.net.restore(state);
    }

    fn step(&mut self, step: [u8; 8]) {
        let mut rest = step;
        rest.rotate_left(1);
        match step[0] % 16 {
            0..=6 => self.segment(rest),
            7 | 8 => self.datagram(rest),
            kind @ 9..=12 => self.odd(kind - 9, rest),
            13 => self.inbox.room = usize::from(step[1] % 32),
            14 if step[1] == 0 => {
                self.net.reset();
                assert!(self.net.deadline().is_none(), "nothing is left to wait for");
            }
            14 if step[1] == 1 => self.restore(rest),
            _ => self.program(rest),
        }
        self.inbox.room += 1;
    }
}

/// An IPv4 packet in a frame.
fn packet(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0, 0, 1, 8, 0];
    let len = 20 + payload.len() as u16;
    frame.extend([0x45, 0, len.to_be_bytes()[0], len.to_be_bytes()[1], 0, 9, 0, 0, 64, protocol]);
    frame.extend([0, 0]);
    frame.extend(GUEST);
    frame.extend(to);
    frame.extend(payload);
    complete(&mut frame);
    frame
}

/// A client's message to all DHCPv6 servers: its identifier, an option, and anything.
fn dhcpv6(kind: u8, noise: &[u8], [option, len, byte]: [u8; 3]) -> Vec<u8> {
    let mut message = vec![kind, 1, 2, 3, 0, 1, 0, 2, 9, 9, 0, option, 0, len];
    message.extend(std::iter::repeat_n(byte, len.into()));
    message.extend(noise);
    let len = 8 + message.len() as u16;
    let mut frame = vec![0x33, 0x33, 0, 1, 0, 2, 0x52, 0x54, 0, 0, 0, 1];
    frame.extend(version_6(1, len, 0));
    frame[22..38].copy_from_slice(&[0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    frame[38..54].copy_from_slice(&[0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
    frame.extend([546_u16, 547, len, 0].into_iter().flat_map(u16::to_be_bytes));
    frame.extend(message);
    frame
}

/// EtherType and header of a packet of IPv6.
fn version_6(protocol: u8, len: u16, to: u8) -> Vec<u8> {
    let mut header = vec![0x86, 0xDD, 0x60, 0, 0, 0];
    header.extend(len.to_be_bytes());
    header.extend([[6, 17, 44, 58][usize::from(protocol % 4)], 255]);
    header.extend([0xFE, 0xC0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    header.extend([0xFE, 0xC0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2 + to]);
    header
}

/// Puts the sum of the IPv4 header in.
fn complete(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet's checksum (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    !((sum & 0xFFFF) + (sum >> 16)) as u16
}

/// Has a guest and programs of the host's do what `data` says, eight bytes a step; how many frames
/// the guest has got. Must neither panic nor hang.
pub(crate) fn fuzz(data: &[u8]) -> usize {
    let Some((&kind, steps)) = data.split_first() else { return 0 };
    let mut rig = Rig::new(kind);
    for step in steps.chunks_exact(8).take(1024) {
        rig.step(step.try_into().unwrap_or_default());
    }
    rig.net.reset();
    assert!(rig.net.deadline().is_none(), "nothing is left to wait for");
    rig.inbox.frames
}
