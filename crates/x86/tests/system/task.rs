//! The hardware task switch (SDM vol. 3, chapter 7).

use crate::machine::*;
use x86::addr::{Vector, Width};
use x86::bus::TlbEffect;
use x86::exception::Exception;
use x86::far::{far_call, far_jump};
use x86::interrupt::{Event, deliver, deliver_or_escalate};
use x86::iret::iret;
use x86::regs::{Cr0, Cr4, Rflags};
use x86::state::{CpuState, Mode, Seg, gpr};

const NEXT: u64 = CODE_IP + 7;
const NEW_STACK: u64 = 0x7800;
const NEW_IP: u64 = 0x4_5678;

/// Offsets in a 32-bit TSS.
const CR3: u64 = 0x1c;
const EIP: u64 = 0x20;
const EFLAGS: u64 = 0x24;
const REGISTERS: u64 = 0x28;
const SELECTORS: u64 = 0x48;
const LDTR: u64 = 0x60;
const TRAP: u64 = 0x64;

/// The 32-bit task B: level 0, registers 0x100, 0x101, …, ESP = NEW_STACK.
fn fill(m: &Machine) {
    m.put(TSS_B + EIP, 4, NEW_IP);
    m.put(TSS_B + EFLAGS, 4, 0x0202);
    for i in 0..8 {
        m.put(TSS_B + REGISTERS + 4 * i, 4, 0x100 + i);
    }
    m.put(TSS_B + REGISTERS + 4 * 4, 4, NEW_STACK);
    let selectors = [DATA0, CODE0, DATA0, DATA3, 0, DATA0]; // ES CS SS DS FS GS
    m.lay(TSS_B + SELECTORS, 4, &selectors.map(u64::from));
}

fn two_tasks() -> (CpuState, Machine) {
    let (mut s, m) = kernel32();
    fill(&m);
    for (i, register) in s.gpr.iter_mut().take(8).enumerate() {
        *register = 0xa0 + i as u64;
    }
    s.gpr[gpr::RSP] = STACK;
    s.flags.set(Rflags::CF, true);
    s.dr.dr7 = 0x7ff;
    (s, m)
}

fn access_byte(m: &Machine, selector: u16) -> u64 {
    m.descriptor(selector) >> 40 & 0xff
}

fn jump(s: &mut CpuState, m: &mut Machine) -> Result<(), Exception> {
    far_jump(s, m, TSS_B_SELECTOR, 0, Width::B4, NEXT)
}

fn call(s: &mut CpuState, m: &mut Machine) -> Result<(), Exception> {
    far_call(s, m, TSS_B_SELECTOR, 0, Width::B4, NEXT)
}

#[test]
fn a_jump_saves_the_old_task_and_loads_the_new() {
    let (mut s, mut m) = two_tasks();
    jump(&mut s, &mut m).unwrap();

    assert_eq!(m.items(TSS + EIP, 4, 2), [NEXT, 0x203]);
    let saved = m.items(TSS + REGISTERS, 4, 8);
    assert_eq!(saved, [0xa0, 0xa1, 0xa2, 0xa3, STACK, 0xa5, 0xa6, 0xa7]);
    let selectors = [DATA0, CODE0, DATA0, DATA0, DATA0, DATA0].map(u64::from);
    assert_eq!(m.items(TSS + SELECTORS, 4, 6), selectors);

    assert_eq!((s.rip, s.flags.bits(), s.cpl), (NEW_IP, 0x202, 0));
    assert_eq!(s.gpr[..8], [0x100, 0x101, 0x102, 0x103, NEW_STACK, 0x105, 0x106, 0x107]);
    assert_eq!(s.seg.map(|x| x.selector), [DATA0, CODE0, DATA0, DATA3, 0, DATA0]);
    assert_eq!(s.seg[Seg::Ds as usize], cached(&m, DATA3));
    assert!(!s.seg[Seg::Fs as usize].present());
    assert_eq!((s.tr.selector, s.tr.base, s.tr.kind()), (TSS_B_SELECTOR, TSS_B, 11));
    assert_eq!(access_byte(&m, TSS_SELECTOR), 0x89, "the old task is available again");
    assert_eq!(access_byte(&m, TSS_B_SELECTOR), 0x8b, "the new one is busy");
    assert!(s.paging.cr0.contains(Cr0::TS));
    assert_eq!(s.dr.dr7, 0x7ff & !0x155, "local breakpoints are off");
    assert_eq!(m.get(TSS_B, 2), 0, "no back link");
}

