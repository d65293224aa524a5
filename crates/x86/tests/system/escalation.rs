//! Exceptions during delivery (SDM vol. 3, table 6-5).

use crate::machine::*;
use x86::addr::{La, Vector};
use x86::exception::Exception;
use x86::interrupt::{Event, Shutdown, deliver_or_escalate};
use x86::state::{Activity, CpuState, Segment};

fn set_gate(m: &Machine, vector: u64, raw: u64) {
    m.put(IDT + 8 * vector, 8, raw);
}

fn software(vector: u8) -> Event {
    Event::SoftwareInt { vector: Vector(vector), next_rip: CODE_IP + 2 }
}

fn kernel_with(handlers: &[u64]) -> (CpuState, Machine) {
    let (s, m) = kernel32();
    for vector in handlers {
        set_gate(&m, *vector, gate(CODE0, 0x100 * vector, 0x8e, 0));
    }
    (s, m)
}

fn raise(s: &mut CpuState, m: &mut Machine, e: Exception) -> Result<u64, Shutdown> {
    deliver_or_escalate(s, m, Event::Exception(e)).map(|()| s.rip / 0x100)
}

#[test]
fn contributory_after_contributory_is_a_double_fault() {
    for first in [Vector::DE, Vector::TS, Vector::NP, Vector::SS] {
        let (mut s, mut m) = kernel_with(&[8, 13]);
        assert_eq!(raise(&mut s, &mut m, Exception::plain(first)), Ok(8));
    }
    let (mut s, mut m) = kernel_with(&[8]);
    assert_eq!(raise(&mut s, &mut m, Exception::gp(0x18)), Ok(8));
    assert_eq!(m.items(STACK - 16, 4, 2), [0, CODE_IP], "error code 0");
}

#[test]
fn a_page_fault_after_a_contributory_exception_is_delivered() {
    let (mut s, mut m) = kernel_with(&[14]);
    set_gate(&m, 13, gate(0x0c, 0, 0x8e, 0)); // in the LDT, whose page is missing
    s.ldtr = Segment { base: 0xa000, limit: 0xff, selector: 0, access: 0x82 };
    m.holes.push(0xa000);
    assert_eq!(raise(&mut s, &mut m, Exception::gp(0)), Ok(14));
    assert_eq!(s.cr2, 0xa008);
}

#[test]
fn anything_after_a_page_fault_is_a_double_fault() {
    let (mut s, mut m) = kernel_with(&[8]);
    assert_eq!(raise(&mut s, &mut m, Exception::pf(La(0x1234), 0)), Ok(8), "contributory");
    let (mut s, mut m) = kernel_with(&[8]);
    set_gate(&m, 14, gate(0x0c, 0, 0x8e, 0));
    s.ldtr = Segment { base: 0xa000, limit: 0xff, selector: 0, access: 0x82 };
    m.holes.push(0xa000);
    assert_eq!(raise(&mut s, &mut m, Exception::pf(La(0x1234), 0)), Ok(8), "page fault");
    assert_eq!(s.cr2, 0xa008, "CR2 is the second one's");
}

#[test]
fn a_benign_first_event_gives_way() {
    let (mut s, mut m) = kernel_with(&[11]);
    set_gate(&m, 6, gate(CODE0, 0, 0x0e, 0));
    assert_eq!(raise(&mut s, &mut m, Exception::ud()), Ok(11));
    assert_eq!(m.items(STACK - 16, 4, 1), [6 << 3 | 3], "IDT and EXT");
}

#[test]
fn a_software_interrupt_that_fails_faults_at_the_instruction_itself() {
    let (mut s, mut m) = kernel_with(&[13]);
    deliver_or_escalate(&mut s, &mut m, software(0x40)).unwrap();
    assert_eq!(m.items(STACK - 16, 4, 2), [0x40 << 3 | 2, CODE_IP]);
}

#[test]
fn a_fault_in_a_double_fault_shuts_down() {
    let (mut s, mut m) = kernel_with(&[]);
    assert_eq!(raise(&mut s, &mut m, Exception::ud()), Err(Shutdown));
    assert_eq!((s.activity, s.rip), (Activity::Shutdown, CODE_IP));
    let (mut s, mut m) = kernel_with(&[]);
    assert_eq!(raise(&mut s, &mut m, Exception::with_code(Vector::DF, 0)), Err(Shutdown));
    let (mut s, mut m) = kernel_with(&[14]);
    m.holes.push(0xa000);
    s.ldtr = Segment { base: 0xa000, limit: 0xff, selector: 0, access: 0x82 };
    set_gate(&m, 8, gate(0x0c, 0, 0x8e, 0));
    assert_eq!(raise(&mut s, &mut m, Exception::plain(Vector::DE)), Err(Shutdown), "#PF");
}
