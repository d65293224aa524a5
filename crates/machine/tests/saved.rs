//! A machine's state: saved, restored into a fresh machine, and compared.

mod support;

use machine::saved::VERSION;
use machine::{End, Lines, Machine, RestoreError, layout};
use support::{Step, config, machine, step};
use vcpu::{Exit, Signal};

/// Touches every device, so that the state differs from a fresh machine's everywhere, then stops.
fn busy() -> Vec<Step> {
    vec![
        step(|guest| {
            let writes: [(u16, u32); 21] = [
                (0x43, 0x34),
                (0x40, 0x34),
                (0x40, 0x12), // PIT counter 0, mode 2
                (0x70, 0x0A),
                (0x71, 0x26),
                (0x70, 0x30),
                (0x71, 0x99),
                (0x64, 0x60),
                (0x60, 0x03), // i8042 command byte
                (0x80, 0x5A),
                (0x92, 0x02),
                (0xCF9, 0x02),
                (0x20, 0x11),
                (0x21, 0x20),
                (0x21, 0x04),
                (0x21, 0x01),
                (0x21, 0xEF), // PIC
                (layout::COM1 + 3, 0x13),
                (layout::COM1 + 7, 0x77),
                (layout::COM2 + 7, 0x88),
                (layout::COM3 + 7, 0x99),
            ];
            for (port, value) in writes {
                guest.io.pio_write(port, 1, value);
            }
            guest.io.pio_write(layout::ACPI_PM + 2, 2, 0x0100);
            guest.io.mmio_write(layout::LAPIC + 0xF0, 4, 0x1FF);
            guest.io.mmio_write(layout::LAPIC + 0x320, 4, 0x2_0040);
            guest.io.mmio_write(layout::LAPIC + 0x380, 4, 1_000_000_000);
            guest.io.mmio_write(layout::IOAPIC, 4, 0x10);
            guest.io.mmio_write(layout::IOAPIC + 0x10, 4, 0x31);
            guest.state.gpr[5] = 0x5555;
            guest.state.cr2 = 0x1234;
            guest.signals.raise(Signal::Nmi);
            Exit::SliceOver
        }),
        step(|_| Exit::Shutdown),
    ]
}

fn run_busy() -> Machine {
    let mut machine = machine(&config(), Lines::default(), busy());
    assert!(matches!(machine.run(), End::TripleFault(_)));
    machine
}

#[test]
fn a_restored_machine_is_the_saved_one() {
    let state = run_busy().save().expect("a state");
    let mut fresh = machine(&config(), Lines::default(), vec![]);
    let before = fresh.save().expect("a state");
    let parts = |s: &machine::MachineState| {
        let c = s.chipset.clone();
        [
            format!("{:?}", s.pic),
            format!("{:?}", s.ioapic),
            format!("{:?}", s.processors[0].lapic),
            format!("{:?}", s.processors[0].cpu),
            format!("{:?}", c.pit),
            format!("{:?}", c.rtc),
            format!("{:?}", c.i8042),
            format!("{:?}", c.acpi),
            format!("{:?}", c.post),
            format!("{:?}", c.com1),
            format!("{:?}", c.com2),
            format!("{:?}", c.com3),
        ]
    };
    for (fresh, busy) in parts(&before).iter().zip(parts(&state)) {
        assert_ne!(fresh, &busy, "the test does not reach this device");
    }
    fresh.restore(&state).expect("the same kind of machine");
    // The PIT and the RTC note up to when they have done their work, which restoring moves up to now.
    let mut settled = fresh.save().expect("a state");
    let pit = std::mem::replace(&mut settled.chipset.pit, state.chipset.pit.clone());
    let rtc = std::mem::replace(&mut settled.chipset.rtc, state.chipset.rtc.clone());
    for (settled, saved) in parts(&settled).iter().zip(parts(&state)) {
        assert_eq!(settled, &saved);
    }
    assert_eq!(settled, state);
    (settled.chipset.pit, settled.chipset.rtc) = (pit, rtc);
    let mut another = machine(&config(), Lines::default(), vec![]);
    another.restore(&settled).expect("the same kind of machine");
    assert_eq!(another.save().expect("a state"), settled);
}

#[test]
fn another_version_or_machine_is_refused() {
    let mut state = run_busy().save().expect("a state");
    let mut fresh = machine(&config(), Lines::default(), vec![]);
    state.version = VERSION + 1;
    assert_eq!(fresh.restore(&state), Err(RestoreError::Version { found: VERSION + 1 }));
    state.version = VERSION;
    state.processors.clear();
    assert_eq!(fresh.restore(&state), Err(RestoreError::Processors { found: 0, expected: 1 }));
}
