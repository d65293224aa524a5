//! VMCALL and VMMCALL, which the machine answers.

use crate::core::Core;
use crate::core::Op;
use crate::op::Step;
use vcpu::hypercall::{Hypercall, HypercallError, answer};

/// VMCALL and VMMCALL: the same on every model, whoever is its vendor.
pub(crate) fn hypercall(core: &mut Core, op: &Op) -> Step {
    let result = Hypercall::of(&core.state).and_then(|call| match core.machine.io() {
        Some(io) => io.hypercall(call),
        None => Err(HypercallError::Unknown),
    });
    tracing::trace!(target: "hypercall", number = core.state.gpr[0], ?result, "hypercall");
    answer(&mut core.state, result);
    core.state.rip = core.next_ip(op);
    Step::Sync
}
