//! The x86-64 architecture as data and pure functions.
//!
//! Nothing here runs a guest. This crate says what the processor *is* ([`state`], [`regs`]) and
//! what its microcode *does* at the system level: the page walk ([`paging`]), segment loads and
//! checks ([`segment`]), delivery of interrupts and exceptions through the IDT ([`interrupt`]), far
//! transfers, the hardware task switch, CPUID models and model-specific registers. Engines, the
//! debugger, the inspector and the tests all call these same functions; each has one place and
//! cites the manual.
//!
//! Manuals: *SDM* is Intel's Software Developer's Manual, *APM* AMD's Architecture Programmer's
//! Manual.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod apic;
pub mod bus;
pub mod control;
pub mod cpuid;
pub mod debug;
pub mod descriptor;
pub mod elements;
pub mod exception;
pub mod far;
pub mod flags;
pub mod interrupt;
pub mod ioperm;
pub mod iret;
pub mod msr;
pub mod paging;
pub mod protect;
pub mod regs;
pub mod segment;
pub mod state;
pub mod syscall;
pub mod task;
#[cfg(test)]
mod test_bus;
mod vectors;
pub mod xsave;
