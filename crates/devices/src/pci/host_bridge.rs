//! The host bridge, function 00.0: what says to a guest that there is PCI.
//!
//! It is Red Hat's virtual host bridge, 1B36H:0008H. Drivers and quirks go by a bridge's IDs; those
//! of a chipset would promise registers that are not here. A number of our own would be somebody
//! else's: only members of PCI-SIG get them.

use super::config::{Config, Identity};
use super::decoder::Decoder;
use super::function::PciFunction;
use super::saved::ConfigState;
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use x86::addr::PortWidth;

const IDENTITY: Identity = Identity {
    vendor: 0x1B36,
    device: 0x0008,
    revision: 0,
    class: [0x06, 0x00, 0x00],
    subsystem_vendor: 0x1AF4,
    subsystem: 0x1100,
};

/// See the module.
#[derive(Debug)]
pub(super) struct HostBridge {
    config: Config,
}

/// The saved state of the host bridge, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostBridgeState {
    /// [`HostBridgeState::VERSION`] of the writer.
    pub version: u32,
    /// Its configuration space.
    pub config: ConfigState,
}

impl HostBridgeState {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}

impl HostBridge {
    /// After a reset.
    pub(super) fn new() -> Self {
        Self { config: Config::new(&IDENTITY) }
    }

    /// The saved state.
    pub(super) fn save(&self) -> HostBridgeState {
        let Self { config } = self;
        HostBridgeState { version: HostBridgeState::VERSION, config: config.save() }
    }

    /// Goes on from `state`.
    pub(super) fn restore(&mut self, state: &HostBridgeState) -> Result<(), RestoreError> {
        let HostBridgeState { version, config } = state;
        let check = Check::version("PCI host bridge", *version, HostBridgeState::VERSION)?;
        self.config.check(check, config)?;
        self.config.restore(config);
        Ok(())
    }
}

impl PciFunction for HostBridge {
    fn config_read(&mut self, register: u16, width: PortWidth) -> u32 {
        self.config.read(register, width)
    }

    fn config_write(&mut self, register: u16, width: PortWidth, value: u32) {
        self.config.write(register, width, value);
    }

    fn decoders(&self) -> Vec<Arc<Decoder>> {
        self.config.decoders()
    }

    // It has no BAR.
    fn read(&mut self, _bar: usize, _offset: u32, width: PortWidth) -> u32 {
        width.mask()
    }

    fn write(&mut self, _bar: usize, _offset: u32, _width: PortWidth, _value: u32) {}
}
