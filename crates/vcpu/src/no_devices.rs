//! A machine with nothing in it, for processors that are to run alone.

use crate::{CpuIo, MsrFault};
use x86::addr::{Gpa, Port, PortWidth, Vector, Width};

/// What is not there reads all-ones, cut to the access's size; nothing interrupts.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDevices;

impl CpuIo for NoDevices {
    fn pio_read(&mut self, _: Port, width: PortWidth) -> u32 {
        width.mask()
    }
    fn pio_write(&mut self, _: Port, _: PortWidth, _: u32) {}
    fn mmio_read(&mut self, _: Gpa, width: Width) -> u64 {
        width.mask()
    }
    fn mmio_write(&mut self, _: Gpa, _: Width, _: u64) {}
    fn msr_read(&mut self, _: u32) -> Option<Result<u64, MsrFault>> {
        None
    }
    fn msr_write(&mut self, _: u32, _: u64) -> Option<Result<(), MsrFault>> {
        None
    }
    fn ack_interrupt(&mut self) -> Option<Vector> {
        None
    }
    fn task_priority(&mut self) -> u8 {
        0
    }
    fn set_task_priority(&mut self, _: u8) {}
}
