//! IN and OUT (SDM vol. 1, 20.5: who may use which port).

use crate::core::Core;
use crate::core::Op;
use crate::op::{Fallible, Step, port_width, step, step_to};
use x86::addr::{Port, PortWidth};
use x86::ioperm;
use x86::state::gpr;

/// Reads a port the guest may use.
pub(crate) fn port_in(core: &mut Core, port: Port, width: PortWidth) -> u64 {
    core.stats.pio += 1;
    let value = core.machine.io().map_or(u32::MAX, |io| io.pio_read(port, width));
    core.watch_port(port, width);
    u64::from(value)
}

/// Writes a port the guest may use.
pub(crate) fn port_out(core: &mut Core, port: Port, width: PortWidth, value: u64) {
    core.stats.pio += 1;
    if let Some(io) = core.machine.io() {
        io.pio_write(port, width, value as u32);
    }
    core.watch_port(port, width);
}

/// The port operand: immediate, or DX if `BY_DX`.
fn port<const BY_DX: bool>(core: &mut Core, op: &Op) -> Fallible<Port> {
    let port = Port(if BY_DX { core.reg::<u16>(2) } else { op.imm as u16 });
    let (_, state, mut bus) = core.parts();
    let allowed = ioperm::check(state, &mut bus, port, port_width(op.size));
    core.check(allowed)?;
    Ok(port)
}

/// IN.
pub(crate) fn input<const BY_DX: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let port = port::<BY_DX>(core, op)?;
        let value = port_in(core, port, port_width(op.size));
        match op.size {
            1 => core.set_reg::<u8>(0, value as u8),
            2 => core.set_reg::<u16>(0, value as u16),
            _ => core.set_reg::<u32>(0, value as u32),
        }
        Ok(())
    };
    step(body(core))
}

/// OUT. Ends the block: the machine may have asked the processor to stop.
pub(crate) fn output<const BY_DX: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible<Step> {
        let port = port::<BY_DX>(core, op)?;
        port_out(core, port, port_width(op.size), core.state.gpr[gpr::RAX]);
        core.state.rip = core.next_ip(op);
        Ok(Step::Jump)
    };
    step_to(body(core))
}
