//! The IOAPIC.

use super::Interconnect;
use crate::bus::SharedMmio;
use crate::irq::IrqInputs;
use std::fmt;
use std::sync::Arc;

/// The IOAPIC, with its adapter to the bus, the lines and the interconnect.
pub struct IoApic {
    interconnect: Arc<Interconnect>,
}

impl IoApic {
    /// As after reset; `id` is the APIC id that the MADT gives it.
    pub fn new(id: u8, interconnect: Arc<Interconnect>) -> Arc<Self> {
        let _ = id;
        Arc::new(Self { interconnect })
    }

    /// A local APIC has completed the level-triggered interrupt `vector`.
    pub(crate) fn eoi(&self, vector: u8) {
        let _ = (vector, &self.interconnect);
    }
}

impl IrqInputs for IoApic {
    fn set_input(&self, _pin: u8, _level: bool) {}
}

impl SharedMmio for IoApic {
    fn read(&self, _offset: u64, _size: u8) -> u64 {
        0
    }
    fn write(&self, _offset: u64, _size: u8, _value: u64) {}
    fn max_width(&self) -> u8 {
        4
    }
}

impl fmt::Debug for IoApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IoApic")
    }
}
