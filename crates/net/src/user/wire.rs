//! Frames for the guest, and the cable to it.

use super::addresses::Addresses;
use crate::config::UserConfig;
use crate::{Delivery, ETHERNET_HEADER, Frame, Guest, Offload};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, checksum,
};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The router, at which the guest also finds the host.
pub(super) const GATEWAY: Ipv4Addr = UserConfig::GATEWAY;
/// Who answers DNS queries.
pub(super) const RESOLVER: Ipv4Addr = UserConfig::RESOLVER;
/// The guest.
pub(super) const GUEST: Ipv4Addr = UserConfig::GUEST;
/// The network's.
pub(super) const NETMASK: Ipv4Addr = UserConfig::NETMASK;
/// The router, the resolver and the guest's network of IPv6.
pub(super) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 2);
pub(super) const RESOLVER_V6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 3);
pub(super) const PREFIX_V6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 0);
/// The guest, if it has its address by DHCPv6.
pub(super) const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 0x15);
/// The router on its link.
pub(super) const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 2);
/// Of all our addresses.
pub(super) const OUR_MAC: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);
/// Bytes of an IP packet on the cable at the most, segments to be cut aside.
pub(super) const MTU: usize = 1500;
/// Bytes of an IPv4 header without options, and of an IPv6 header.
pub(super) const IP_HEADER: usize = 20;
pub(super) const IPV6_HEADER: usize = 40;
/// Bytes of IPv6's fragment header (RFC 8200, 4.5), and its number.
const FRAGMENT_HEADER: usize = 8;
pub(super) const FRAGMENT: u8 = 44;
/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER: usize = 20;
/// A segment without options and without data.
pub(super) const BARE: TcpRepr<'static> = TcpRepr {
    src_port: 0,
    dst_port: 0,
    control: TcpControl::None,
    seq_number: TcpSeqNumber(0),
    ack_number: None,
    window_len: 0,
    window_scale: None,
    max_seg_size: None,
    sack_permitted: false,
    sack_ranges: [None; 3],
    timestamp: None,
    payload: &[],
};
/// Frames that wait for the guest at the most; more are lost.
const PENDING_MAX: usize = 1024;
/// What messages between neighbors have (RFC 4861, 4): they do not come from elsewhere.
const HOPS_OF_NEIGHBORS: u8 = 255;
/// Bytes of the longest headers before TCP payload.
const HEADERS_MAX: usize = ETHERNET_HEADER + IPV6_HEADER + 60;

/// The cable: whom it leads to, and what waits for room.
#[derive(Debug)]
pub(super) struct Cable {
    pub(super) guest_mac: EthernetAddress,
    /// Those that are above it.
    pub(super) guest: Addresses,
    pending: VecDeque<Vec<u8>>,
    pub(super) lost: u64,
    ident: u16,
    /// For payload of a guest that takes no pieces.
    whole: Vec<u8>,
}

/// Both ends of a flow, as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) guest: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// What an IP header says; both addresses are of one version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    pub(super) source: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: IpProtocol,
}

impl Ip {
    pub(super) fn ethertype(self) -> EthernetProtocol {
        if self.to.is_ipv4() { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 }
    }

    /// Bytes of the header.
    pub(super) fn header_len(self) -> usize {
        if self.to.is_ipv4() { IP_HEADER } else { IPV6_HEADER }
    }

    /// Writes the header of a packet with `payload_len` bytes of payload, its sum aside.
    fn emit(self, payload_len: usize, into: &mut [u8]) {
        let Self { source, to, protocol: next_header } = self;
        let hop_limit = if next_header == IpProtocol::Icmpv6 { HOPS_OF_NEIGHBORS } else { 64 };
        match (source, to) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
                let repr = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
                let caps = ChecksumCapabilities::ignored();
                repr.emit(&mut Ipv4Packet::new_unchecked(into), &caps);
            }
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                let repr = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
                repr.emit(&mut Ipv6Packet::new_unchecked(into));
            }
            _ => {}
        }
    }

    /// The header of a packet with `payload_len` bytes of payload.
    pub(super) fn header(self, payload_len: usize) -> Vec<u8> {
        let mut header = vec![0; self.header_len()];
        self.emit(payload_len, &mut header);
        if self.to.is_ipv4() {
            Ipv4Packet::new_unchecked(&mut header[..]).fill_checksum();
        }
        header
    }

    /// The sum of what TCP, UDP and ICMPv6 have in front of their `len` bytes.
    fn pseudo_header(self, len: usize) -> u16 {
        let (source, to): (IpAddress, IpAddress) = (self.source.into(), self.to.into());
        checksum::pseudo_header(&source, &to, self.protocol, len as u32)
    }
}

