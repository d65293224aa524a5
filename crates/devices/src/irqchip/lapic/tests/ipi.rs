//! Interprocessor interrupts over several local APICs.

use super::*;
use x86::apic::icr;

#[test]
fn destinations_of_xapic_ipis() {
    let rig = rig(4).enabled();
    let drain = || {
        for lapic in &rig.chips.lapics {
            while lapic.ack_interrupt().is_some() {
                put(lapic, EOI, 0);
            }
        }
    };
    let sender = rig.lapic(1);
    for (index, lapic) in rig.chips.lapics.iter().enumerate() {
        put(lapic, LDR, 1 << (24 + index));
    }
    let cases: [(u8, u32, &[usize]); 8] = [
        (2, 0x40, &[2]),
        (0xFF, 0x40, &[0, 1, 2, 3]),
        (0, 0x4_0040, &[1]),
        (0, 0x8_0040, &[0, 1, 2, 3]),
        (0, 0xC_0040, &[0, 2, 3]),
        (0b0101, 0x840, &[0, 2]),
        (0xFF, 0x840, &[0, 1, 2, 3]),
        (7, 0x40, &[]),
    ];
    for (destination, low, raised) in cases {
        ipi(sender, destination, low);
        rig.expected(raised);
        drain();
    }
    for (index, lapic) in rig.chips.lapics.iter().enumerate() {
        put(lapic, DFR, 0);
        // Clusters 0 and 1 of two.
        put(lapic, LDR, ((index as u32 >> 1) << 4 | 1 << (index & 1)) << 24);
    }
    for (destination, raised) in [(0x13, [2, 3].as_slice()), (0x02, &[1]), (0xF1, &[0, 2])] {
        ipi(sender, destination, 0x840);
        rig.expected(raised);
        drain();
    }
}

#[test]
fn lowest_priority_goes_to_the_least_busy() {
    let rig = rig(3).enabled();
    put(rig.lapic(0), TPR, 0x50);
    put(rig.lapic(1), TPR, 0x20);
    put(rig.lapic(2), TPR, 0x30);
    ipi(rig.lapic(0), 0xFF, 0x160);
    rig.expected(&[1]);
}

#[test]
fn nmi_init_and_startup_signal_the_processor() {
    let rig = rig(2).enabled();
    ipi(rig.lapic(0), 1, 0x400);
    assert!(rig.signals[1].is_raised(Signal::Nmi));
    ipi(rig.lapic(0), 1, 0x8500);
    assert!(!rig.signals[1].is_raised(Signal::Init), "de-assert does nothing");
    ipi(rig.lapic(0), 1, 0xC500);
    assert!(rig.signals[1].is_raised(Signal::Init));
    put(rig.lapic(1), TPR, 0x70);
    ipi(rig.lapic(0), 1, 0x69A);
    rig.signals[1].clear(Signal::Init);
    rig.lapic(1).init();
    assert_eq!((get(rig.lapic(1), TPR), get(rig.lapic(1), SVR)), (0, 0xFF));
    assert!(rig.signals[1].is_raised(Signal::Sipi));
    assert_eq!(rig.lapic(1).take_sipi(), Some(Vector(0x9A)));
    assert!(!rig.signals[1].is_raised(Signal::Sipi));
    assert_eq!(rig.lapic(1).take_sipi(), None);
}

/// What INIT and start-up IPIs leave for the target, in each order, before it looks.
#[test]
fn the_last_init_and_the_first_startup_after_it_count() {
    let init = 0xC500;
    let startup = |page: u32| 0x600 | page;
    let cases: [(&[u32], bool, Option<Vector>); 5] = [
        (&[init, startup(8)], true, Some(Vector(8))),
        (&[init, startup(8), startup(9)], true, Some(Vector(8))),
        (&[startup(8), init], true, None),
        (&[startup(8), init, startup(9)], true, Some(Vector(9))),
        (&[init, startup(8), init], true, None),
    ];
    for (sent, reset, page) in cases {
        let rig = rig(2).enabled();
        sent.iter().for_each(|&low| ipi(rig.lapic(0), 1, low));
        assert_eq!(rig.signals[1].is_raised(Signal::Init), reset, "{sent:x?}");
        assert_eq!(rig.lapic(1).take_sipi(), None, "INIT goes first");
        rig.signals[1].clear(Signal::Init);
        rig.lapic(1).init();
        assert_eq!(rig.lapic(1).take_sipi(), page, "{sent:x?}");
    }
}

