//! The machine around a case: it records what the guest reports and raises interrupts on demand.

use crate::layout::{INTERRUPT, NO_CALL, RAISE_INTERRUPT, RAISE_NMI, REPORT};
use std::sync::Arc;
use vcpu::{CpuIo, Hypercall, HypercallError, MsrFault, Signal, Signals};
use x86::addr::{Gpa, Port, PortWidth, Vector, Width};

/// Ports, a task priority, and one pending interrupt.
pub(crate) struct TestIo {
    signals: Arc<Signals>,
    /// The bytes written to the report port.
    pub(crate) reports: Vec<u8>,
    /// CR8.
    pub(crate) priority: u8,
}

impl TestIo {
    pub(crate) fn new(signals: Arc<Signals>) -> Self {
        Self { signals, reports: Vec::new(), priority: 0 }
    }

    /// Makes the external interrupt pending.
    pub(crate) fn interrupt(&self) {
        self.signals.raise(Signal::Intr);
    }
}

impl CpuIo for TestIo {
    fn pio_read(&mut self, port: Port, width: PortWidth) -> u32 {
        // Each port reads as its own number, so that INS and IN can be checked.
        u32::from(port.0) & width.mask()
    }

    fn pio_write(&mut self, port: Port, _width: PortWidth, value: u32) {
        match port {
            Port(REPORT) => self.reports.push(value as u8),
            Port(RAISE_INTERRUPT) => self.interrupt(),
            Port(RAISE_NMI) => self.signals.raise(Signal::Nmi),
            _ => {}
        }
    }

    fn mmio_read(&mut self, _gpa: Gpa, width: Width) -> u64 {
        width.mask()
    }

    fn mmio_write(&mut self, _gpa: Gpa, _width: Width, _value: u64) {}

    fn msr_read(&mut self, _msr: u32) -> Option<Result<u64, MsrFault>> {
        None
    }

    fn msr_write(&mut self, _msr: u32, _value: u64) -> Option<Result<(), MsrFault>> {
        None
    }

    fn ack_interrupt(&mut self) -> Option<Vector> {
        self.signals.clear(Signal::Intr);
        Some(Vector(INTERRUPT))
    }

    fn task_priority(&mut self) -> u8 {
        self.priority
    }

    fn set_task_priority(&mut self, class: u8) {
        self.priority = class;
    }

    fn hypercall(&mut self, call: Hypercall) -> Result<u64, HypercallError> {
        // Each register has its place in the answer, so that none can stand for another.
        let [a, b, c, d] = call.arguments;
        match call.number {
            NO_CALL => Err(HypercallError::Unknown),
            number => Ok([a, b, c, d].iter().fold(number, |sum, x| sum * 16 + x)),
        }
    }
}
