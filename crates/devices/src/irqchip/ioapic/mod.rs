//! The IOAPIC (82093AA with the EOI register of version 20H): 24 pins to messages.
//!
//! The lock is held while messages are delivered, so that a pin's messages keep their order; a
//! local APIC is never locked by the thread that comes in through [`IoApic::eoi`].

mod core;

use self::core::{Core, PINS, Request};
use super::interconnect::EoiListener;
use crate::bus::SharedMmio;
use crate::irq::IrqInputs;
use crate::msi::MsiSink;
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex};

/// Index register.
const IOREGSEL: u64 = 0x00;
/// Data window.
const IOWIN: u64 = 0x10;
/// EOI register: the vector completed.
const EOI: u64 = 0x40;

/// The IOAPIC, with its adapter to the bus, the lines and the local APICs.
pub struct IoApic {
    messages: Arc<dyn MsiSink>,
    core: Mutex<Core>,
}

/// The state of an IOAPIC, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApicState {
    /// 1.
    pub version: u32,
    /// IOAPICID.
    pub id: u8,
    /// IOREGSEL.
    pub select: u8,
    /// IOREDTBL.
    pub entries: [u64; PINS],
    /// Levels of the inputs, one bit each.
    pub inputs: u32,
}

impl IoApic {
    /// As after reset; `id` (4 bits) is the APIC id that the MADT gives it.
    pub fn new(id: u8, messages: Arc<dyn MsiSink>) -> Arc<Self> {
        Arc::new(Self { messages, core: Mutex::new(Core::new(id)) })
    }

    /// A reset; the inputs keep their levels.
    pub fn reset(&self) {
        let mut core = lock(&self.core);
        *core = Core { inputs: core.inputs, ..Core::new(core.id) };
    }

    /// The saved state.
    pub fn save(&self) -> IoApicState {
        let Core { id, select, entries, inputs } = lock(&self.core).clone();
        IoApicState { version: 1, id, select, entries, inputs }
    }

    /// Takes over `state`; nothing is delivered, since the local APICs' states hold what is in
    /// flight.
    pub fn restore(&self, state: &IoApicState) {
        let &IoApicState { version: _, id, select, entries, inputs } = state;
        *lock(&self.core) = Core { id, select, entries, inputs };
    }

    fn send(&self, core: &mut Core, request: &Request) {
        tracing::trace!(target: "irq", pin = request.pin, msi = ?request.msi, "IOAPIC");
        if self.messages.send(request.msi) {
            core.sent(request);
        }
    }
}

impl EoiListener for IoApic {
    fn eoi(&self, vector: u8) {
        let mut core = lock(&self.core);
        for request in core.eoi(vector) {
            self.send(&mut core, &request);
        }
    }
}

impl IrqInputs for IoApic {
    fn set_input(&self, pin: u8, level: bool) {
        let mut core = lock(&self.core);
        if let Some(request) = core.set_input(pin, level) {
            self.send(&mut core, &request);
        }
    }
}

impl SharedMmio for IoApic {
    fn read(&self, offset: u64, _size: u8) -> u64 {
        let core = lock(&self.core);
        let value = match offset & !3 {
            IOREGSEL => u32::from(core.select),
            IOWIN => core.read_selected(),
            _ => 0,
        };
        u64::from(value) >> ((offset & 3) * 8)
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        match offset {
            IOREGSEL => lock(&self.core).select = value as u8,
            IOWIN => {
                let mut core = lock(&self.core);
                if let Some(request) = core.write_selected(value as u32) {
                    self.send(&mut core, &request);
                }
            }
            EOI => self.eoi(value as u8),
            _ => {}
        }
    }

    fn max_width(&self) -> u8 {
        4
    }
}

impl fmt::Debug for IoApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoApic({:x?})", lock(&self.core))
    }
}
