//! Addresses of network devices.

use serde::{Deserialize, Serialize};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// That of a machine's network device `number`. Machines may have the same ones: each is alone
    /// on its cable.
    pub fn of(number: u8) -> Self {
        Self([0x52, 0x54, 0x00, 0x12, 0x34, 0x56_u8.wrapping_add(number)])
    }
}