/// Whether the router or the resolver has this address.
pub(super) fn is_ours(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => [GATEWAY, RESOLVER].contains(&ip),
        IpAddr::V6(ip) => [GATEWAY_V6, RESOLVER_V6, ROUTER_V6].contains(&ip),
    }
}

/// The checksum of the ICMP or ICMPv6 message `bytes`, in which it is 0.
pub(super) fn checksum_of(ip: Ip, bytes: &[u8]) -> u16 {
    let bare = checksum::data(bytes);
    match ip.protocol {
        IpProtocol::Icmp => !bare,
        _ => !checksum::combine(&[ip.pseudo_header(bytes.len()), bare]),
    }
}

impl Cable {
    pub(super) fn new() -> Self {
        let guest_mac = EthernetAddress::BROADCAST;
        let guest = Addresses::default();
        Self { guest_mac, guest, pending: VecDeque::new(), lost: 0, ident: 0, whole: Vec::new() }
    }

    /// Whether frames wait for room: whoever can has to wait, too.
    pub(super) fn is_full(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Frames that wait for room.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Drops what waits.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.guest = Addresses::default();
    }

    /// Gives what waits. False: some still does.
    pub(super) fn flush(&mut self, guest: &mut dyn Guest) -> bool {
        while let Some(frame) = self.pending.front() {
            let frame = Frame { parts: [frame, &[], &[]], ..Frame::default() };
            if guest.deliver(&frame) == Delivery::Full {
                return false;
            }
            self.pending.pop_front();
        }
        true
    }

    /// Gives a frame, now or as soon as there is room.
    pub(super) fn give(&mut self, frame: Vec<u8>, guest: &mut dyn Guest) {
        if self.flush(guest) {
            let parts = [&frame[..], &[], &[]];
            if guest.deliver(&Frame { parts, ..Frame::default() }) == Delivery::Taken {
                return;
            }
        }
        if self.pending.len() < PENDING_MAX {
            self.pending.push_back(frame);
        } else {
            self.lost += 1;
        }
    }

