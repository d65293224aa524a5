//! What processors do to each other: interrupts to many, kicks, steal time and flushes.

use super::{AT, GHZ, Rig, rig};
use crate::paravirt::ParavirtState;
use std::sync::Arc;
use std::time::Duration;
use vcpu::{Hypercall, HypercallError, MsrFault, Residence, Signal};
use x86::addr::{Gpa, VcpuId, Vector};

const STEAL: u32 = 0x4b56_4d03;
const ALL: &str = "gemello-v2";
const NMI: u64 = 4 << 8;

fn send(rig: &mut Rig, arguments: [u64; 4], bits: u32) -> Result<u64, HypercallError> {
    rig.paravirt.hypercall(Hypercall { number: 10, arguments, bits })
}

/// The vector that each processor has pending.
fn taken(rig: &Rig) -> Vec<Option<Vector>> {
    rig.lapics.iter().map(|lapic| lapic.ack_interrupt()).collect()
}

#[test]
fn one_call_interrupts_many() {
    let mut rig = rig("gemello-v2");
    assert_eq!(send(&mut rig, [0b101, 0, 0, 0x41], 64), Ok(2));
    assert_eq!(taken(&rig), [Some(Vector(0x41)), None, Some(Vector(0x41))]);
    // Counted from the lowest; ids 3 to 5 are not there.
    assert_eq!(send(&mut rig, [0b11111, 0, 1, 0x52], 64), Ok(2));
    assert_eq!(taken(&rig), [None, Some(Vector(0x52)), Some(Vector(0x52))]);
    assert_eq!(send(&mut rig, [2, 0, 0, NMI], 64), Ok(1));
    assert!(rig.signals[1].is_raised(Signal::Nmi) && !rig.signals[0].is_raised(Signal::Nmi));
}

#[test]
fn the_map_has_two_registers_of_64_or_32_bits() {
    let mut rig = rig("gemello-v2");
    assert_eq!(send(&mut rig, [0, 1, 0_u64.wrapping_sub(62), 0x41], 64), Ok(0));
    // Bit 32 of a map from id -31, were there such: id 1. There is none: numbers do not wrap.
    assert_eq!(send(&mut rig, [0, 1, 0xffff_ffff, 0x41], 32), Ok(0));
    assert_eq!(taken(&rig), [None; 3]);
    let map = |bits| 1_u128 << bits;
    assert_eq!(rig.common.send_ipis(map(1), 0, 0x41), Ok(1));
    assert_eq!(taken(&rig), [None, Some(Vector(0x41)), None]);
    assert_eq!(rig.common.send_ipis(map(127), u64::MAX, 0x41), Ok(0));
    assert_eq!(rig.common.send_ipis(u128::MAX, u64::from(u32::MAX) - 3, 0x41), Ok(0));
}

#[test]
fn other_interrupts_are_refused() {
    let mut rig = rig("gemello-v2");
    for wrong in [0x0f, 0x141, 0x241, 3 << 8, 5 << 8, 0x641, 0x741, 0x41 | 1 << 11] {
        assert_eq!(
            send(&mut rig, [7, 0, 0, wrong], 64),
            Err(HypercallError::Invalid),
            "{wrong:#x}"
        );
    }
    assert_eq!(taken(&rig), [None; 3]);
}

#[test]
fn a_kick_reaches_the_processor_that_it_names() {
    let mut rig = rig("gemello-v2");
    for id in [1, 3, u64::MAX] {
        assert_eq!(rig.call(5, 0, id), Ok(0));
    }
    let kicked: Vec<_> = rig.signals.iter().map(|s| s.is_raised(Signal::Unhalt)).collect();
    assert_eq!(kicked, [false, true, false]);
    rig.paravirt.unhalt();
    assert!(rig.paravirt.is_unhalted() && rig.paravirt.save().unhalted);
    rig.paravirt.init();
    assert!(!rig.paravirt.is_unhalted());
}

#[test]
fn a_yield_goes_to_a_processor_that_waits_to_run() {
    let mut rig = rig(ALL);
    rig.signals[2].settle(Residence::Running(7));
    for (id, wanted) in [(1, Some(VcpuId(1))), (2, None), (9, None), (1 << 32 | 1, None)] {
        assert_eq!(rig.call(11, id, 0), Ok(0));
        assert_eq!(rig.paravirt.wants_to_yield(), wanted.is_some());
        assert_eq!(rig.paravirt.take_yield(), wanted, "{id}");
    }
    assert_eq!(rig.paravirt.take_yield(), None);
}

/// Steal time, version, whether it is preempted.
fn record(rig: &Rig) -> (u64, u8, u8) {
    let bytes = rig.bytes::<64>(AT);
    (u64::from_le_bytes(bytes[..8].try_into().unwrap()), bytes[8], bytes[16])
}

