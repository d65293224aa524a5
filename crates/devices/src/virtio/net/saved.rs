//! Saved state of a network device. What its backend had open is not saved: it is the host's.

use super::mac::Mac;
use ::net::Link;
use serde::{Deserialize, Serialize};

/// The state of a network device, version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetState {
    /// [`NetState::VERSION`] of the writer.
    pub version: u32,
    /// Its address.
    pub mac: Mac,
    /// Whether its cable leads anywhere, as the driver has been told.
    pub link: Link,
}

impl NetState {
    /// The version that this build writes.
    pub const VERSION: u32 = 2;
}