    /// A frame with room for `len` bytes after the Ethernet header.
    pub(super) fn frame(&self, protocol: EthernetProtocol, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; ETHERNET_HEADER + len];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        frame.set_dst_addr(self.guest_mac);
        frame.set_src_addr(OUR_MAC);
        frame.set_ethertype(protocol);
        bytes
    }

    /// Gives an IP packet, in fragments if it is longer than the MTU.
    pub(super) fn packet(&mut self, ip: Ip, payload: &[u8], guest: &mut dyn Guest) {
        self.ident = self.ident.wrapping_add(1);
        let header = ip.header_len();
        if header + payload.len() <= MTU {
            return self.fragment(ip, payload, None, guest);
        }
        // All but the last are multiples of 8 bytes (RFC 791, 3.2; RFC 8200, 4.5).
        let own = if ip.to.is_ipv4() { 0 } else { FRAGMENT_HEADER };
        let piece = (MTU - header - own) & !7;
        for from in (0..payload.len()).step_by(piece) {
            let to = payload.len().min(from + piece);
            let place = (from as u16, to < payload.len());
            self.fragment(ip, &payload[from..to], Some(place), guest);
        }
    }

    /// Gives a packet, or the piece of one that begins at byte `place.0`, and whether more follow.
    fn fragment(&mut self, ip: Ip, part: &[u8], place: Option<(u16, bool)>, guest: &mut dyn Guest) {
        let mut bytes = self.frame(ip.ethertype(), ip.header_len() + part.len());
        let (from, more) = place.unwrap_or_default();
        let own = if ip.to.is_ipv4() {
            ip.emit(part.len(), &mut bytes[ETHERNET_HEADER..]);
            let mut packet = Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_HEADER..]);
            packet.set_ident(self.ident);
            packet.set_dont_frag(false);
            packet.set_more_frags(more);
            packet.set_frag_offset(from);
            packet.fill_checksum();
            0
        } else if place.is_some() {
            let protocol = IpProtocol::from(FRAGMENT);
            let len = FRAGMENT_HEADER + part.len();
            Ip { protocol, ..ip }.emit(len, &mut bytes[ETHERNET_HEADER..]);
            let mut header = vec![ip.protocol.into(), 0];
            header.extend((from | u16::from(more)).to_be_bytes());
            header.extend(u32::from(self.ident).to_be_bytes());
            let at = ETHERNET_HEADER + IPV6_HEADER;
            bytes.splice(at..at, header);
            FRAGMENT_HEADER
        } else {
            ip.emit(part.len(), &mut bytes[ETHERNET_HEADER..]);
            0
        };
        bytes[ETHERNET_HEADER + ip.header_len() + own..].copy_from_slice(part);
        self.give(bytes, guest);
    }

    /// Gives a UDP datagram from the remote end to the guest's, no longer than IP carries.
    pub(super) fn udp(&mut self, ends: Ends, payload: &[u8], guest: &mut dyn Guest) {
        let Ends { guest: to, remote: source } = ends;
        let mut bytes = vec![0; 8 + payload.len()];
        let Ok(len) = u16::try_from(bytes.len()) else { return };
        let mut packet = UdpPacket::new_unchecked(&mut bytes);
        packet.set_src_port(source.port());
        packet.set_dst_port(to.port());
        packet.set_len(len);
        packet.payload_mut().copy_from_slice(payload);
        packet.fill_checksum(&source.ip().into(), &to.ip().into());
        let ip = Ip { source: source.ip(), to: to.ip(), protocol: IpProtocol::Udp };
        self.packet(ip, &bytes, guest);
    }

    /// Gives a TCP segment from the remote end: `repr` without payload, and `payload`.
    pub(super) fn tcp(
        &mut self,
        ends: Ends,
        repr: &TcpRepr<'_>,
        payload: (&[u8], &[u8]),
        mss: u16,
        guest: &mut dyn Guest,
    ) -> Delivery {
        let len = payload.0.len() + payload.1.len();
        let (header, partial) = (repr.header_len(), guest.abilities().checksum && len > 0);
        let ip = Ip { source: ends.remote.ip(), to: ends.guest.ip(), protocol: IpProtocol::Tcp };
        let mut bytes = [0; HEADERS_MAX];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        frame.set_dst_addr(self.guest_mac);
        frame.set_src_addr(OUR_MAC);
        frame.set_ethertype(ip.ethertype());
        self.ident = self.ident.wrapping_add(1);
        ip.emit(header + len, &mut bytes[ETHERNET_HEADER..]);
        if ip.to.is_ipv4() {
            let mut packet = Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_HEADER..]);
            packet.set_ident(self.ident);
            packet.fill_checksum();
        }
        let at = ETHERNET_HEADER + ip.header_len();
        let mut packet = TcpPacket::new_unchecked(&mut bytes[at..at + header]);
        let (from, to) = (ip.source.into(), ip.to.into());
        repr.emit(&mut packet, &from, &to, &ChecksumCapabilities::ignored());
        packet.set_psh(len > 0);
        let pseudo = ip.pseudo_header(header + len);
        if partial {
            packet.set_checksum(pseudo);
            let parts = [&bytes[..at + header], payload.0, payload.1];
            let segment = (len > usize::from(mss)).then_some(mss);
            let offload = Offload { checksum: Some((at as u16, 16)), segment };
            return guest.deliver(&Frame { parts, offload });
        }
        self.whole.clear();
        self.whole.extend_from_slice(payload.0);
        self.whole.extend_from_slice(payload.1);
        packet.set_checksum(0);
        let sums = [pseudo, checksum::data(packet.into_inner()), checksum::data(&self.whole)];
        let sum = !checksum::combine(&sums);
        TcpPacket::new_unchecked(&mut bytes[at..at + header]).set_checksum(sum);
        if len == 0 {
            self.give(bytes[..at + header].to_vec(), guest);
            return Delivery::Taken;
        }
        let parts = [&bytes[..at + header], &self.whole[..], &[]];
        guest.deliver(&Frame { parts, ..Frame::default() })
    }
}
