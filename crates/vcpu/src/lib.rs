//! The contract between an engine and a machine.
//!
//! An engine implements [`Vcpu`]; a machine implements [`CpuIo`] and drives [`Vcpu::run`] from one thread per
//! virtual processor. Any thread may raise a [`Signals`] bit. The machine never asks which engine it has.
#![deny(unsafe_code)] // lifted in tsc.rs alone

mod no_devices;
mod signals;
mod stats;
mod tsc;

pub use no_devices::NoDevices;
pub use signals::{Interrupt, Signal, Signals};
pub use stats::{Lockstep, Statistics, Translator};
pub use tsc::host_tsc;

use std::sync::Arc;
use x86::state::CpuState;

/// A virtual processor.
pub trait Vcpu: Send {
    /// Runs the guest until something needs the machine, or `budget` is spent.
    fn run(&mut self, io: &mut dyn CpuIo, budget: Budget) -> Exit;
    /// The complete architectural state, exact at an instruction boundary.
    fn state(&self) -> &CpuState;
    /// Replaces the architectural state; cached translations are dropped.
    fn set_state(&mut self, state: &CpuState);
    /// What other threads use to interrupt [`Vcpu::run`] and to signal events.
    fn signals(&self) -> Arc<Signals>;
    /// Counters since creation.
    fn statistics(&self) -> Statistics;
}

/// How long [`Vcpu::run`] may go on, at block granularity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Guest instructions to run at the most (exceeded by one block at the most).
    pub instructions: u64,
}

impl Budget {
    /// No limit: until an exit or a kick.
    pub const UNLIMITED: Self = Self { instructions: u64::MAX };
    /// Exactly one instruction (with the events that precede it).
    pub const ONE: Self = Self { instructions: 1 };
}

/// Why [`Vcpu::run`] returned. The state is exact in every case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The budget is spent.
    BudgetSpent,
    /// [`Signal::Kick`] was raised; the engine has cleared it.
    Kicked,
    /// HLT (or wait-for-SIPI): nothing to do until a signal arrives; see [`Signals::wait`].
    Halted,
    /// Triple fault.
    Shutdown,
    /// [`Signal::Init`] or [`Signal::Sipi`] was raised and is left for the machine to act on.
    Reset,
    /// The engine itself cannot go on: a defect or an exhausted host.
    Fatal(String),
}

/// What a processor needs from its machine while an instruction is under way.
///
/// `size` is 1, 2, 4 or 8 bytes (ports: up to 4); values are zero-extended. What is not there reads all-ones.
pub trait CpuIo {
    /// IN.
    fn pio_read(&mut self, port: u16, size: u8) -> u32;
    /// OUT.
    fn pio_write(&mut self, port: u16, size: u8, value: u32);
    /// A load from guest-physical `gpa` outside RAM.
    fn mmio_read(&mut self, gpa: u64, size: u8) -> u64;
    /// A store to guest-physical `gpa` outside RAM.
    fn mmio_write(&mut self, gpa: u64, size: u8, value: u64);
    /// RDMSR of a register that a device owns (IA32_APIC_BASE, IA32_TSC_DEADLINE, 800H–8FFH); `None`: no device does.
    fn msr_read(&mut self, msr: u32) -> Option<Result<u64, MsrFault>>;
    /// WRMSR of a register that a device owns; `None`: no device does.
    fn msr_write(&mut self, msr: u32, value: u64) -> Option<Result<(), MsrFault>>;
    /// The interrupt-acknowledge cycle: the vector to deliver, which is now in service. `None`: it was
    /// withdrawn meanwhile. The implementation keeps [`Signal::Intr`] up exactly while another is deliverable.
    fn ack_interrupt(&mut self) -> Option<u8>;
    /// CR8: the task-priority class.
    fn task_priority(&mut self) -> u8;
    /// MOV to CR8.
    fn set_task_priority(&mut self, class: u8);
    /// The guest has written IA32_TSC or IA32_TSC_ADJUST: guest TSC = host TSC + `offset` from now on.
    fn tsc_offset_changed(&mut self, offset: u64) {
        let _ = offset;
    }
}

/// The access raises #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrFault;
