//! Frames for the guest, and the cable to it.

use crate::config::UserConfig;
use crate::{Delivery, ETHERNET_HEADER, Frame, Guest, Offload};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, checksum,
};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The router, at which the guest also finds the host.
pub(super) const GATEWAY: Ipv4Addr = UserConfig::GATEWAY;
/// Who answers DNS queries.
pub(super) const RESOLVER: Ipv4Addr = UserConfig::RESOLVER;
/// The guest.
pub(super) const GUEST: Ipv4Addr = UserConfig::GUEST;
/// The network's.
pub(super) const NETMASK: Ipv4Addr = UserConfig::NETMASK;
/// Of all our addresses.
pub(super) const OUR_MAC: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);
/// Bytes of an IP packet on the cable at the most, segments to be cut aside.
pub(super) const MTU: usize = 1500;
/// Bytes of an IPv4 header without options.
pub(super) const IP_HEADER: usize = 20;
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
/// Bytes of the longest headers before TCP payload.
const HEADERS_MAX: usize = ETHERNET_HEADER + IP_HEADER + 60;

/// The cable: whom it leads to, and what waits for room.
#[derive(Debug)]
pub(super) struct Cable {
    pub(super) guest_mac: EthernetAddress,
    pending: VecDeque<Vec<u8>>,
    pub(super) lost: u64,
    ident: u16,
    /// For payload of a guest that takes no pieces.
    whole: Vec<u8>,
}

/// An IPv4 packet without its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    pub(super) source: Ipv4Addr,
    pub(super) protocol: IpProtocol,
}

impl Cable {
    pub(super) fn new() -> Self {
        let guest_mac = EthernetAddress::BROADCAST;
        Self { guest_mac, pending: VecDeque::new(), lost: 0, ident: 0, whole: Vec::new() }
    }

    /// Drops what waits.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
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

    /// Gives an IPv4 packet to `to`, in fragments if it is longer than the MTU.
    pub(super) fn packet(&mut self, ip: Ip, to: Ipv4Addr, payload: &[u8], guest: &mut dyn Guest) {
        self.ident = self.ident.wrapping_add(1);
        // All but the last are multiples of 8 bytes (RFC 791, 3.2).
        let piece = (MTU - IP_HEADER) & !7;
        let count = payload.len().div_ceil(piece).max(1);
        for number in 0..count {
            let from = number * piece;
            let part = &payload[from..payload.len().min(from + piece)];
            let mut bytes = self.frame(EthernetProtocol::Ipv4, IP_HEADER + part.len());
            let mut packet = Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_HEADER..]);
            ip_repr(ip, to, part.len()).emit(&mut packet, &ChecksumCapabilities::ignored());
            packet.set_ident(self.ident);
            packet.set_dont_frag(false);
            packet.set_more_frags(number + 1 < count);
            packet.set_frag_offset(from as u16);
            packet.fill_checksum();
            packet.payload_mut().copy_from_slice(part);
            self.give(bytes, guest);
        }
    }

    /// Gives a UDP datagram from `source` to `to`, of 65507 bytes at the most.
    pub(super) fn udp(
        &mut self,
        source: SocketAddrV4,
        to: SocketAddrV4,
        payload: &[u8],
        guest: &mut dyn Guest,
    ) {
        let mut bytes = vec![0; 8 + payload.len()];
        let len = bytes.len() as u16;
        let mut packet = UdpPacket::new_unchecked(&mut bytes);
        packet.set_src_port(source.port());
        packet.set_dst_port(to.port());
        packet.set_len(len);
        packet.payload_mut().copy_from_slice(payload);
        packet.fill_checksum(&(*source.ip()).into(), &(*to.ip()).into());
        let ip = Ip { source: *source.ip(), protocol: IpProtocol::Udp };
        self.packet(ip, *to.ip(), &bytes, guest);
    }

    /// Gives a TCP segment from `source`: `repr` without payload, and `payload`.
    pub(super) fn tcp(
        &mut self,
        source: Ipv4Addr,
        repr: &TcpRepr<'_>,
        payload: (&[u8], &[u8]),
        mss: u16,
        guest: &mut dyn Guest,
    ) -> Delivery {
        let len = payload.0.len() + payload.1.len();
        let (header, partial) = (repr.header_len(), guest.abilities().checksum && len > 0);
        let mut bytes = [0; HEADERS_MAX];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        frame.set_dst_addr(self.guest_mac);
        frame.set_src_addr(OUR_MAC);
        frame.set_ethertype(EthernetProtocol::Ipv4);
        self.ident = self.ident.wrapping_add(1);
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_HEADER..]);
        let ip = Ip { source, protocol: IpProtocol::Tcp };
        ip_repr(ip, GUEST, header + len).emit(&mut packet, &ChecksumCapabilities::ignored());
        packet.set_ident(self.ident);
        packet.fill_checksum();
        let at = ETHERNET_HEADER + IP_HEADER;
        let mut packet = TcpPacket::new_unchecked(&mut bytes[at..at + header]);
        repr.emit(&mut packet, &source.into(), &GUEST.into(), &ChecksumCapabilities::ignored());
        packet.set_psh(len > 0);
        let pseudo =
            checksum::pseudo_header_v4(&source, &GUEST, IpProtocol::Tcp, (header + len) as u32);
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

fn ip_repr(ip: Ip, to: Ipv4Addr, payload_len: usize) -> Ipv4Repr {
    let Ip { source, protocol: next_header } = ip;
    Ipv4Repr { src_addr: source, dst_addr: to, next_header, payload_len, hop_limit: 64 }
}
