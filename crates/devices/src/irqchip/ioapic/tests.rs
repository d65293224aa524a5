use super::core::*;
use super::registers::*;
use crate::msi::Msi;
use x86::addr::{Gpa, Vector};

fn program(core: &mut Core, pin: u8, entry: u64) -> Option<Request> {
    core.select = IOREDTBL + 2 * pin + 1;
    core.write_selected((entry >> 32) as u32);
    core.select = IOREDTBL + 2 * pin;
    core.write_selected(entry as u32)
}

#[test]
fn edge_pins_fire_on_the_rise_only_and_not_while_masked() {
    let mut core = Core::new(0);
    assert_eq!(core.set_input(4, true), None, "masked after reset");
    assert_eq!(program(&mut core, 4, 0x0100_0000_0000_0034), None, "the edge was lost");
    assert_eq!(core.set_input(4, true), None);
    core.set_input(4, false);
    let request = core.set_input(4, true).unwrap();
    assert_eq!(request.msi, Msi { address: Gpa(0xFEE0_1000), data: 0x34 });
    core.sent(&request);
    assert_eq!(core.read_selected(), 0x34, "no remote IRR on an edge");
}

#[test]
fn level_pins_fire_again_after_eoi_while_up() {
    let mut core = Core::new(0);
    program(&mut core, 9, LEVEL | 0x49);
    let request = core.set_input(9, true).unwrap();
    core.sent(&request);
    assert_ne!(u64::from(core.read_selected()) & REMOTE_IRR, 0);
    core.set_input(9, false);
    assert_eq!(core.set_input(9, true), None, "in flight");
    assert_eq!(core.eoi(Vector(0x48)), []);
    assert_eq!(core.eoi(Vector(0x49)), [request]);
    core.sent(&request);
    core.set_input(9, false);
    assert_eq!(core.eoi(Vector(0x49)), []);
    assert_eq!(core.set_input(9, true), Some(request));
}

#[test]
fn switching_to_edge_clears_remote_irr() {
    let mut core = Core::new(0);
    program(&mut core, 9, LEVEL | 0x49);
    let request = core.set_input(9, true).unwrap();
    core.sent(&request);
    program(&mut core, 9, MASKED | 0x49);
    assert_eq!(program(&mut core, 9, LEVEL | 0x49), Some(request));
}

#[test]
fn read_only_bits_and_registers() {
    let mut core = Core::new(5);
    program(&mut core, 0, !0x700);
    assert_eq!(core.read_selected(), 0x0001_A8FF);
    core.select = IOAPICVER;
    core.write_selected(0);
    assert_eq!(core.read_selected(), 0x0017_0020);
    core.select = IOAPICID;
    assert_eq!(core.read_selected(), 0x0500_0000);
    core.select = 0x50;
    assert_eq!(core.read_selected(), 0);
}