#[test]
fn steal_time_adds_up_and_the_byte_tells_where_the_processor_is() {
    let mut rig = rig(ALL);
    let second = Duration::from_secs(1);
    assert!(!rig.paravirt.arrives(3 * second));
    assert_eq!(rig.paravirt.msr_write(STEAL, AT | 1), Some(Ok(())));
    assert_eq!(record(&rig), (0, 0, 0), "what was before counts not");
    rig.paravirt.leaves();
    assert_eq!(record(&rig), (0, 0, 1));
    assert!(!rig.paravirt.arrives(4 * second));
    assert_eq!(record(&rig), (GHZ, 2, 0));
    rig.paravirt.leaves();
    assert!(!rig.paravirt.arrives(4 * second));
    assert_eq!(record(&rig), (GHZ, 2, 0), "it has not waited");
    // Another scheduler counts from 0.
    assert!(!rig.paravirt.arrives(Duration::ZERO));
    assert!(!rig.paravirt.arrives(second));
    assert_eq!(record(&rig), (2 * GHZ, 4, 0));
    rig.paravirt.msr_write(STEAL, AT);
    rig.paravirt.leaves();
    assert_eq!(record(&rig), (2 * GHZ, 4, 0), "nobody wants to know");
}

#[test]
fn a_flush_is_asked_for_once_and_never_lost() {
    let mut rig = rig(ALL);
    rig.paravirt.msr_write(STEAL, AT | 1);
    rig.paravirt.leaves();
    assert_eq!(rig.ram.swap_byte(Gpa(AT + 16), 3), Some(1));
    assert!(rig.paravirt.arrives(Duration::ZERO));
    assert_eq!(record(&rig).2, 0);
    rig.paravirt.leaves();
    assert!(!rig.paravirt.arrives(Duration::ZERO));
    let mut without = self::rig("gemello-v2,-kvm_pv_tlb_flush");
    without.paravirt.msr_write(STEAL, AT | 1);
    without.ram.swap_byte(Gpa(AT + 16), 3);
    assert!(!without.paravirt.arrives(Duration::ZERO), "not offered");
}

/// However a request falls between leaving and coming back: either it is heard, or who asks finds
/// the processor running, and interrupts it.
#[test]
fn a_flush_is_heard_or_the_processor_found_running() {
    const ROUNDS: u32 = 20_000;
    let mut rig = rig(ALL);
    rig.paravirt.msr_write(STEAL, AT | 1);
    let ram = rig.ram.clone();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = Arc::clone(&done);
    let asks = std::thread::spawn(move || {
        use x86::bus::PhysicalMemory;
        let mut asked = 0_u32;
        while !ended.load(std::sync::atomic::Ordering::SeqCst) {
            asked += u32::from(
                ram.read_u32(Gpa(AT + 16)) == 1 && ram.compare_exchange_u32(Gpa(AT + 16), 1, 3),
            );
        }
        asked
    });
    let mut heard = 0;
    for _ in 0..ROUNDS {
        rig.paravirt.leaves();
        std::hint::spin_loop();
        heard += u32::from(rig.paravirt.arrives(Duration::ZERO));
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(asks.join().expect("it only asks"), heard);
}

#[test]
fn registers_and_calls_are_those_of_the_features() {
    let mut rig = rig(ALL);
    for wrong in [AT | 2, AT | 0x20 | 1, 0x3e] {
        assert_eq!(rig.paravirt.msr_write(STEAL, wrong), Some(Err(MsrFault)), "{wrong:#x}");
    }
    assert_eq!(rig.paravirt.msr_read(STEAL), Some(Ok(0)));
    rig.paravirt.msr_write(STEAL, AT | 1);
    let state = rig.paravirt.save();
    rig.paravirt.init();
    assert_eq!(rig.paravirt.msr_read(STEAL), Some(Ok(0)));
    rig.paravirt.restore(&state).expect("its own");
    rig.paravirt.leaves();
    assert_eq!((record(&rig).2, rig.paravirt.save()), (1, state.clone()));
    let odd = ParavirtState { steal_time: AT | 3, ..state.clone() };
    assert!(rig.paravirt.restore(&odd).is_err());

    let mut without = self::rig("gemello-v2,-kvm_steal_time,-kvm_pv_unhalt,-kvm_pv_ipi");
    assert_eq!(without.paravirt.msr_write(STEAL, 0), None);
    for call in [5, 10, 11] {
        assert_eq!(without.call(call, 0, 0), Err(HypercallError::Unknown), "{call}");
    }
    assert!(without.paravirt.restore(&state).is_err());
    let unhalted = ParavirtState { steal_time: 0, system_time: 0, unhalted: true, ..state };
    assert!(without.paravirt.restore(&unhalted).is_err());
}
