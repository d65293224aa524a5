//! The machine as one processor sees it during an instruction: the bus and its local APIC.

use crate::clock::ProcessorTsc;
use crate::layout;
use devices::bus::Bus;
use devices::irqchip::Lapic;
use std::sync::Arc;
use vcpu::{CpuIo, MsrFault};

/// One processor's side of the machine. Used by that processor's thread alone.
#[derive(Debug)]
pub(crate) struct ProcessorIo {
    pub(crate) bus: Arc<Bus>,
    pub(crate) lapic: Arc<Lapic>,
    pub(crate) tsc: Arc<ProcessorTsc>,
}

impl ProcessorIo {
    /// The offset in the local APIC's page, if `gpa` lies there.
    fn in_lapic(&self, gpa: u64) -> Option<u64> {
        let base = self.lapic.mmio_base()?;
        let offset = gpa.wrapping_sub(base);
        (offset < layout::LAPIC_SIZE).then_some(offset)
    }
}

impl CpuIo for ProcessorIo {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        self.bus.pio_read(port, size)
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        self.bus.pio_write(port, size, value);
    }

    fn mmio_read(&mut self, gpa: u64, size: u8) -> u64 {
        let Some(offset) = self.in_lapic(gpa) else { return self.bus.mmio_read(gpa, size) };
        let value = self.lapic.mmio_read(offset, size);
        tracing::trace!(target: "mmio", device = "lapic", "load  {gpa:#x}/{size} = {value:#x}");
        value
    }

    fn mmio_write(&mut self, gpa: u64, size: u8, value: u64) {
        let Some(offset) = self.in_lapic(gpa) else {
            return self.bus.mmio_write(gpa, size, value);
        };
        tracing::trace!(target: "mmio", device = "lapic", "store {gpa:#x}/{size} = {value:#x}");
        self.lapic.mmio_write(offset, size, value);
    }

    fn msr_read(&mut self, msr: u32) -> Option<Result<u64, MsrFault>> {
        let result = self.lapic.msr_read(msr)?;
        tracing::trace!(target: "msr", device = "lapic", "read  {msr:#x} = {result:x?}");
        Some(result)
    }

    fn msr_write(&mut self, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        let result = self.lapic.msr_write(msr, value)?;
        tracing::trace!(target: "msr", device = "lapic", "write {msr:#x} = {value:#x}: {result:?}");
        Some(result)
    }

    fn ack_interrupt(&mut self) -> Option<u8> {
        let vector = self.lapic.ack_interrupt();
        tracing::trace!(target: "irq", ?vector, "acknowledged");
        vector
    }

    fn task_priority(&mut self) -> u8 {
        self.lapic.task_priority()
    }

    fn set_task_priority(&mut self, class: u8) {
        self.lapic.set_task_priority(class);
    }

    fn tsc_offset_changed(&mut self, offset: u64) {
        self.tsc.set_offset(offset);
        self.lapic.tsc_changed();
    }
}
