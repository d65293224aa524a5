//! Saved state of a network device. What its backend had open is the host's: of that, only what the
//! guest has to be told is saved.

use super::mac::Mac;
use crate::saved::{Check, RestoreError};
use ::net::{BackendState, CONNECTIONS_MAX, Link};
use serde::{Deserialize, Serialize};

/// The state of a network device, version 4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetState {
    /// [`NetState::VERSION`] of the writer.
    pub version: u32,
    /// Its address.
    pub mac: Mac,
    /// Whether its cable leads anywhere, as the driver has been told.
    pub link: Link,
    /// What is at the other end of the cable.
    pub backend: BackendState,
}

impl NetState {
    /// The version that this build writes.
    pub const VERSION: u32 = 4;

    /// Checks what does not depend on the device that is there.
    ///
    /// # Errors
    /// No device has that state.
    pub(super) fn check(&self) -> Result<Check, RestoreError> {
        let check = Check::version("network", self.version, Self::VERSION)?;
        let count = self.backend.connections.len();
        check.that(count <= CONNECTIONS_MAX, "connections", count, CONNECTIONS_MAX)?;
        Ok(check)
    }
}
