//! What each part of the network works with.

use super::slab::{Id, Timers};
use super::wire::{Cable, Ends, GATEWAY, GATEWAY_V6, Ip, checksum_of};
use crate::Guest;
use rustix::event::epoll;
use rustix::io::Errno;
use smoltcp::wire::IpProtocol;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// Why a packet of the guest's does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// No way leads there.
    Net,
    /// Nobody is there.
    Host,
    /// Nobody listens.
    Port,
    /// It is not allowed.
    Prohibited,
    /// It is longer than this, which is what the path carries.
    TooLong(u32),
}

impl Unreachable {
    /// ICMP's type and code, and the word that follows its sum (RFC 792; RFC 1122, 3.2.2.1; RFC
    /// 1191, 4; RFC 1812, 5.2.7.1).
    fn version_4(self) -> ([u8; 2], u32) {
        match self {
            Self::Net => ([3, 0], 0),
            Self::Host => ([3, 1], 0),
            Self::Port => ([3, 3], 0),
            Self::Prohibited => ([3, 13], 0),
            Self::TooLong(mtu) => ([3, 4], mtu.min(u16::MAX.into())),
        }
    }

    /// ICMPv6's (RFC 4443, 3.1 and 3.2).
    fn version_6(self) -> ([u8; 2], u32) {
        match self {
            Self::Net => ([1, 0], 0),
            Self::Prohibited => ([1, 1], 0),
            Self::Host => ([1, 3], 0),
            Self::Port => ([1, 4], 0),
            Self::TooLong(mtu) => ([2, 0], mtu),
        }
    }
}

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
    pub(super) ends: Ends,
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
        let why = match Errno::from_io_error(error) {
            Some(Errno::NETUNREACH | Errno::AFNOSUPPORT) => Unreachable::Net,
            Some(Errno::HOSTUNREACH | Errno::TIMEDOUT | Errno::HOSTDOWN) => Unreachable::Host,
            Some(Errno::ACCESS | Errno::PERM) => Unreachable::Prohibited,
            Some(Errno::CONNREFUSED) if about.protocol == IpProtocol::Udp => Unreachable::Port,
            _ => return false,
        };
        self.unreachable(about, why);
        true
    }

    /// Tells the guest that a packet of its does not arrive.
    pub(super) fn unreachable(&mut self, about: About, why: Unreachable) {
        let About { protocol, ends: Ends { guest, remote }, word } = about;
        let (source, icmp, (kind, value)) = match guest.ip() {
            IpAddr::V4(_) => (IpAddr::V4(GATEWAY), IpProtocol::Icmp, why.version_4()),
            IpAddr::V6(_) => (IpAddr::V6(GATEWAY_V6), IpProtocol::Icmpv6, why.version_6()),
        };
        let mut message = [&kind[..], &[0, 0], &value.to_be_bytes()].concat();
        // The header of what was sent, and its first eight bytes.
        message.extend(Ip { source: guest.ip(), to: remote.ip(), protocol }.header(8));
        message.extend(guest.port().to_be_bytes());
        message.extend(remote.port().to_be_bytes());
        message.extend(word.to_be_bytes());
        let source = if why == Unreachable::Port { remote.ip() } else { source };
        let ip = Ip { source, to: guest.ip(), protocol: icmp };
        let sum = checksum_of(ip, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.cable.packet(ip, &message, self.guest);
    }
}
