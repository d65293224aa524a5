//! The window of a device that is one console (5.3.4): its size is in the configuration space.
//!
//! Beside other ports a console's size would come by a control message, VIRTIO_CONSOLE_RESIZE. Some
//! versions of Linux read its two numbers in the specification's order (5.3.6.2), others in the
//! opposite one; all read the configuration space alike.

use crate::virtio::irq::VirtioIrq;
use std::sync::Arc;

/// How large a console is, in characters. 0: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsoleSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Window {
    size: ConsoleSize,
    generation: u32,
    /// Of a driver that has the device running.
    irq: Option<Arc<dyn VirtioIrq>>,
}

impl Window {
    /// What the configuration space begins with.
    pub(super) fn config(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.size.columns.to_le_bytes(), self.size.rows.to_le_bytes());
        [a, b, c, d]
    }

    /// Another with each size.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// The driver hears by `irq` from now on. Linux looks at the size when it is told of a change,
    /// and not before.
    pub(super) fn begin(&mut self, irq: Arc<dyn VirtioIrq>) {
        irq.config();
        self.irq = Some(irq);
    }

    /// It hears nothing.
    pub(super) fn end(&mut self) {
        self.irq = None;
    }

    /// The window has this size.
    pub(super) fn resize(&mut self, size: ConsoleSize) {
        if self.size == size {
            return;
        }
        self.size = size;
        self.generation = self.generation.wrapping_add(1);
        if let Some(irq) = &self.irq {
            irq.config();
        }
    }
}
