//! Networks for guests: what is at the other end of a network device's cable.
//!
//! ```text
//! a network device ──transmit──► Backend ──► the host's sockets
//!       ▲                          │
//!       └───────── Guest ◄─deliver─┘
//! ```
//! One thread, the device's, calls a [`Backend`]: with each frame of the guest's, and whenever its
//! descriptor is readable or its deadline has passed. It never blocks; its locks are leaves, and
//! held for moments.
//!
//! Whatever frames a guest sends: a backend neither panics nor keeps more than a bounded amount of
//! memory and descriptors for it.
#![forbid(unsafe_code)]

mod cable;
mod capture;
mod config;
mod inbound;
mod offload;
mod ready;
mod stream;
mod switch;
mod tap;
#[cfg(test)]
mod testing;
mod user;
mod vnet;
mod watch;

pub use cable::{Cable, CableError, Plugged};
pub use capture::Sink;
pub use config::{Forward, Ipv6, Protocol, Switch, UserConfig};
pub use user::Addresses;
pub use watch::{NetStats, Traffic, Watch};

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;
/// Bytes of the longest frame: the longest IPv4 packet in an Ethernet frame.
pub const FRAME_MAX: usize = ETHERNET_HEADER + 65535;

/// TCP connections of a guest's at the most.
pub const CONNECTIONS_MAX: usize = 4096;

/// What the other side of a cable can do for us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It takes frames whose transport checksum covers the pseudo header alone.
    pub checksum: bool,
    /// It takes IPv4 frames with more TCP payload than its MTU, cut as [`Offload::segment`] says.
    pub segmentation: bool,
    /// The same of IPv6 frames.
    pub segmentation_v6: bool,
}

/// What the sender of a frame has left to whoever takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Where the transport header begins and, from there, where its checksum is, if that covers the
    /// pseudo header alone.
    pub checksum: Option<(u16, u16)>,
    /// Payload of each TCP segment that the frame stands for.
    pub segment: Option<u16>,
}

/// A frame for the guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame<'a> {
    /// Its bytes, in pieces.
    pub parts: [&'a [u8]; 3],
    /// What is left to the guest, within its abilities.
    pub offload: Offload,
}

impl Frame<'_> {
    /// Whether it carries IPv6.
    pub fn is_ipv6(&self) -> bool {
        offload::is_ipv6(self.parts[0])
    }

    /// Its bytes.
    pub fn size(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The guest has it.
    Taken,
    /// There is no room; [`Backend::work`] is called when there is.
    Full,
}

/// Whether a cable leads anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// It does.
    Up,
    /// Nobody is at the other end.
    Down,
}

/// The guest's side.
pub trait Guest {
    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Gives it a frame.
    fn deliver(&mut self, frame: &Frame<'_>) -> Delivery;
}

/// What the other end of a cable has open, and what it has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Frames that found no room, from the guest or to it.
    pub lost: u64,
    /// What is open now, where the other end knows flows.
    pub flows: Option<Flows>,
}

/// Flows by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// TCP connections that one side has not answered yet.
    pub tcp_opening: usize,
    /// TCP connections that are there, half closed ones included.
    pub tcp_open: usize,
    /// Peers of UDP ports.
    pub udp: usize,
    /// ICMP echo requests that wait for an answer, or did a moment ago.
    pub echo: usize,
    /// Queries that wait for an answer.
    pub dns: usize,
}

/// A TCP connection as the guest knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other.
    pub remote: SocketAddr,
    /// Sequence number of the next byte for the guest.
    pub next: u32,
    /// That of the next byte of the guest's.
    pub expected: u32,
}

/// What is saved of a network: its sockets are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendState {
    /// The guest's Ethernet address, once it has sent a frame.
    pub station: Option<[u8; 6]>,
    /// Those of its addresses that it has shown.
    pub addresses: Addresses,
    /// Its connections, [`CONNECTIONS_MAX`] at the most.
    pub connections: Vec<Connection>,
}

/// The network's side.
pub trait Backend: Send {
    /// The guest has sent `frame`, and left `offload` to us: that may be nonsense.
    fn transmit(&mut self, frame: &[u8], offload: Offload, guest: &mut dyn Guest);

    /// Looks what the host's side has, and whether a deadline has passed; answers what was
    /// transmitted. Called after frames were transmitted, too.
    fn work(&mut self, guest: &mut dyn Guest);

    /// Readable when there is work.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// When there is work at the latest, whatever the host does.
    fn deadline(&self) -> Option<Instant>;

    /// The guest's driver begins anew: what it had open is closed.
    fn reset(&mut self);

    /// What to save of it.
    fn save(&self) -> BackendState {
        BackendState::default()
    }

    /// The guest has been restored, and was saved with `state`. It is told of what is gone.
    fn restore(&mut self, _state: BackendState) {}

    /// Whether the cable leads anywhere now. What changes it makes work.
    fn link(&self) -> Link {
        Link::Up
    }

    /// What it has open, and has lost so far.
    fn activity(&self) -> Activity {
        Activity::default()
    }
}
