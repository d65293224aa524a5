//! Saved state of a console device. What its ports' other ends hold is the host's affair.

use serde::{Deserialize, Serialize};

/// The state of a console device, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleState {
    /// [`ConsoleState::VERSION`] of the writer.
    pub version: u32,
    /// Each port.
    pub ports: Vec<PortState>,
}

/// The state of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortState {
    /// What it is called.
    pub name: String,
    /// The guest has it open.
    pub guest_open: bool,
    /// The guest has closed it, and what it wrote before is not all taken yet.
    pub ending: bool,
    /// The host has it open.
    pub host_open: bool,
    /// What the guest is still to be told of it.
    pub news: News,
    /// Bytes of the oldest chain in the output queue that have been taken.
    pub taken: u64,
}

/// What a guest is to be told of a port, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct News {
    /// That it is there.
    pub added: bool,
    /// Its name.
    pub name: bool,
    /// Whether the host has it open.
    pub open: bool,
}

impl ConsoleState {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}
