//! Exceptions during delivery: double fault and shutdown (SDM vol. 3, table 6-5).
use super::{Event, Shutdown};
use crate::bus::SystemBus;
use crate::state::CpuState;

/// Delivers `event`, and whatever its delivery raises.
///
/// # Errors
/// A fault while a double fault is delivered.
pub fn deliver_or_escalate<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    event: Event,
) -> Result<(), Shutdown> {
    let _ = (state, bus, event);
    todo!()
}
