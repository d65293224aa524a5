//! Networks for guests: what is at the other end of a network device's cable.
//!
//! ```text
//! a network device ──transmit──► Backend ──► the host's sockets
//!       ▲                          │
//!       └───────── Guest ◄─deliver─┘
//! ```
//! One thread, the device's, calls a [`Backend`]: with each frame of the guest's, and whenever its
//! descriptor is readable or its deadline has passed. It never blocks, and takes no lock.
//!
//! Whatever frames a guest sends: a backend neither panics nor keeps more than a bounded amount of
//! memory and descriptors for it.
#![forbid(unsafe_code)]

mod config;
mod user;

pub use config::{Forward, Ipv6, Protocol, Switch, UserConfig};
pub use user::{UserError, UserNet};

use std::os::fd::BorrowedFd;
use std::time::Instant;

/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;
/// Bytes of the longest frame: the longest IPv4 packet in an Ethernet frame.
pub const FRAME_MAX: usize = ETHERNET_HEADER + 65535;

/// What the other side of a cable can do for us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It takes frames whose transport checksum covers the pseudo header alone.
    pub checksum: bool,
    /// It takes IPv4 frames with more TCP payload than its MTU, cut as [`Frame::segment`] says.
    pub segmentation: bool,
    /// The same of IPv6 frames.
    pub segmentation_v6: bool,
}

/// A frame for the guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame<'a> {
    /// Its bytes, in pieces.
    pub parts: [&'a [u8]; 3],
    /// Where the transport header begins and, from there, where its checksum is, if that covers the
    /// pseudo header alone.
    pub checksum: Option<(u16, u16)>,
    /// Payload of each TCP segment that the frame stands for.
    pub segment: Option<u16>,
}

impl Frame<'_> {
    /// Whether it carries IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.parts[0].get(12..14) == Some(&[0x86, 0xDD])
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

/// How far the sums of a frame of the guest's are to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// Each is there, and can be checked.
    Whole,
    /// The guest leaves the transport's to us.
    Partial,
}

/// The guest's side.
pub trait Guest {
    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Gives it a frame.
    fn deliver(&mut self, frame: &Frame<'_>) -> Delivery;
}

/// The network's side.
pub trait Backend: Send {
    /// The guest has sent `frame`.
    fn transmit(&mut self, frame: &[u8], sums: Sums, guest: &mut dyn Guest);

    /// Looks what the host's side has, and whether a deadline has passed; answers what was
    /// transmitted. Called after frames were transmitted, too.
    fn work(&mut self, guest: &mut dyn Guest);

    /// Readable when there is work.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// When there is work at the latest, whatever the host does.
    fn deadline(&self) -> Option<Instant>;

    /// The guest's driver begins anew: what it had open is closed.
    fn reset(&mut self);
}