#[test]
fn a_call_nests_and_iret_returns() {
    let (mut s, mut m) = two_tasks();
    call(&mut s, &mut m).unwrap();
    assert_eq!(s.flags.bits(), 0x4202, "NT");
    assert_eq!(m.get(TSS_B, 2), TSS_SELECTOR.into());
    assert_eq!((access_byte(&m, TSS_SELECTOR), access_byte(&m, TSS_B_SELECTOR)), (0x8b, 0x8b));

    s.rip = 0x5000;
    iret(&mut s, &mut m, Width::B4, 0x5001).unwrap();
    assert_eq!((s.rip, s.flags.bits(), s.tr.selector), (NEXT, 0x203, TSS_SELECTOR));
    assert_eq!(s.gpr[gpr::RAX], 0xa0);
    assert_eq!(m.items(TSS_B + EIP, 4, 2), [0x5001, 0x202], "NT is saved clear");
    assert_eq!((access_byte(&m, TSS_SELECTOR), access_byte(&m, TSS_B_SELECTOR)), (0x8b, 0x89));
}

#[test]
fn through_task_gates() {
    let (mut s, mut m) = two_tasks();
    m.set_descriptor(GATE, gate(TSS_B_SELECTOR, 0, 0x85, 0));
    far_jump(&mut s, &mut m, GATE, 0, Width::B4, NEXT).unwrap();
    assert_eq!(s.tr.selector, TSS_B_SELECTOR);
    let (mut s, mut m) = two_tasks();
    m.set_descriptor(GATE, gate(TSS_B_SELECTOR, 0, 0x05, 0));
    let outcome = fails(&mut s, &mut m, |s, m| far_jump(s, m, GATE, 0, Width::B4, NEXT));
    assert_eq!(outcome, (Vector::NP, GATE.into()));
}

#[test]
fn an_exception_pushes_its_error_code_on_the_new_stack() {
    let (mut s, mut m) = two_tasks();
    m.put(IDT + 8 * 13, 8, gate(TSS_B_SELECTOR, 0, 0x85, 0));
    deliver(&mut s, &mut m, Event::Exception(Exception::gp(0x18))).unwrap();
    assert_eq!((s.gpr[gpr::RSP], m.get(NEW_STACK - 4, 4)), (NEW_STACK - 4, 0x18));
    assert_eq!(m.items(TSS + EIP, 4, 2), [CODE_IP, 0x1_0203], "the instruction itself, with RF");
    assert_eq!(m.get(TSS_B, 2), TSS_SELECTOR.into());
    assert!(s.flags.has(Rflags::NT));
}

#[test]
fn an_interrupt_from_virtual_8086_mode_and_back() {
    let (mut s, mut m) = virtual_8086();
    fill(&m);
    m.put(IDT + 8 * 0x20, 8, gate(TSS_B_SELECTOR, 0, 0x85, 0));
    let before = s.clone();
    deliver(&mut s, &mut m, Event::External(Vector(0x20))).unwrap();
    assert_eq!((s.mode(), s.cpl), (Mode::Protected32, 0));
    iret(&mut s, &mut m, Width::B4, 0x5001).unwrap();
    assert_eq!((s.mode(), s.cpl, s.rip), (Mode::Virtual8086, 3, CODE_IP));
    assert_eq!((s.seg, s.flags, s.gpr), (before.seg, before.flags, before.gpr));
}

