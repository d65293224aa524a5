//! The machine around the processor, as far as the processor asks it: device memory, ports,
//! machine-specific registers, interrupts. It is borrowed while `run` is under way.
#![allow(unsafe_code)] // the borrow's lifetime is erased; see docs/UNSAFE.md

use std::ptr::NonNull;
use vcpu::CpuIo;
use x86::addr::{Gpa, Width};

/// See the module.
#[derive(Default)]
pub(crate) struct Machine {
    /// Set while `run` is under way.
    io: Option<NonNull<dyn CpuIo>>,
    /// Accesses to device memory.
    pub(crate) accesses: u64,
}

// SAFETY: the pointer is set inside `run` only, and used by the thread that `run` is called on.
unsafe impl Send for Machine {}

impl Machine {
    /// Borrows the machine until [`Machine::release`].
    pub(crate) fn lend(&mut self, io: &mut dyn CpuIo) {
        // SAFETY: only the lifetime is erased; `run` releases the pointer before its borrow of `io`
        // ends.
        let io: NonNull<dyn CpuIo + 'static> =
            unsafe { std::mem::transmute::<NonNull<dyn CpuIo + '_>, _>(NonNull::from(io)) };
        self.io = Some(io);
    }

    /// Ends the borrow.
    pub(crate) fn release(&mut self) {
        self.io = None;
    }

    /// The machine. Absent (outside `run`) nothing answers.
    pub(crate) fn io(&mut self) -> Option<&mut dyn CpuIo> {
        // SAFETY: set by `lend` from an exclusive borrow that outlives `run`; one reference at a
        // time, bound to `self`.
        self.io.map(|mut io| unsafe { io.as_mut() as &mut dyn CpuIo })
    }

    /// Reads device memory.
    pub(crate) fn read(&mut self, gpa: Gpa, size: Width) -> u64 {
        self.accesses += 1;
        self.io().map_or(u64::MAX, |io| io.mmio_read(gpa, size))
    }

    /// Writes device memory.
    pub(crate) fn write(&mut self, gpa: Gpa, size: Width, value: u64) {
        self.accesses += 1;
        if let Some(io) = self.io() {
            io.mmio_write(gpa, size, value);
        }
    }
}
