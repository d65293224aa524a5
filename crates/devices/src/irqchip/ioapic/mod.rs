//! The IOAPIC (82093AA with the EOI register of version 20H): 24 pins to messages.
//!
//! The lock is held while messages are delivered, so that a pin's messages keep their order; a
//! local APIC is never locked by the thread that comes in through [`IoApic::eoi`].

mod core;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use saved::IoApicState;
use x86::addr::{Vector, Width};

use self::core::{Core, Request};
use super::interconnect::EoiListener;
use crate::bus::SharedMmio;
use crate::irq::IrqInputs;
use crate::msi::MsiSink;
use crate::saved::RestoreError;
use registers::{EOI, IOREGSEL, IOWIN};
use std::fmt;
use std::sync::{Arc, Mutex};
use sync::lock;

/// The IOAPIC, with its adapter to the bus, the lines and the local APICs.
pub struct IoApic {
    messages: Arc<dyn MsiSink>,
    core: Mutex<Core>,
}

impl IoApic {
    /// As after reset; `id` (4 bits) is the APIC id that the MADT gives it.
    pub fn new(id: u8, messages: Arc<dyn MsiSink>) -> Arc<Self> {
        Arc::new(Self { messages, core: Mutex::new(Core::new(id)) })
    }

    /// The saved state.
    pub fn save(&self) -> IoApicState {
        lock(&self.core).save()
    }

    /// Goes on from `state`; nothing is delivered, since the local APICs' states hold what is in
    /// flight.
    ///
    /// # Errors
    /// The state is another version's or no IOAPIC's; nothing was changed.
    pub fn restore(&self, state: &IoApicState) -> Result<(), RestoreError> {
        let restored = Core::restored(state)?;
        *lock(&self.core) = restored;
        Ok(())
    }

    fn send(&self, core: &mut Core, request: &Request) {
        tracing::trace!(target: "irq", pin = request.pin, msi = ?request.msi, "IOAPIC");
        if self.messages.send(request.msi) {
            core.sent(request);
        }
    }
}

impl EoiListener for IoApic {
    fn eoi(&self, vector: Vector) {
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
    fn read(&self, offset: u64, _width: Width) -> u64 {
        let core = lock(&self.core);
        let value = match offset & !3 {
            IOREGSEL => u32::from(core.select),
            IOWIN => core.read_selected(),
            _ => 0,
        };
        u64::from(value) >> ((offset & 3) * 8)
    }

    fn write(&self, offset: u64, _width: Width, value: u64) {
        match offset {
            IOREGSEL => lock(&self.core).select = value as u8,
            IOWIN => {
                let mut core = lock(&self.core);
                if let Some(request) = core.write_selected(value as u32) {
                    self.send(&mut core, &request);
                }
            }
            EOI => self.eoi(Vector(value as u8)),
            _ => {}
        }
    }

    fn max_width(&self) -> Width {
        Width::B4
    }
}

impl fmt::Debug for IoApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoApic({:x?})", lock(&self.core))
    }
}
