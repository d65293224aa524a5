//! The 8259A pair.

use super::Lapic;
use crate::bus::SharedPio;
use crate::irq::IrqInputs;
use std::fmt;
use std::sync::Arc;

/// The master and slave 8259A with the edge/level control registers, wired to LINT0 of one local APIC.
pub struct PicPair {
    lint0: Option<Arc<Lapic>>,
}

impl PicPair {
    /// As after reset; INT goes to LINT0 of `lint0`.
    pub fn new(lint0: Option<Arc<Lapic>>) -> Arc<Self> {
        Arc::new(Self { lint0 })
    }

    /// The INTA cycle: the vector, which is spurious (IR7's) if no request is left.
    pub fn acknowledge(&self) -> u8 {
        let _ = &self.lint0;
        0
    }
}

impl IrqInputs for PicPair {
    fn set_input(&self, _pin: u8, _level: bool) {}
}

impl SharedPio for PicPair {
    fn read(&self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn write(&self, _port: u16, _size: u8, _value: u32) {}
}

impl fmt::Debug for PicPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PicPair")
    }
}
