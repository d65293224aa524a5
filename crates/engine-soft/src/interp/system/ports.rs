//! IN and OUT (SDM vol. 1, 20.5: who may use which port).

use crate::cpu::Cpu;
use crate::cpu::Op;
use crate::op::{Fallible, Step, port_width, step, step_to};
use x86::addr::{Port, PortWidth};
use x86::ioperm;
use x86::state::gpr;

/// Reads a port the guest may use.
pub(crate) fn port_in(cpu: &mut Cpu, port: Port, width: PortWidth) -> u64 {
    cpu.stats.pio += 1;
    let value = cpu.machine.io().map_or(u32::MAX, |io| io.pio_read(port, width));
    cpu.watch_port(port, width);
    u64::from(value)
}

/// Writes a port the guest may use.
pub(crate) fn port_out(cpu: &mut Cpu, port: Port, width: PortWidth, value: u64) {
    cpu.stats.pio += 1;
    if let Some(io) = cpu.machine.io() {
        io.pio_write(port, width, value as u32);
    }
    cpu.watch_port(port, width);
}

/// The port operand: immediate, or DX if `BY_DX`.
fn port<const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Fallible<Port> {
    let port = Port(if BY_DX { cpu.reg::<u16>(2) } else { op.imm as u16 });
    let (_, state, mut bus) = cpu.parts();
    let allowed = ioperm::check(state, &mut bus, port, port_width(op.size));
    cpu.check(allowed)?;
    Ok(port)
}

/// IN.
pub(crate) fn input<const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        let port = port::<BY_DX>(cpu, op)?;
        let value = port_in(cpu, port, port_width(op.size));
        match op.size {
            1 => cpu.set_reg::<u8>(0, value as u8),
            2 => cpu.set_reg::<u16>(0, value as u16),
            _ => cpu.set_reg::<u32>(0, value as u32),
        }
        Ok(())
    };
    step(body(cpu))
}

/// OUT. Ends the block: the machine may have asked the processor to stop.
pub(crate) fn output<const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible<Step> {
        let port = port::<BY_DX>(cpu, op)?;
        port_out(cpu, port, port_width(op.size), cpu.state.gpr[gpr::RAX]);
        cpu.state.rip = cpu.next_ip(op);
        Ok(Step::Jump)
    };
    step_to(body(cpu))
}
