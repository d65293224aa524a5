//! Saved state of the socket device: connections are not part of it, they end.

use serde::{Deserialize, Serialize};

/// The state of a socket device, version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockState {
    /// [`VsockState::VERSION`] of the writer.
    pub version: u32,
    /// The guest's context ID.
    pub cid: u32,
}

impl VsockState {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}
