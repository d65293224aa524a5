//! How the function interrupts: messages by MSI-X, or ISR status and INTA# (virtio 1.2, 4.1.4.5,
//! 4.1.5.3, 4.1.5.4).
//!
//! Shared by the transport and the threads that serve queues.

use super::super::common::Interrupts;
use crate::irq::IrqLine;
use crate::msi::MsiSink;
use crate::pci::Msix;
use std::fmt;
use std::sync::{Arc, Mutex};
use sync::lock;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use x86::addr::PortWidth;

/// ISR status: a queue. Its bits are those of the MMIO transport's InterruptStatus.
const QUEUE: u8 = VIRTIO_MMIO_INT_VRING as u8;
/// ISR status: the configuration.
const CONFIG: u8 = VIRTIO_MMIO_INT_CONFIG as u8;
/// All bits of ISR status.
pub(super) const ISR_BITS: u8 = QUEUE | CONFIG;
/// The vector of what has none.
pub(super) const NO_VECTOR: u16 = u16::MAX;

/// What the configuration space says of interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// INTA#.
    Pin,
    /// Neither: INTA# is off.
    Silent,
    /// MSI-X, and messages may be sent.
    Messages,
    /// MSI-X, but the function is masked or must not write to memory.
    Held,
}

/// Who has which vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vectors {
    pub(super) config: u16,
    pub(super) queues: Vec<u16>,
}

pub(super) struct Registers {
    pub(super) isr: u8,
    pub(super) vectors: Vectors,
    pub(super) msix: Msix,
    pub(super) mode: Mode,
}

/// See the module.
pub(super) struct Interrupt {
    registers: Mutex<Registers>,
    line: IrqLine,
    sink: Arc<dyn MsiSink>,
}

impl Interrupt {
    /// Nothing pending, and no vector for any of `queues`.
    pub(super) fn new(queues: u16, line: IrqLine, sink: Arc<dyn MsiSink>) -> Self {
        let vectors = Vectors { config: NO_VECTOR, queues: vec![NO_VECTOR; queues.into()] };
        let msix = Msix::new(queues + 1);
        let registers = Registers { isr: 0, vectors, msix, mode: Mode::Pin };
        Self { registers: Mutex::new(registers), line, sink }
    }

    /// What the configuration space says from now on.
    pub(super) fn set_mode(&self, mode: Mode) {
        self.change(|registers| registers.mode = mode);
    }

    /// Reads ISR status, which clears it.
    pub(super) fn take_isr(&self) -> u8 {
        self.change(|registers| std::mem::take(&mut registers.isr))
    }

    /// Whether INTA# is asked for, masked or not (PCI Local Bus 3.0, 6.2.3).
    pub(super) fn asks(&self) -> bool {
        let registers = lock(&self.registers);
        matches!(registers.mode, Mode::Pin | Mode::Silent) && registers.isr != 0
    }

    /// The vector of queue `queue`, or of the configuration.
    pub(super) fn vector(&self, queue: Option<u16>) -> u16 {
        let mut registers = lock(&self.registers);
        registers.vectors.place(queue).map_or(NO_VECTOR, |place| *place)
    }

    /// Gives it `vector`, or none if there is no such vector.
    pub(super) fn set_vector(&self, queue: Option<u16>, vector: u16) {
        let mut registers = lock(&self.registers);
        let there = vector < registers.msix.count();
        if let Some(place) = registers.vectors.place(queue) {
            *place = if there { vector } else { NO_VECTOR };
        }
    }

    /// A load from the MSI-X table.
    pub(super) fn load(&self, offset: u32, width: PortWidth) -> u32 {
        lock(&self.registers).msix.read(offset, width)
    }

    /// A store to it.
    pub(super) fn store(&self, offset: u32, width: PortWidth, value: u32) {
        self.change(|registers| registers.msix.write(offset, width, value));
    }

    /// The line is driven and messages are sent under the lock, so that they follow the registers.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Registers) -> T) -> T {
        let mut registers = lock(&self.registers);
        let result = change(&mut registers);
        self.line.set(registers.mode == Mode::Pin && registers.isr != 0);
        while registers.mode == Mode::Messages
            && let Some(msi) = registers.msix.due()
        {
            self.sink.send(msi);
        }
        result
    }
}

impl Vectors {
    fn place(&mut self, queue: Option<u16>) -> Option<&mut u16> {
        match queue {
            Some(queue) => self.queues.get_mut(usize::from(queue)),
            None => Some(&mut self.config),
        }
    }
}

impl Registers {
    fn by_messages(&self) -> bool {
        matches!(self.mode, Mode::Messages | Mode::Held)
    }
}

impl Interrupts for Interrupt {
    fn queue(&self, queue: u16) {
        self.change(|registers| {
            if !registers.by_messages() {
                registers.isr |= QUEUE;
            } else if let Some(vector) = registers.vectors.place(Some(queue)).copied() {
                registers.msix.raise(vector);
            }
        });
    }

    fn config(&self) {
        self.change(|registers| {
            registers.isr |= CONFIG;
            if registers.by_messages() {
                registers.msix.raise(registers.vectors.config);
            }
        });
    }

    fn reset(&self) {
        self.change(|registers| {
            registers.isr = 0;
            registers.vectors.config = NO_VECTOR;
            registers.vectors.queues.fill(NO_VECTOR);
            registers.msix.forget();
        });
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers = lock(&self.registers);
        f.debug_struct("Interrupt")
            .field("isr", &registers.isr)
            .field("mode", &registers.mode)
            .field("vectors", &registers.vectors)
            .finish_non_exhaustive()
    }
}
