//! Saved state of the devices behind the transports.

use super::balloon::BalloonState;
use super::blk::saved::BlockState;
use super::console::ConsoleState;
use super::fs::FsState;
use super::net::saved::NetState;
use super::vsock::VsockState;
use serde::{Deserialize, Serialize};

/// What a device keeps beyond its transport's registers and queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeviceState {
    /// A disk.
    Block(BlockState),
    /// A memory balloon.
    Balloon(BalloonState),
    /// Sockets.
    Vsock(VsockState),
    /// A console.
    Console(ConsoleState),
    /// A network device.
    Net(NetState),
    /// A shared folder.
    Fs(FsState),
    /// A device that keeps nothing.
    Stateless,
}
