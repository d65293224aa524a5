//! Links, addresses and routes, told to the kernel by rtnetlink(7).

use anyhow::{Context as _, Result, bail};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use std::net::Ipv4Addr;

/// Types of messages: linux/rtnetlink.h, linux/netlink.h.
mod kind {
    pub(super) const ERROR: u16 = 2;
    pub(super) const NEW_LINK: u16 = 16;
    pub(super) const NEW_ADDRESS: u16 = 20;
    pub(super) const DELETE_ADDRESS: u16 = 21;
    pub(super) const NEW_ROUTE: u16 = 24;
    pub(super) const DELETE_ROUTE: u16 = 25;
}

/// Flags of requests.
mod flag {
    pub(super) const REQUEST: u16 = 1;
    pub(super) const ACK: u16 = 4;
    pub(super) const REPLACE: u16 = 0x100;
    pub(super) const CREATE: u16 = 0x400;
}

/// `AF_INET`.
const INET: u8 = 2;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFA_ADDRESS`, `IFA_LOCAL`, `IFA_BROADCAST`.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;
/// `RTA_OIF`, `RTA_GATEWAY`.
const OUT_DEVICE: u16 = 4;
const GATEWAY: u16 = 5;
/// `RT_TABLE_MAIN`, `RTPROT_BOOT`, `RTN_UNICAST`; the scopes of a route with and without gateway.
const TABLE: u8 = 254;
const PROTOCOL: u8 = 3;
const UNICAST: u8 = 1;
const UNIVERSE: u8 = 0;
const LINK: u8 = 253;
/// Bytes of `nlmsghdr`.
const HEADER: usize = 16;

/// A socket to the kernel.
pub(crate) struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open() -> Result<Self> {
        // Protocol 0: NETLINK_ROUTE.
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None);
        Ok(Self { socket: socket.context("cannot open a netlink socket")?, sequence: 0 })
    }

    /// Sets the device up.
    pub(crate) fn up(&mut self, device: u32) -> Result<()> {
        let mut body = vec![0; 4]; // ifi_family, ifi_type
        for word in [device, UP, UP] {
            body.extend(word.to_ne_bytes()); // ifi_index, ifi_flags, ifi_change
        }
        self.tell(kind::NEW_LINK, 0, &body).context("cannot set a network device up")
    }

    pub(crate) fn add_address(&mut self, device: u32, own: Ipv4Addr, prefix: u8) -> Result<()> {
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let mut body = address(device, own, prefix);
        attribute(&mut body, ADDRESS, own.octets());
        attribute(&mut body, BROADCAST, (own.to_bits() | host_bits).to_be_bytes());
        let flags = flag::CREATE | flag::REPLACE;
        let done = self.tell(kind::NEW_ADDRESS, flags, &body);
        done.with_context(|| format!("cannot have the address {own}/{prefix}"))
    }

    /// Removes every address of the device's.
    pub(crate) fn flush_addresses(&mut self, device: u32) -> Result<()> {
        loop {
            match self.tell(kind::DELETE_ADDRESS, 0, &address(device, Ipv4Addr::UNSPECIFIED, 0)) {
                Ok(()) => {}
                Err(error) if is(&error, Errno::ADDRNOTAVAIL) => return Ok(()),
                Err(error) => return Err(error).context("cannot remove an address"),
            }
        }
    }

    /// All leads out by the device, through the gateway if there is one.
    pub(crate) fn set_default_route(
        &mut self,
        device: u32,
        gateway: Option<Ipv4Addr>,
    ) -> Result<()> {
        let scope = if gateway.is_some() { UNIVERSE } else { LINK };
        let mut body = route(device, scope);
        if let Some(gateway) = gateway {
            attribute(&mut body, GATEWAY, gateway.octets());
        }
        let flags = flag::CREATE | flag::REPLACE;
        self.tell(kind::NEW_ROUTE, flags, &body).context("cannot set the default route")
    }

    pub(crate) fn remove_default_route(&mut self, device: u32) -> Result<()> {
        let done = self.tell(kind::DELETE_ROUTE, 0, &route(device, LINK));
        done.context("cannot remove the default route")
    }

    /// Sends a request, and reads what the kernel answers.
    fn tell(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
        self.sequence += 1;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flag::REQUEST | flag::ACK | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 1024];
        let (_, count) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
        let answer = answer.get(..count).unwrap_or_default();
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        let error = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
        match (kind, error.map(i32::from_ne_bytes)) {
            (Some(kind::ERROR), Some(0)) => Ok(()),
            (Some(kind::ERROR), Some(error)) => {
                Err(Errno::from_raw_os_error(error.saturating_neg()).into())
            }
            _ => bail!("the kernel answers something else"),
        }
    }
}

fn is(error: &anyhow::Error, errno: Errno) -> bool {
    error.downcast_ref::<Errno>() == Some(&errno)
}

/// `ifaddrmsg`, and the address unless it is any.
fn address(device: u32, own: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![INET, prefix, 0, UNIVERSE];
    body.extend(device.to_ne_bytes());
    if !own.is_unspecified() {
        attribute(&mut body, LOCAL, own.octets());
    }
    body
}

/// `rtmsg` of the default route, and its device.
fn route(device: u32, scope: u8) -> Vec<u8> {
    let mut body = vec![INET, 0, 0, 0, TABLE, PROTOCOL, scope, UNICAST, 0, 0, 0, 0];
    attribute(&mut body, OUT_DEVICE, device.to_ne_bytes());
    body
}

/// `rtattr` with four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    body.extend(8_u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}
