//! A device's interrupt: InterruptStatus, the line that is up while it is not zero, and DEVICE_NEEDS_RESET.
//!
//! Shared by the transport and the threads that serve rings.

use crate::irq::IrqLine;
use crate::sync::lock;
use std::sync::Mutex;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

/// See the module.
#[derive(Debug)]
pub struct Interrupt {
    state: Mutex<State>,
    line: IrqLine,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// InterruptStatus.
    pub(super) status: u32,
    /// Device status bit DEVICE_NEEDS_RESET.
    pub(super) needs_reset: bool,
}

impl Interrupt {
    /// Nothing pending.
    pub(super) fn new(line: IrqLine) -> Self {
        Self { state: Mutex::default(), line }
    }

    /// Used buffers are there.
    pub(super) fn used_buffer(&self) {
        self.change(|state| state.status |= VIRTIO_MMIO_INT_VRING);
    }

    /// The driver broke the rules: the device cannot go on (2.1.2).
    pub(super) fn needs_reset(&self) {
        self.change(|state| {
            state.needs_reset = true;
            state.status |= VIRTIO_MMIO_INT_CONFIG;
        });
    }

    /// InterruptACK.
    pub(super) fn acknowledge(&self, bits: u32) {
        self.change(|state| state.status &= !bits);
    }

    pub(super) fn state(&self) -> State {
        *lock(&self.state)
    }

    /// Reset or restoring.
    pub(super) fn set(&self, new: State) {
        self.change(|state| *state = new);
    }

    /// The line is driven under the lock, so that it follows the register.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        self.line.set(state.status != 0);
    }
}
