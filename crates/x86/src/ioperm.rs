//! Who may use which I/O port (SDM vol. 1, 19.5).
use crate::bus::SystemBus;
use crate::exception::Exception;
use crate::state::CpuState;

/// Checks an access of `size` bytes (1, 2, 4) to `port`: IN, OUT, INS, OUTS.
pub fn check(
    state: &CpuState,
    bus: &mut dyn SystemBus,
    port: u16,
    size: u8,
) -> Result<(), Exception> {
    let _ = (state, bus, port, size);
    Err(Exception::gp(0))
}
