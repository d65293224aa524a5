//! Asynchronous page faults: when a guest is told, of what, and in which order.

use super::{AT, Rig, rig};
use crate::paravirt::{AsyncPfState, ParavirtState};
use vcpu::{Interruptible, MsrFault};
use x86::addr::{Gpa, La, Vector};

const ENABLE: u32 = 0x4b56_4d02;
const VECTOR: u32 = 0x4b56_4d06;
const ACKNOWLEDGE: u32 = 0x4b56_4d07;
/// Enabled, by interrupt.
const ON: u64 = 1 | 1 << 3;
const SEND_ALWAYS: u64 = 1 << 1;
const PAGES: [Gpa; 3] = [Gpa(0x5000), Gpa(0x6000), Gpa(0x7000)];
const ALL: u32 = u32::MAX;

fn write(rig: &mut Rig, register: u32, value: u64) -> Result<(), MsrFault> {
    rig.paravirt.msr_write(register, value).expect("it is there")
}

/// Flags and token of the record.
fn record(rig: &Rig) -> (u32, u32) {
    let [flags, token] = [0, 4].map(|at| u32::from_le_bytes(rig.bytes(AT + at)));
    (flags, token)
}

/// The guest has handled the page fault.
fn clear_flags(rig: &Rig) {
    rig.ram.write(Gpa(AT), &[0; 4]).expect("in RAM");
}

/// What the guest's handler of *ready* does: its token, if there was an interrupt.
fn ready(rig: &mut Rig) -> Option<u32> {
    let interrupted = rig.lapics[0].ack_interrupt().inspect(|&v| assert_eq!(v, Vector(0xf3)));
    rig.lapics[0].mmio_write(0xb0, x86::addr::Width::B4, 0);
    let token = record(rig).1;
    interrupted?;
    rig.ram.write(Gpa(AT + 4), &[0; 4]).expect("in RAM");
    write(rig, ACKNOWLEDGE, 1).expect("it takes any");
    Some(token)
}

/// With asynchronous page faults enabled as `control` says, and the first wake-up taken.
fn enabled(control: u64) -> Rig {
    let mut rig = rig("gemello-v2");
    write(&mut rig, VECTOR, 0xf3).expect("a vector");
    write(&mut rig, ENABLE, AT | control).expect("valid");
    if control & ON == ON {
        assert_eq!(ready(&mut rig), Some(ALL), "whoever waited before");
    }
    assert_eq!(ready(&mut rig), None);
    rig
}

fn fault(rig: &mut Rig, page: Gpa) -> u32 {
    assert!(rig.paravirt.takes_async_fault(Interruptible::User));
    let La(token) = rig.paravirt.async_fault(page).expect("it is told");
    assert_eq!(record(rig).0, 1, "not present");
    clear_flags(rig);
    u32::try_from(token).expect("32 bits")
}

#[test]
fn a_guest_is_told_only_where_it_can_switch_to_other_work() {
    use Interruptible::{Kernel, No, User};
    let off = [0, 1, 1 << 3, 1 | SEND_ALWAYS];
    for control in off {
        let rig = enabled(control);
        assert!(![No, Kernel, User].iter().any(|&guest| rig.paravirt.takes_async_fault(guest)));
    }
    let told = |rig: &Rig| [No, Kernel, User].map(|guest| rig.paravirt.takes_async_fault(guest));
    assert_eq!(told(&enabled(ON)), [false, false, true], "user code alone");
    assert_eq!(told(&enabled(ON | SEND_ALWAYS)), [false, true, true]);
    let mut rig = enabled(ON);
    rig.paravirt.async_fault(PAGES[0]);
    assert_eq!(told(&rig), [false; 3], "it has not taken the last one");
    clear_flags(&rig);
    assert_eq!(told(&rig), [false, false, true]);
}

#[test]
fn pages_that_are_ready_are_told_one_after_the_other() {
    let mut rig = enabled(ON);
    let tokens = [PAGES[0], PAGES[1], PAGES[0]].map(|page| fault(&mut rig, page));
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2] && tokens[0] != tokens[2]);
    assert!(tokens.iter().all(|&token| token != 0 && token != ALL && token & 0xfff == 0));
    rig.paravirt.page_came(PAGES[2]);
    assert_eq!(ready(&mut rig), None, "nobody waits for that one");
    rig.paravirt.page_came(PAGES[1]);
    rig.paravirt.page_came(PAGES[0]);
    assert_eq!(record(&rig).1, tokens[1], "the second has no room yet");
    let told = std::array::from_fn(|_| ready(&mut rig));
    assert_eq!(told, [Some(tokens[1]), Some(tokens[0]), Some(tokens[2]), None]);
    assert_eq!(rig.paravirt.async_faults(), 3);
}

