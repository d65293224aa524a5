//! Model-specific registers that hold processor state (SDM vol. 4).
use crate::bus::TlbEffect;
use crate::cpuid::CpuModel;
use crate::exception::Exception;
use crate::state::CpuState;

/// RDMSR of `msr`; `host_tsc` is the host's time-stamp counter now. Unknown: #GP(0). CPL is the caller's to check.
pub fn read(model: &CpuModel, state: &CpuState, msr: u32, host_tsc: u64) -> Result<u64, Exception> {
    let _ = (model, state, msr, host_tsc);
    Err(Exception::gp(0))
}

/// WRMSR of `value` to `msr`. The caller passes the effect on to [`crate::bus::SystemBus::paging_changed`].
pub fn write(
    model: &CpuModel,
    state: &mut CpuState,
    msr: u32,
    value: u64,
    host_tsc: u64,
) -> Result<TlbEffect, Exception> {
    let _ = (model, state, msr, value, host_tsc);
    Err(Exception::gp(0))
}
