//! A machine with nothing in it, for processors that are to run alone.

use crate::{CpuIo, MsrFault};

/// What is not there reads all-ones, cut to the access's size; nothing interrupts.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDevices;

impl CpuIo for NoDevices {
    fn pio_read(&mut self, _: u16, size: u8) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(size))
    }
    fn pio_write(&mut self, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, _: u64, size: u8) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(size))
    }
    fn mmio_write(&mut self, _: u64, _: u8, _: u64) {}
    fn msr_read(&mut self, _: u32) -> Option<Result<u64, MsrFault>> {
        None
    }
    fn msr_write(&mut self, _: u32, _: u64) -> Option<Result<(), MsrFault>> {
        None
    }
    fn ack_interrupt(&mut self) -> Option<u8> {
        None
    }
    fn task_priority(&mut self) -> u8 {
        0
    }
    fn set_task_priority(&mut self, _: u8) {}
}