#[test]
fn a_16_bit_tss_holds_words() {
    let (mut s, mut m) = two_tasks();
    m.set_descriptor(TSS_B_SELECTOR, descriptor(TSS_B, 0x2b, 0x81, 0));
    m.put(TSS_B + 0x0e, 2, 0x5678);
    m.put(TSS_B + 0x10, 2, 0x0202);
    let registers = [1, 2, 3, 4, NEW_STACK, 6, 7, 8];
    m.lay(TSS_B + 0x12, 2, &registers);
    m.lay(TSS_B + 0x22, 2, &[DATA0, CODE0, DATA0, DATA3, 0].map(u64::from));
    call(&mut s, &mut m).unwrap();
    assert_eq!((s.rip, s.gpr[..8].to_vec()), (0x5678, registers.to_vec()));
    assert_eq!(s.seg.map(|x| x.selector), [DATA0, CODE0, DATA0, DATA3, 0, 0]);
    assert_eq!(s.tr.kind(), 3);
    s.gpr[gpr::RCX] = 0xffff_1234;
    iret(&mut s, &mut m, Width::B4, 0x9999).unwrap();
    assert_eq!(m.items(TSS_B + 0x0e, 2, 4), [0x9999, 0x0202, 1, 0x1234]);
}

/// What fails before the commit point faults in the old task.
#[test]
fn refusals_before_the_commit_point() {
    let tss = u32::from(TSS_B_SELECTOR);
    let raw = |limit, access| descriptor(TSS_B, limit, access, 0);
    for (raw, outcome) in [
        (raw(0x67, 0x8b), (Vector::GP, tss)), // busy
        (raw(0x67, 0x09), (Vector::NP, tss)),
        (raw(0x66, 0x89), (Vector::TS, tss)),
        (raw(0x2a, 0x81), (Vector::TS, tss)),
    ] {
        let (mut s, mut m) = two_tasks();
        m.set_descriptor(TSS_B_SELECTOR, raw);
        assert_eq!(fails(&mut s, &mut m, jump), outcome);
    }
    let (mut s, mut m) = protected(CODE3, DATA3);
    fill(&m);
    assert_eq!(fails(&mut s, &mut m, jump), (Vector::GP, tss), "DPL < CPL");
    m.set_descriptor(TSS_B_SELECTOR, raw(0x67, 0xe9));
    jump(&mut s, &mut m).unwrap();
}

/// Pages missing or read-only under the TSSs and the GDT are found before anything is written.
#[test]
fn a_page_fault_before_the_commit_point_changes_nothing() {
    for (hole, read_only) in [(TSS, 0), (TSS_B, 0), (GDT, 0), (0, TSS), (0, GDT)] {
        let (mut s, mut m) = two_tasks();
        if hole != 0 {
            m.holes.push(hole);
        }
        if read_only != 0 {
            m.read_only.push(read_only);
        }
        assert_eq!(fails(&mut s, &mut m, jump).0, Vector::PF);
        assert_eq!(m.get(TSS + EIP, 4), 0, "nothing saved");
        assert_eq!((access_byte(&m, TSS_SELECTOR), access_byte(&m, TSS_B_SELECTOR)), (0x8b, 0x89));
    }
    for read_only in [TSS_B, GDT] {
        let (mut s, mut m) = two_tasks();
        m.read_only.push(read_only);
        assert_eq!(fails(&mut s, &mut m, call).0, Vector::PF, "no back link, or no busy bit");
        assert_eq!(m.get(TSS + EIP, 4), 0, "nothing saved");
    }
    let (mut s, mut m) = two_tasks();
    m.read_only.push(TSS_B);
    jump(&mut s, &mut m).expect("a jump writes none");
}