#[test]
fn a_guest_waits_for_so_many_and_its_processor_for_more() {
    let mut rig = enabled(ON);
    (0..64).for_each(|_| {
        fault(&mut rig, PAGES[0]);
    });
    assert!(!rig.paravirt.takes_async_fault(Interruptible::User));
    rig.paravirt.page_came(PAGES[0]);
    assert!(rig.paravirt.takes_async_fault(Interruptible::User));
}

#[test]
fn an_interrupt_that_is_not_accepted_is_sent_again() {
    let mut rig = enabled(ON);
    let token = fault(&mut rig, PAGES[0]);
    let spurious = |rig: &Rig, value| rig.lapics[0].mmio_write(0xf0, x86::addr::Width::B4, value);
    spurious(&rig, 0xff); // software-disabled
    rig.paravirt.page_came(PAGES[0]);
    assert_eq!(record(&rig), (0, 0));
    spurious(&rig, 0x1ff);
    assert!(!rig.paravirt.arrives(std::time::Duration::ZERO));
    assert_eq!(ready(&mut rig), Some(token));
}

#[test]
fn whoever_waits_is_woken_when_this_is_enabled_anew_or_the_machine_restored() {
    let mut rig = enabled(ON);
    fault(&mut rig, PAGES[0]);
    let waits = rig.paravirt.save();
    assert!(waits.async_pf.waits);
    write(&mut rig, ENABLE, 0).expect("valid");
    rig.paravirt.page_came(PAGES[0]);
    assert_eq!(ready(&mut rig), None, "disabled");
    write(&mut rig, ENABLE, AT | ON).expect("valid");
    assert_eq!((ready(&mut rig), ready(&mut rig)), (Some(ALL), None));

    let idle = rig.paravirt.save();
    assert!(!idle.async_pf.waits);
    for (state, told) in [(&waits, Some(ALL)), (&idle, None)] {
        rig.paravirt.restore(state).expect("its own");
        assert_eq!(&rig.paravirt.save(), state);
        assert!(!rig.paravirt.arrives(std::time::Duration::ZERO));
        assert_eq!(ready(&mut rig), told);
    }
    rig.paravirt.restore(&waits).expect("its own");
    rig.paravirt.init();
    assert_eq!(rig.paravirt.msr_read(ENABLE), Some(Ok(0)));
    assert_eq!((rig.paravirt.arrives(std::time::Duration::ZERO), ready(&mut rig)), (false, None));
}

#[test]
fn registers_take_what_the_features_allow() {
    let mut rig = rig("gemello-v2");
    for wrong in [AT | 1 << 2, AT | 1 << 4, AT | 1 << 5, 1 << 40 | ON] {
        assert_eq!(write(&mut rig, ENABLE, wrong), Err(MsrFault), "{wrong:#x}");
    }
    assert_eq!(write(&mut rig, VECTOR, 0x100), Err(MsrFault));
    assert_eq!(rig.paravirt.msr_read(ACKNOWLEDGE), Some(Ok(0)));
    let state = rig.paravirt.save();
    for (control, waits) in [(AT | 1 << 4, false), (1 << 40 | ON, false), (0, true)] {
        let async_pf = AsyncPfState { control, interrupt: 0, waits };
        let odd = ParavirtState { async_pf, ..state.clone() };
        assert!(rig.paravirt.restore(&odd).is_err(), "{odd:x?}");
        assert_eq!(rig.paravirt.save(), state, "nothing was changed");
    }
    let mut without = self::rig("gemello-v2,-kvm_asyncpf_int");
    assert_eq!(write(&mut without, ENABLE, AT | ON), Err(MsrFault));
    assert_eq!(without.paravirt.msr_write(VECTOR, 0xf3), None);
    let mut without = self::rig("gemello-v2,-kvm_asyncpf");
    assert_eq!(without.paravirt.msr_write(ENABLE, 0), None);
    let async_pf = AsyncPfState { control: AT | ON, interrupt: 0xf3, waits: false };
    assert!(without.paravirt.restore(&ParavirtState { async_pf, ..state }).is_err());
}
