//! Saved state of the devices behind the transports.

use super::blk::saved::BlockState;
use super::net::saved::NetState;
use serde::{Deserialize, Serialize};

/// What a device keeps beyond its transport's registers and queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeviceState {
    /// A disk.
    Block(BlockState),
    /// A network device.
    Net(NetState),
    /// A device that keeps nothing.
    Stateless,
}
