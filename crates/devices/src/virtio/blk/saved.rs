//! Saved state of a disk. Its content is the host's file; the state only names the disk it belongs
//! to.

use serde::{Deserialize, Serialize};

/// The state of a disk, version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockState {
    /// [`BlockState::VERSION`] of the writer.
    pub version: u32,
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Whether the guest can only read it.
    pub read_only: bool,
    /// The driver's choice: a write is safe after a flush, not when it is answered (5.2.4).
    pub writeback: bool,
}

impl BlockState {
    /// The version that this build writes.
    pub const VERSION: u32 = 2;
}