#[test]
fn the_old_tss_must_hold_what_is_saved() {
    let (mut s, mut m) = two_tasks();
    s.tr.limit = 0x5e;
    assert_eq!(fails(&mut s, &mut m, jump), (Vector::TS, TSS_SELECTOR.into()));
    s.tr.limit = 0x5f;
    jump(&mut s, &mut m).unwrap();
}

#[test]
fn iret_to_a_task_that_is_not_busy_is_an_invalid_tss() {
    let (mut s, mut m) = two_tasks();
    s.flags.set(Rflags::NT, true);
    m.put(TSS, 2, TSS_B_SELECTOR.into());
    let outcome = fails(&mut s, &mut m, |s, m| iret(s, m, Width::B4, NEXT));
    assert_eq!(outcome, (Vector::TS, TSS_B_SELECTOR.into()));
    m.put(TSS, 2, 0x0c);
    let outcome = fails(&mut s, &mut m, |s, m| iret(s, m, Width::B4, NEXT));
    assert_eq!(outcome, (Vector::TS, 0x0c), "in the LDT");
}

/// What fails after it faults in the new task (SDM vol. 3, table 7-1).
#[test]
fn refusals_after_the_commit_point() {
    let cs = SELECTORS + 4;
    let ss = SELECTORS + 8;
    let ds = SELECTORS + 12;
    for (offset, value, vector, code) in [
        (LDTR, DATA0, Vector::TS, DATA0),
        (LDTR, 0x84, Vector::TS, 0x84),
        (cs, 0, Vector::TS, 0),
        (cs, DATA0, Vector::TS, DATA0),
        (cs, CODE3 & !3, Vector::TS, CODE3 & !3),
        (cs, CODE0_ABSENT, Vector::NP, CODE0_ABSENT),
        (ss, 0, Vector::TS, 0),
        (ss, DATA3, Vector::TS, DATA3 & !3),
        (ss, DATA0_ABSENT, Vector::SS, DATA0_ABSENT),
        (ds, EXECUTE_ONLY0, Vector::TS, EXECUTE_ONLY0),
        (ds, DATA0 | 3, Vector::TS, DATA0),
        (ds, DATA0_ABSENT, Vector::NP, DATA0_ABSENT),
        (cs, SMALL_CODE0, Vector::GP, 0), // EIP beyond the limit
    ] {
        let (mut s, mut m) = two_tasks();
        m.put(TSS_B + offset, 2, value.into());
        let error = jump(&mut s, &mut m).unwrap_err();
        let expected = Exception::with_code(vector, code.into());
        assert_eq!(error, expected, "{offset:#x} {value:#x}");
        assert_eq!((s.tr.selector, s.rip), (TSS_B_SELECTOR, NEW_IP), "in the new task");
        let in_register = match offset {
            LDTR => s.ldtr.selector,
            _ => s.seg[(offset - SELECTORS) as usize / 4].selector,
        };
        assert_eq!(in_register, value, "the visible part is loaded");
    }
}

#[test]
fn the_ldt_is_loaded_before_the_segments() {
    let (mut s, mut m) = two_tasks();
    m.put(LDT + 0x18, 8, descriptor(0x7777, 0xff, 0x93, 0));
    m.put(TSS_B + LDTR, 2, LDT_SELECTOR.into());
    m.put(TSS_B + SELECTORS, 2, 0x1c);
    jump(&mut s, &mut m).unwrap();
    assert_eq!((s.ldtr.base, s.seg[Seg::Es as usize].base), (LDT, 0x7777));
}

