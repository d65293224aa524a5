//! Delivery of interrupts and exceptions (SDM vol. 3, chapter 6).

mod escalate;
pub use escalate::deliver_or_escalate;

use crate::bus::SystemBus;
use crate::exception::Exception;
use crate::state::CpuState;

/// What is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A maskable interrupt, acknowledged with this vector.
    External(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// An exception. For a fault `state.rip` is the faulting instruction, for a trap the one after.
    Exception(Exception),
    /// `int n`.
    SoftwareInt {
        /// n.
        vector: u8,
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

/// A triple fault: the processor has shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown;

/// Delivers `event`.
///
/// # Errors
/// The exception met on the way.
pub fn deliver<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    event: Event,
) -> Result<(), Exception> {
    let _ = (state, bus, event);
    todo!()
}
