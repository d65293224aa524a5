//! The contract between an engine and a machine.
//!
//! An [`Engine`] makes the part of a machine that its processors share ([`EngineVm`]), and that
//! makes the processors ([`Vcpu`]). A machine implements [`CpuIo`] and drives [`Vcpu::run`] from
//! any thread, one at a time. Any thread may raise a [`Signals`] bit. The machine never asks which
//! engine it has.
#![deny(unsafe_code)] // lifted in tsc.rs alone

mod clock;
mod engine;
pub mod hypercall;
mod no_devices;
mod signals;
mod stats;
mod tsc;

pub use clock::InstructionClock;
pub use engine::{Capabilities, Engine, EngineError, EngineVm, Unavailable, VmParts};
pub use hypercall::{Hypercall, HypercallError};
pub use no_devices::NoDevices;
pub use signals::{Interrupt, Kick, Kicks, Residence, Signal, SignalSet, Signals, Waker};
pub use stats::{Lockstep, Statistics, Translator};
pub use tsc::host_tsc;

use std::sync::Arc;
use x86::addr::{Gpa, La, Port, PortWidth, Vector, Width};
pub use x86::elements::Elements;
use x86::regs::{Cr0, Rflags};
use x86::state::{Blocking, CpuState};

/// A virtual processor.
pub trait Vcpu: Send {
    /// Runs the guest until something needs the machine, or `slice` is over. The processor is
    /// [`Residence::Running`] meanwhile.
    fn run(&mut self, io: &mut dyn CpuIo, slice: Slice) -> Exit;

    /// Reads `elements` of the architectural state, exact at an instruction boundary, into `state`;
    /// the rest of it stays.
    ///
    /// # Errors
    /// The engine cannot tell them; `state` is unchanged or changed in part.
    fn get(&mut self, elements: Elements, state: &mut CpuState) -> Result<(), StateError>;

    /// Replaces `elements` of the architectural state by those of `state`. What the engine keeps of
    /// guest memory stays: changes to that are told by guest memory's own log. With
    /// [`Elements::CONTROL`], even unchanged, no translation of a linear address stays.
    ///
    /// # Errors
    /// The engine refuses them; the processor must be given another state before it runs again.
    fn set(&mut self, elements: Elements, state: &CpuState) -> Result<(), StateError>;

    /// From now on guest TSC = host TSC + `offset` (ticks), or with [`VmParts::clock`] that clock
    /// plus `offset`. Costs nothing else: a machine that goes on after a pause needs no more.
    fn set_tsc_offset(&mut self, offset: u64);

    /// What other threads use to interrupt [`Vcpu::run`] and to signal events.
    fn signals(&self) -> Arc<Signals>;

    /// Counters since creation.
    fn statistics(&self) -> Statistics;

    /// The complete architectural state.
    ///
    /// # Errors
    /// As [`Vcpu::get`].
    fn state(&mut self) -> Result<CpuState, StateError> {
        let mut state = CpuState::reset();
        self.get(Elements::all(), &mut state)?;
        Ok(state)
    }
}

/// An engine could not read or write a processor's state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {attempt} the processor's {elements:?}: {reason}")]
pub struct StateError {
    /// "read" or "set".
    pub attempt: &'static str,
    /// What was asked for.
    pub elements: Elements,
    /// Why not.
    pub reason: String,
}

/// How long [`Vcpu::run`] may go on. A kick ends any slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Guest instructions to run: exactly so many, unless an exit or a kick comes first. An engine
    /// may run slower with a limit: time is shared out by kicks, instructions are counted by
    /// debuggers, tests and deterministic runs.
    pub instructions: u64,
}

impl Slice {
    /// Until an exit or a kick.
    pub const UNTIL_KICKED: Self = Self { instructions: u64::MAX };
    /// Exactly one instruction (with the events that precede it).
    pub const ONE: Self = Self { instructions: 1 };
}

