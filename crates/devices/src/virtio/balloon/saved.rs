//! Saved state of the balloon. What was given up is zeros in the saved memory.

use serde::{Deserialize, Serialize};

/// The state of a balloon, version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonState {
    /// [`BalloonState::VERSION`] of the writer.
    pub version: u32,
    /// Pages of 4 KiB that the host wants.
    pub wanted: u32,
    /// Pages that the guest says it has given.
    pub given: u32,
    /// The guest has not been told of what is wanted.
    pub untold: bool,
}

impl BalloonState {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}
