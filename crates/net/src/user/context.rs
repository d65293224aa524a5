//! What each part of the network works with.

use super::slab::{Id, Timers};
use super::wire::{Cable, GATEWAY, GUEST, IP_HEADER, Ip};
use crate::Guest;
use rustix::event::epoll;
use rustix::io::Errno;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, checksum};
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// ICMP's destination unreachable (RFC 792).
const UNREACHABLE: u8 = 3;
/// Its codes (RFC 1122, 3.2.2.1; RFC 1812, 5.2.7.1).
pub(super) const PORT_UNREACHABLE: u8 = 3;
pub(super) const PROHIBITED: u8 = 13;
const NET_UNREACHABLE: u8 = 0;
const HOST_UNREACHABLE: u8 = 1;
const TOO_LONG: u8 = 4;

/// See the module.
pub(super) struct Context<'a> {
    pub(super) cable: &'a mut Cable,
    pub(super) guest: &'a mut dyn Guest,
    pub(super) timers: &'a mut Timers,
    pub(super) epoll: &'a OwnedFd,
    pub(super) now: Instant,
    pub(super) began: Instant,
}

/// Of the guest's packet that an ICMP error is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) protocol: IpProtocol,
    pub(super) port: u16,
    pub(super) remote: SocketAddrV4,
    /// What follows the ports: TCP's sequence number.
    pub(super) word: u32,
}

impl Context<'_> {
    /// Has epoll tell of `socket` as `id`.
    pub(super) fn watch(
        &self,
        socket: impl AsFd,
        id: Id,
        flags: epoll::EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::add(self.epoll, socket, epoll::EventData::new_u64(id.word()), flags)?)
    }

    /// Tells the guest of `error`. False: ICMP has no word for it.
    pub(super) fn tell(&mut self, about: About, error: &io::Error) -> bool {
        let (code, mtu) = match Errno::from_io_error(error) {
            Some(Errno::NETUNREACH) => (NET_UNREACHABLE, 0),
            Some(Errno::HOSTUNREACH | Errno::TIMEDOUT | Errno::HOSTDOWN) => (HOST_UNREACHABLE, 0),
            Some(Errno::ACCESS | Errno::PERM) => (PROHIBITED, 0),
            Some(Errno::CONNREFUSED) if about.protocol == IpProtocol::Udp => (PORT_UNREACHABLE, 0),
            _ => return false,
        };
        self.unreachable(about, code, mtu);
        true
    }

    /// Tells the guest that a packet was longer than the `mtu` of the path.
    pub(super) fn too_long(&mut self, about: About, mtu: u16) {
        self.unreachable(about, TOO_LONG, mtu);
    }

    /// Tells the guest that a packet of its does not arrive.
    pub(super) fn unreachable(&mut self, about: About, code: u8, mtu: u16) {
        let About { protocol, port, remote, word } = about;
        let mut message = [0; 8 + IP_HEADER + 8];
        message[0] = UNREACHABLE;
        message[1] = code;
        message[6..8].copy_from_slice(&mtu.to_be_bytes());
        let repr = Ipv4Repr {
            src_addr: GUEST,
            dst_addr: *remote.ip(),
            next_header: protocol,
            payload_len: 8,
            hop_limit: 64,
        };
        let mut packet = Ipv4Packet::new_unchecked(&mut message[8..]);
        repr.emit(&mut packet, &ChecksumCapabilities::default());
        let ports = [port.to_be_bytes(), remote.port().to_be_bytes()].concat();
        message[28..32].copy_from_slice(&ports);
        message[32..].copy_from_slice(&word.to_be_bytes());
        let sum = !checksum::data(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let source = if code == PORT_UNREACHABLE { *remote.ip() } else { GATEWAY };
        let ip = Ip { source, protocol: IpProtocol::Icmp };
        self.cable.packet(ip, GUEST, &message, self.guest);
    }
}