#[test]
fn the_t_flag_traps_at_the_new_tasks_first_instruction() {
    let (mut s, mut m) = two_tasks();
    m.put(TSS_B + TRAP, 2, 1);
    assert_eq!(jump(&mut s, &mut m), Err(Exception::db(1 << 15)));
    assert_eq!((s.rip, s.tr.selector), (NEW_IP, TSS_B_SELECTOR));
    // As an event's handler, the same: the trap follows at once.
    let (mut s, mut m) = two_tasks();
    m.put(TSS_B + TRAP, 2, 1);
    m.put(IDT + 8 * 0x20, 8, gate(TSS_B_SELECTOR, 0, 0x85, 0));
    m.put(IDT + 8, 8, gate(CODE0, 0x1111, 0x8e, 0));
    deliver_or_escalate(&mut s, &mut m, Event::External(Vector(0x20))).unwrap();
    assert_eq!((s.rip, s.dr.dr6 & 0x8000), (0x1111, 0x8000));
    assert_eq!(m.get(NEW_STACK - 12, 4), NEW_IP);
}

#[test]
fn a_double_fault_through_a_task_gate_gets_a_fresh_stack() {
    let (mut s, mut m) = two_tasks();
    m.put(IDT + 8 * 8, 8, gate(TSS_B_SELECTOR, 0, 0x85, 0));
    m.put(IDT + 8 * 13, 8, gate(CODE0, 0x1111, 0x8e, 0));
    s.seg[Seg::Ss as usize].limit = 0; // nothing can be pushed: #SS in #GP
    deliver_or_escalate(&mut s, &mut m, Event::Exception(Exception::gp(0))).unwrap();
    assert_eq!((s.tr.selector, s.gpr[gpr::RSP]), (TSS_B_SELECTOR, NEW_STACK - 4));
}

/// CR3 comes from the new TSS; the rest of the switch uses the new address space.
#[test]
fn cr3_is_switched_under_paging() {
    let (mut s, mut m) = two_tasks();
    for (directory, entry) in [(0xe_0000, 0x83), (0xe_1000, 0x83)] {
        m.put(directory, 4, entry); // the first 4 MiB onto themselves
    }
    s.paging.cr0 |= Cr0::PG;
    s.paging.cr4 = Cr4::PSE;
    s.paging.cr3 = 0xe_0000;
    m.paging = s.paging;
    m.put(TSS_B + CR3, 4, 0xe_1000);
    jump(&mut s, &mut m).unwrap();
    assert_eq!((s.paging.cr3, m.paging.cr3), (0xe_1000, 0xe_1000));
    assert_eq!(m.effects, [TlbEffect::SwitchFlush]);
    assert_eq!(m.get(TSS + CR3, 4), 0, "CR3 is never saved");
    assert_eq!(m.get(0xe_1000, 4) & 0x20, 0x20, "the new directory was walked");
}

#[test]
fn pae_loads_the_pdptes_and_refuses_bad_ones() {
    let (mut s, mut m) = two_tasks();
    m.put(0xe_0000, 8, 0xe_1001);
    m.put(0xe_1000, 8, 0x83);
    m.put(0xe_0020, 8, 0xe_1001);
    s.paging.cr0 |= Cr0::PG;
    s.paging.cr4 = Cr4::PAE;
    s.paging.cr3 = 0xe_0000;
    s.paging.pdpte = [0xe_1001, 0, 0, 0];
    m.paging = s.paging;
    m.put(TSS_B + CR3, 4, 0xe_0020);
    m.put(0xe_0028, 8, 0x2001);
    jump(&mut s, &mut m).unwrap();
    assert_eq!(s.paging.pdpte, [0xe_1001, 0x2001, 0, 0]);

    let (mut s, mut m) = two_tasks();
    m.put(0xe_0000, 8, 0xe_1001);
    m.put(0xe_1000, 8, 0x83);
    m.put(0xe_0020, 8, 0xe_1003);
    s.paging.cr0 |= Cr0::PG;
    s.paging.cr4 = Cr4::PAE;
    s.paging.cr3 = 0xe_0000;
    s.paging.pdpte = [0xe_1001, 0, 0, 0];
    m.paging = s.paging;
    m.put(TSS_B + CR3, 4, 0xe_0020);
    assert_eq!(jump(&mut s, &mut m), Err(Exception::gp(0)));
    assert_eq!(s.paging.cr3, 0xe_0000);
}
