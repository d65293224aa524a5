//! InterruptStatus, and the line that is up while it is not zero.
//!
//! Shared by the transport and the threads that serve queues.

use super::super::common::Interrupts;
use crate::irq::IrqLine;
use std::sync::Mutex;
use sync::lock;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

/// All bits of InterruptStatus.
pub(super) const STATUS_BITS: u32 = VIRTIO_MMIO_INT_CONFIG | VIRTIO_MMIO_INT_VRING;

/// See the module.
#[derive(Debug)]
pub(super) struct Interrupt {
    status: Mutex<u32>,
    line: IrqLine,
}

impl Interrupt {
    /// Nothing pending.
    pub(super) fn new(line: IrqLine) -> Self {
        Self { status: Mutex::new(0), line }
    }

    /// InterruptACK.
    pub(super) fn acknowledge(&self, bits: u32) {
        self.change(|status| *status &= !bits);
    }

    /// InterruptStatus.
    pub(super) fn status(&self) -> u32 {
        *lock(&self.status)
    }

    /// Restoring.
    pub(super) fn set(&self, new: u32) {
        self.change(|status| *status = new);
    }

    /// The line is driven under the lock, so that it follows the register.
    fn change(&self, change: impl FnOnce(&mut u32)) {
        let mut status = lock(&self.status);
        change(&mut status);
        self.line.set(*status != 0);
    }
}

impl Interrupts for Interrupt {
    fn queue(&self, _queue: u16) {
        self.change(|status| *status |= VIRTIO_MMIO_INT_VRING);
    }

    fn config(&self) {
        self.change(|status| *status |= VIRTIO_MMIO_INT_CONFIG);
    }

    fn reset(&self) {
        self.set(0);
    }
}