/// Why [`Vcpu::run`] returned. The state is exact in every case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The slice's instructions have run.
    SliceOver,
    /// [`Signals::kick`] was called, for these reasons; the engine has cleared them. Or
    /// [`Signal::Unhalt`] or [`Signal::Arrival`] was raised, which is left for the machine.
    Kicked(Kicks),
    /// HLT (or wait-for-SIPI): nothing to do until a signal of this set ([`SignalSet::waking`]) is
    /// up; see [`Signals::park`].
    Halted(SignalSet),
    /// The instruction at RIP, or its fetch, needs the page at this guest-physical address, which
    /// is absent and takes time to come. Nothing of the instruction is done: the machine has the
    /// page brought in ([`memory::GuestRam::request`]), and runs the processor again.
    Absent(Gpa),
    /// Triple fault.
    Shutdown,
    /// [`Signal::Init`] or [`Signal::Sipi`] was raised and is left for the machine to act on.
    Reset,
    /// The engine itself cannot go on: a defect or an exhausted host.
    Fatal(String),
}

/// What a processor needs from its machine while an instruction is under way.
///
/// Values are zero-extended. What is not there reads all-ones.
pub trait CpuIo {
    /// IN.
    fn pio_read(&mut self, port: Port, width: PortWidth) -> u32;
    /// OUT.
    fn pio_write(&mut self, port: Port, width: PortWidth, value: u32);
    /// A load from guest-physical `gpa` outside RAM.
    fn mmio_read(&mut self, gpa: Gpa, width: Width) -> u64;
    /// A store to guest-physical `gpa` outside RAM.
    fn mmio_write(&mut self, gpa: Gpa, width: Width, value: u64);
    /// RDMSR of a register that the machine owns (IA32_APIC_BASE, IA32_TSC_DEADLINE, 800H–8FFH,
    /// those of KVM's interface); `None`: it does not.
    fn msr_read(&mut self, msr: u32) -> Option<Result<u64, MsrFault>>;
    /// WRMSR of a register that the machine owns; `None`: it does not.
    fn msr_write(&mut self, msr: u32, value: u64) -> Option<Result<(), MsrFault>>;
    /// The interrupt-acknowledge cycle: the vector to deliver, which is now in service. `None`: it
    /// was withdrawn meanwhile. The implementation keeps [`Signal::Intr`] up exactly while another
    /// is deliverable.
    fn ack_interrupt(&mut self) -> Option<Vector>;
    /// CR8: the task-priority class.
    fn task_priority(&mut self) -> u8;
    /// MOV to CR8.
    fn set_task_priority(&mut self, class: u8);
    /// VMCALL or VMMCALL of a supervisor, on a model that has KVM's interface. An engine that
    /// answers the guest's hypercalls itself ([`Capabilities::answers_hypercalls`]) never asks.
    ///
    /// # Errors
    /// The call is refused.
    fn hypercall(&mut self, call: Hypercall) -> Result<u64, HypercallError> {
        let _ = call;
        Err(HypercallError::Unknown)
    }
    /// The guest has executed as many PAUSEs as was said last, and may be spinning for what another
    /// processor has to do; asked at the first one, too. After how many more to ask again. An
    /// engine whose host watches spinning processors itself never asks.
    fn spins(&mut self) -> u32 {
        u32::MAX
    }
    /// The instruction at RIP needs the page of `gpa`, as [`Exit::Absent`] says. To be told to a
    /// guest that can do something else meanwhile: an address that the engine puts in CR2 of a page
    /// fault with error code 0, in place of the instruction. `None`: the engine leaves `run`.
    fn page_absent(&mut self, gpa: Gpa, guest: Interruptible) -> Option<La> {
        let _ = (gpa, guest);
        None
    }
    /// The guest has written IA32_TSC or IA32_TSC_ADJUST: the offset is this from now on
    /// ([`Vcpu::set_tsc_offset`]).
    fn tsc_offset_changed(&mut self, offset: u64) {
        let _ = offset;
    }
}

/// Whether a guest with paging would take a maskable interrupt now, and in the midst of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruptible {
    /// RFLAGS.IF is clear, the instruction before holds interrupts back, or there is no paging.
    No,
    /// Code of CPL 0 would be interrupted.
    Kernel,
    /// Code of another CPL.
    User,
}

impl Interruptible {
    /// As `state` has it.
    pub fn of(state: &CpuState) -> Self {
        let Blocking { sti, mov_ss, nmi: _ } = state.blocking;
        let paging = state.paging.cr0.contains(Cr0::PG);
        if !paging || !state.flags.has(Rflags::IF) || sti || mov_ss {
            Self::No
        } else if state.cpl == 0 {
            Self::Kernel
        } else {
            Self::User
        }
    }
}

/// The access raises #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrFault;
