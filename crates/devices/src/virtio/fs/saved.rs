//! Saved state of a shared folder.

use serde::{Deserialize, Serialize};
use share::ShareState;

/// The state of a shared folder, version 1. What is in the folder is the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsState {
    /// [`FsState::VERSION`] of the writer.
    pub version: u32,
    /// What it is called.
    pub tag: String,
    /// Whether the guest can only read it.
    pub read_only: bool,
    /// What the guest knows of it.
    pub share: ShareState,
}

impl FsState {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}