/// Every delivery mode that an IPI can have, to every kind of destination, from both faces.
#[test]
fn each_kind_of_ipi_reaches_whom_it_names() {
    const LOGICAL: u64 = icr::LOGICAL;
    let shorthand = |n: u64| n << icr::SHORTHAND_SHIFT;
    // Destination for xAPIC (flat) and x2APIC, the rest of the ICR, who gets it when 1 sends.
    let destinations: [(u32, u32, u64, &[usize]); 7] = [
        (2, 2, 0, &[2]),
        (0xFF, u32::MAX, 0, &[0, 1, 2, 3]),
        (0b1010, 0b1010, LOGICAL, &[1, 3]),
        (0xFF, u32::MAX, LOGICAL, &[0, 1, 2, 3]),
        (0, 0, shorthand(icr::SELF), &[1]),
        (0, 0, shorthand(icr::ALL), &[0, 1, 2, 3]),
        (0, 0, shorthand(icr::OTHERS), &[0, 2, 3]),
    ];
    let modes = [
        (DeliveryMode::Fixed, Signal::Intr),
        (DeliveryMode::Nmi, Signal::Nmi),
        (DeliveryMode::Init, Signal::Init),
        (DeliveryMode::StartUp, Signal::Sipi),
    ];
    for (mode, signal) in modes {
        for (short, long, rest, whom) in destinations {
            let low = rest | (mode as u64) << lvt::DELIVERY_SHIFT | icr::ASSERT | 0x41;
            let sent = [rig(4).enabled(), rig(4).x2apic()];
            for (index, lapic) in sent[0].chips.lapics.iter().enumerate() {
                put(lapic, LDR, 1 << (24 + index));
            }
            ipi(sent[0].lapic(1), short as u8, low as u32);
            let value = u64::from(long) << 32 | low;
            let register = X2APIC_MSR_BASE + (ICR_LOW >> STEP_SHIFT);
            assert_eq!(sent[1].lapic(1).msr_write(register, value), Some(Ok(())));
            for rig in sent {
                let got: Vec<_> = (0..4).filter(|&n| rig.signals[n].is_raised(signal)).collect();
                assert_eq!(got, whom, "{mode:?} {value:#x}");
            }
        }
    }
}

#[test]
fn lowest_priority_in_x2apic_mode_goes_to_one_of_its_cluster() {
    let rig = rig(20).x2apic();
    let tpr = X2APIC_MSR_BASE + (TPR >> STEP_SHIFT);
    rig.lapic(17).msr_write(tpr, 0x30).unwrap().unwrap();
    let command = 0x1_000A_u64 << 32 | icr::LOGICAL | 0x160;
    rig.lapic(0).msr_write(X2APIC_MSR_BASE + (ICR_LOW >> STEP_SHIFT), command).unwrap().unwrap();
    rig.expected(&[19]);
}

#[test]
fn destinations_of_x2apic_ipis() {
    let rig = rig(18).x2apic();
    let cases: [(u64, &[usize]); 4] = [
        (17 << 32 | 0x40, &[17]),
        (0x1_0003 << 32 | 0x840, &[16, 17]),
        (0x0_0006 << 32 | 0x840, &[1, 2]),
        (0xFFFF_FFFF << 32 | 0x41, &(0..18).collect::<Vec<_>>()),
    ];
    for (icr, raised) in cases {
        rig.lapic(3).msr_write(X2APIC_MSR_BASE + (ICR_LOW >> STEP_SHIFT), icr).unwrap().unwrap();
        rig.expected(raised);
        for lapic in &rig.chips.lapics {
            if lapic.ack_interrupt().is_some() {
                lapic.msr_write(X2APIC_MSR_BASE + (EOI >> STEP_SHIFT), 0).unwrap().unwrap();
            }
        }
    }
}
