//! The machine as one processor sees it during an instruction: the bus, its local APIC, its part of
//! KVM's interface.

use crate::arrivals::Arrivals;
use crate::clock::ProcessorTsc;
use crate::layout;
use devices::bus::Bus;
use devices::irqchip::Lapic;
use devices::paravirt::Paravirt;
use sched::Rivals;
use std::sync::Arc;
use vcpu::{CpuIo, Hypercall, HypercallError, Interruptible, Kick, MsrFault, Signals};
use x86::addr::{Gpa, La, Port, PortWidth, Vector, Width};

/// One processor's side of the machine. Used by that processor's thread alone.
#[derive(Debug)]
pub(crate) struct ProcessorIo {
    pub(crate) bus: Arc<Bus>,
    pub(crate) lapic: Arc<Lapic>,
    pub(crate) tsc: Arc<ProcessorTsc>,
    pub(crate) paravirt: Paravirt,
    pub(crate) signals: Arc<Signals>,
    pub(crate) arrivals: Arrivals,
    /// Whether other processors of the machine wait for a host thread. `None`: there are no others.
    pub(crate) rivals: Option<Rivals>,
    /// It spins while others wait: its turn is to end.
    pub(crate) spins: bool,
}

/// PAUSEs between two looks whether a processor that spins keeps others waiting: some microseconds.
const SPIN: u32 = 256;

impl ProcessorIo {
    /// The offset in the local APIC's page, if `gpa` lies there.
    fn in_lapic(&self, gpa: Gpa) -> Option<u64> {
        let base = self.lapic.mmio_base()?;
        let offset = gpa.wrapping_distance(base);
        (offset < layout::LAPIC_SIZE).then_some(offset)
    }
}

impl CpuIo for ProcessorIo {
    fn pio_read(&mut self, port: Port, width: PortWidth) -> u32 {
        self.bus.pio_read(port, width)
    }

    fn pio_write(&mut self, port: Port, width: PortWidth, value: u32) {
        self.bus.pio_write(port, width, value);
    }

    fn mmio_read(&mut self, gpa: Gpa, width: Width) -> u64 {
        let Some(offset) = self.in_lapic(gpa) else { return self.bus.mmio_read(gpa, width) };
        let value = self.lapic.mmio_read(offset, width);
        let bytes = width.bytes();
        tracing::trace!(target: "mmio", device = "lapic", "load  {gpa:#x}/{bytes} = {value:#x}");
        value
    }

    fn mmio_write(&mut self, gpa: Gpa, width: Width, value: u64) {
        let Some(offset) = self.in_lapic(gpa) else {
            return self.bus.mmio_write(gpa, width, value);
        };
        let bytes = width.bytes();
        tracing::trace!(target: "mmio", device = "lapic", "store {gpa:#x}/{bytes} = {value:#x}");
        self.lapic.mmio_write(offset, width, value);
    }

    fn msr_read(&mut self, msr: u32) -> Option<Result<u64, MsrFault>> {
        let result = self.lapic.msr_read(msr).or_else(|| self.paravirt.msr_read(msr))?;
        tracing::trace!(target: "msr", device = "machine", "read  {msr:#x} = {result:x?}");
        Some(result)
    }

    fn msr_write(&mut self, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        let lapic = self.lapic.msr_write(msr, value);
        let result = lapic.or_else(|| self.paravirt.msr_write(msr, value))?;
        tracing::trace!(
            target: "msr", device = "machine", "write {msr:#x} = {value:#x}: {result:?}"
        );
        Some(result)
    }

    fn ack_interrupt(&mut self) -> Option<Vector> {
        let vector = self.lapic.ack_interrupt();
        if self.lapic.take_stall() {
            self.paravirt.was_stopped();
        }
        tracing::trace!(target: "irq", ?vector, "acknowledged");
        vector
    }

    fn task_priority(&mut self) -> u8 {
        self.lapic.task_priority()
    }

    fn set_task_priority(&mut self, class: u8) {
        self.lapic.set_task_priority(class);
    }

    fn spins(&mut self) -> u32 {
        let Some(rivals) = &self.rivals else { return u32::MAX };
        if rivals.wait() {
            self.spins = true;
            self.signals.kick(Kick::Quantum);
        }
        SPIN
    }

    fn page_absent(&mut self, gpa: Gpa, guest: Interruptible) -> Option<La> {
        if !self.paravirt.takes_async_fault(guest) || !self.arrivals.request(gpa) {
            return None;
        }
        self.paravirt.async_fault(gpa.page())
    }

    fn tsc_offset_changed(&mut self, offset: u64) {
        self.tsc.set_offset(offset);
        self.lapic.tsc_changed();
        self.paravirt.tsc_changed();
    }

    fn hypercall(&mut self, call: Hypercall) -> Result<u64, HypercallError> {
        let result = self.paravirt.hypercall(call);
        if self.paravirt.wants_to_yield() {
            self.signals.kick(Kick::Quantum);
        }
        result
    }
}
