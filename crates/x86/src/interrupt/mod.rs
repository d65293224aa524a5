//! Delivery of interrupts and exceptions (SDM vol. 3, chapter 6 and 20.3; vol. 2, INT n).
//!
//! [`deliver`] does one delivery; [`deliver_or_escalate`] goes on through double fault to shutdown.
//! A delivery that fails leaves the state as it was and returns the exception met, with one
//! exception: a task gate whose switch fails after its commit point leaves the new task's state
//! (SDM vol. 3, 7.3), and a task whose T flag is set raises its #DB so. The caller keeps the order
//! of events and what enables them (RFLAGS.IF, shadows).

mod escalate;
mod long;
mod peek;
mod protected;
mod real;

pub use escalate::deliver_or_escalate;
pub use peek::{TableEntry, peek};

use crate::addr::Vector;
use crate::bus::SystemBus;
use crate::exception::Exception;
use crate::regs::{Cr0, Rflags};
use crate::state::{Activity, Blocking, CpuState};

/// DR6: the breakpoint conditions B0–B3, which a new #DB replaces; the other causes accumulate.
const DR6_CONDITIONS: u64 = 0xf;
/// DR6: a MOV to a debug register was caught.
const DR6_BD: u64 = 1 << 13;
/// DR7: catch MOV to debug registers; cleared for the handler's sake (SDM vol. 3, 17.2.4).
const DR7_GD: u64 = 1 << 13;

/// What is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A maskable interrupt, acknowledged with this vector.
    External(Vector),
    /// A non-maskable interrupt.
    Nmi,
    /// An exception. For a fault `state.rip` is the faulting instruction, for a trap the one after.
    Exception(Exception),
    /// `int n`.
    SoftwareInt {
        /// n.
        vector: Vector,
        /// The instruction after.
        next_rip: u64,
    },
    /// `int3`.
    Int3 {
        /// The instruction after.
        next_rip: u64,
    },
    /// `into` with OF set.
    Into {
        /// The instruction after.
        next_rip: u64,
    },
    /// `int1`.
    Icebp {
        /// The instruction after.
        next_rip: u64,
    },
}

/// A triple fault: the processor has shut down (SDM vol. 3, 6.15, "Interrupt 8").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown;

impl Event {
    /// The vector it goes through.
    pub const fn vector(self) -> Vector {
        match self {
            Self::External(vector) | Self::SoftwareInt { vector, .. } => vector,
            Self::Nmi => Vector::NMI,
            Self::Exception(exception) => exception.vector,
            Self::Int3 { .. } => Vector::BP,
            Self::Into { .. } => Vector::OF,
            Self::Icebp { .. } => Vector::DB,
        }
    }

    /// INT n, INT3, INTO: the gate's DPL is checked, and EXT stays clear.
    const fn is_software(self) -> bool {
        matches!(self, Self::SoftwareInt { .. } | Self::Int3 { .. } | Self::Into { .. })
    }

    const fn error_code(self) -> Option<u32> {
        match self {
            Self::Exception(exception) => exception.error_code,
            _ => None,
        }
    }

    /// The instruction pointer to return to.
    const fn return_rip(self, state: &CpuState) -> u64 {
        match self {
            Self::SoftwareInt { next_rip, .. }
            | Self::Int3 { next_rip }
            | Self::Into { next_rip }
            | Self::Icebp { next_rip } => next_rip,
            _ => state.rip,
        }
    }

    /// RF is pushed set by faults, so that the handler returns past an instruction breakpoint (SDM
    /// vol. 3, 17.3.1.1).
    fn sets_rf(self) -> bool {
        match self {
            Self::Exception(e) => match e.vector {
                Vector::DB => e.payload & DR6_BD != 0,
                Vector::NMI | Vector::BP | Vector::OF | Vector::DF | Vector::MC => false,
                _ => true,
            },
            _ => false,
        }
    }
}

/// One delivery under way: what the three ways through the table have in common.
struct Delivery {
    vector: Vector,
    software: bool,
    error_code: Option<u32>,
    return_rip: u64,
    /// RFLAGS as pushed.
    image: u64,
}

impl Delivery {
    fn new(state: &CpuState, event: Event) -> Self {
        let rf = if event.sets_rf() { Rflags::RF.bits() } else { 0 };
        Self {
            vector: event.vector(),
            software: event.is_software(),
            error_code: event.error_code(),
            return_rip: event.return_rip(state),
            image: state.flags.bits() | rf,
        }
    }

    /// `vector` with an error code that names the IDT entry (SDM vol. 3, 6.13).
    fn idt_fault(&self, vector: Vector) -> Exception {
        Exception::with_code(vector, (u32::from(self.vector.0) << 3) | 2)
    }
}

/// Delivers `event` through the IVT or IDT.
///
/// # Errors
/// The exception met on the way, its error code complete with EXT and IDT bits; see the module's
/// contract.
pub fn deliver<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    event: Event,
) -> Result<(), Exception> {
    route(state, bus, event).map_err(|e| if event.is_software() { e } else { with_ext(e) })?;
    note_cause(state, event);
    let nmi = state.blocking.nmi || event == Event::Nmi;
    state.blocking = Blocking { nmi, ..Blocking::default() };
    state.activity = Activity::Running;
    Ok(())
}

fn route<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    event: Event,
) -> Result<(), Exception> {
    let delivery = Delivery::new(state, event);
    if !state.paging.cr0.contains(Cr0::PE) {
        return real::deliver(state, bus, &delivery);
    }
    if state.long_mode() {
        return long::deliver(state, bus, &delivery);
    }
    if state.flags.has(Rflags::VM)
        && let Event::SoftwareInt { .. } = event
        && real::redirect(state, bus, &delivery)?
    {
        return Ok(());
    }
    protected::deliver(state, bus, &delivery)
}

/// EXT: the fault befell an event external to the program (SDM vol. 3, 6.13).
fn with_ext(exception: Exception) -> Exception {
    let selector_code =
        matches!(exception.vector, Vector::TS | Vector::NP | Vector::SS | Vector::GP);
    let ext = u32::from(selector_code);
    Exception { error_code: exception.error_code.map(|code| code | ext), ..exception }
}

/// CR2, DR6 and DR7.GD, as the event itself sets them.
fn note_cause(state: &mut CpuState, event: Event) {
    match event {
        Event::Exception(e) if e.vector == Vector::PF => state.cr2 = e.payload,
        Event::Exception(e) if e.vector == Vector::DB => {
            state.dr.dr6 = (state.dr.dr6 & !DR6_CONDITIONS) | e.payload;
            state.dr.dr7 &= !DR7_GD;
        }
        Event::Icebp { .. } => state.dr.dr7 &= !DR7_GD,
        _ => {}
    }
}
