mod ipi;

use super::*;
use crate::irq::IrqInputs;
use crate::irqchip::{IrqChips, Message};
use crate::msi::{Msi, MsiSink as _};
use crate::time::{ManualClock, SECOND};
use proptest::prelude::*;
use x86::addr::{Gpa, Port, PortWidth, VcpuId, Vector, Width};

struct Rig {
    clock: Arc<ManualClock>,
    timers: Arc<TimerQueue>,
    signals: Vec<Arc<Signals>>,
    chips: IrqChips,
}

const HZ: u64 = 25_000_000;

fn rig(count: u32) -> Rig {
    let (clock, timers) = (ManualClock::new(), TimerQueue::new());
    let signals: Vec<_> = (0..count).map(|_| Arc::new(Signals::default())).collect();
    let lapic = |(id, signals): (u32, &Arc<Signals>)| {
        Lapic::new(LapicConfig {
            id: VcpuId(id),
            bootstrap: id == 0,
            signals: Arc::clone(signals),
            clock: Arc::clone(&clock) as _,
            timers: Arc::clone(&timers),
            timer_hz: HZ,
            tsc: Arc::clone(&clock) as _,
        })
    };
    let chips = IrqChips::new((0..).zip(&signals).map(lapic).collect(), 9);
    Rig { clock, timers, signals, chips }
}

impl Rig {
    fn lapic(&self, index: usize) -> &Lapic {
        &self.chips.lapics[index]
    }

    fn intr(&self, index: usize) -> bool {
        self.signals[index].is_raised(Signal::Intr)
    }

    /// All software-enabled, in xAPIC mode.
    fn enabled(self) -> Self {
        self.chips.lapics.iter().for_each(|lapic| put(lapic, SVR, 0x1FF));
        self
    }

    /// All software-enabled, in x2APIC mode.
    fn x2apic(self) -> Self {
        for lapic in &self.chips.lapics {
            let base = lapic.msr_read(IA32_APIC_BASE).unwrap().unwrap();
            lapic.msr_write(IA32_APIC_BASE, base | base::EXTD).unwrap().unwrap();
            lapic.msr_write(X2APIC_MSR_BASE + (SVR >> STEP_SHIFT), 0x1FF).unwrap().unwrap();
        }
        self
    }

    fn run_to(&self, end: u64) {
        while let Some(at) = self.timers.next_deadline().filter(|&at| at <= end) {
            self.clock.set(at);
            self.timers.expire(at);
        }
        self.clock.set(end);
    }

    fn expected(&self, raised: &[usize]) {
        let seen: Vec<_> = (0..self.signals.len()).filter(|&index| self.intr(index)).collect();
        assert_eq!(seen, raised);
    }
}

fn get(lapic: &Lapic, register: u32) -> u32 {
    lapic.mmio_read(u64::from(register), Width::B4) as u32
}

fn put(lapic: &Lapic, register: u32, value: u32) {
    lapic.mmio_write(u64::from(register), Width::B4, u64::from(value));
}

/// Sends an xAPIC IPI.
fn ipi(lapic: &Lapic, destination: u8, low: u32) {
    put(lapic, ICR_HIGH, u32::from(destination) << 24);
    put(lapic, ICR_LOW, low);
}

fn fixed(vector: Vector, destination: u32) -> Message {
    use crate::irqchip::{DeliveryMode, DestinationMode, Trigger};
    Message {
        vector,
        delivery: DeliveryMode::Fixed,
        trigger: Trigger::Edge,
        mode: DestinationMode::Physical,
        destination,
    }
}

#[test]
fn power_up_values() {
    let rig = rig(2);
    let lapic = rig.lapic(1);
    assert_eq!(lapic.mmio_base(), Some(Gpa(0xFEE0_0000)));
    assert_eq!(rig.lapic(0).msr_read(0x1B), Some(Ok(0xFEE0_0900)));
    assert_eq!(lapic.msr_read(0x1B), Some(Ok(0xFEE0_0800)));
    let expected = [
        (ID, 1 << 24),
        (VERSION, 0x50014),
        (DFR, u32::MAX),
        (SVR, 0xFF),
        (LVT_TIMER, lvt::MASKED),
        (LVT_ERROR, lvt::MASKED),
        (ICR_LOW, 0),
    ];
    expected.into_iter().for_each(|(register, value)| assert_eq!(get(lapic, register), value));
    put(lapic, LVT_TIMER, 0x40);
    assert_eq!(get(lapic, LVT_TIMER), lvt::MASKED | 0x40, "software-disabled: the mask stays");
    assert!(!rig.chips.interconnect.deliver(&fixed(Vector(0x40), 1)), "and nothing is accepted");
}

proptest! {
    /// Against the text of 12.8.3: requests are served in order of vector, if their class is above
    /// that of TPR and of everything in service.
    #[test]
    fn priorities(
        tpr in any::<u8>(),
        steps in prop::collection::vec(prop_oneof![(16u8..).prop_map(Some), Just(None)], 1..60),
    ) {
        let rig = rig(1).enabled();
        let lapic = rig.lapic(0);
        put(lapic, TPR, u32::from(tpr));
        let (mut requested, mut serving) = (std::collections::BTreeSet::new(), vec![]);
        for step in steps {
            match step {
                Some(vector) => {
                    rig.chips.interconnect.deliver(&fixed(Vector(vector), 0));
                    requested.insert(vector);
                }
                None => {
                    put(lapic, EOI, 0);
                    serving.pop();
                }
            }
            let floor = serving.last().copied().unwrap_or(0u8);
            let ppr = if tpr >> 4 >= floor >> 4 { tpr } else { floor & 0xF0 };
            prop_assert_eq!(get(lapic, PPR), u32::from(ppr));
            let next = requested.last().copied().filter(|vector| vector >> 4 > ppr >> 4);
            prop_assert_eq!(rig.intr(0), next.is_some());
            prop_assert_eq!(lapic.ack_interrupt(), next.map(Vector));
            if let Some(vector) = next {
                requested.remove(&vector);
                serving.push(vector);
                serving.sort_unstable();
                let (word, bit) = (u32::from(vector >> 5) << STEP_SHIFT, 1 << (vector & 31));
                prop_assert!(get(lapic, ISR + word) & bit != 0);
                prop_assert!(get(lapic, IRR + word) & bit == 0);
            }
        }
    }

    #[test]
    fn timer_interrupts_come_at_its_period(count in 1000u32..1_000_000, divide in 0u32..8) {
        let rig = rig(1).enabled();
        let lapic = rig.lapic(0);
        let divisor = [2u64, 4, 8, 16, 32, 64, 128, 1][divide as usize];
        put(lapic, TIMER_DIVIDE, (divide & 4) << 1 | divide & 3);
        put(lapic, LVT_TIMER, 0x20040);
        put(lapic, TIMER_INITIAL_COUNT, count);
        let period = u64::from(count) * divisor;
        for k in 1..5 {
            let at = (k * period * SECOND).div_ceil(HZ);
            rig.run_to(at - 1);
            prop_assert!(!rig.intr(0));
            rig.run_to(at);
            prop_assert_eq!(lapic.ack_interrupt(), Some(Vector(0x40)));
            put(lapic, EOI, 0);
        }
    }
}

#[test]
fn cr8_is_the_class_of_tpr() {
    let rig = rig(1).enabled();
    let lapic = rig.lapic(0);
    rig.chips.interconnect.deliver(&fixed(Vector(0x55), 0));
    lapic.set_task_priority(5);
    assert_eq!((get(lapic, TPR), lapic.task_priority(), rig.intr(0)), (0x50, 5, false));
    assert_eq!(lapic.ack_interrupt(), None);
    put(lapic, TPR, 0x4F);
    assert_eq!((lapic.task_priority(), rig.intr(0)), (4, true));
}

#[test]
fn one_shot_masks_and_tsc_deadline() {
    let rig = rig(1).enabled();
    let lapic = rig.lapic(0);
    put(lapic, TIMER_DIVIDE, 0b1011);
    put(lapic, LVT_TIMER, lvt::MASKED | 0x40);
    put(lapic, TIMER_INITIAL_COUNT, 25);
    assert_eq!(rig.timers.next_deadline(), None, "masked: the host need not wake");
    rig.clock.set(400);
    assert_eq!(get(lapic, TIMER_CURRENT_COUNT), 15);
    put(lapic, LVT_TIMER, 0x40);
    assert_eq!(rig.timers.next_deadline(), Some(1000));
    rig.run_to(2000);
    assert_eq!((lapic.ack_interrupt(), get(lapic, TIMER_CURRENT_COUNT)), (Some(Vector(0x40)), 0));
    put(lapic, EOI, 0);
    put(lapic, LVT_TIMER, 2 << 17 | 0x41);
    assert_eq!(lapic.msr_write(IA32_TSC_DEADLINE, 5000), Some(Ok(())));
    assert_eq!(lapic.msr_read(IA32_TSC_DEADLINE), Some(Ok(5000)));
    rig.run_to(4999);
    assert!(!rig.intr(0));
    rig.run_to(5000);
    assert_eq!(lapic.msr_read(IA32_TSC_DEADLINE), Some(Ok(0)));
    assert_eq!(lapic.ack_interrupt(), Some(Vector(0x41)));
    put(lapic, EOI, 0);
    lapic.msr_write(IA32_TSC_DEADLINE, 1);
    assert!(rig.intr(0), "a deadline in the past fires at once");
    lapic.msr_write(IA32_TSC_DEADLINE, 9000);
    lapic.tsc_changed();
    assert_eq!(rig.timers.next_deadline(), Some(9000));
    lapic.msr_write(IA32_TSC_DEADLINE, 0);
    assert_eq!(rig.timers.next_deadline(), None);
}

/// Whether the host was late to look at the timer, or the processor to take its interrupt.
#[test]
fn a_stall_is_told_by_the_timer_once() {
    let rig = rig(1).enabled();
    let lapic = rig.lapic(0);
    put(lapic, LVT_TIMER, 2 << 17 | 0x41);
    let second = 1_000_000_000;
    let mut begin = 0;
    for (looked_at, taken_at, stalled) in [
        (0, 0, false),
        (second / 2, second - 1, false),
        (0, 3 * second, true),
        (3 * second, 3 * second, true),
        (second / 4, second / 2, false),
    ] {
        let due = begin + 1000;
        assert_eq!(lapic.msr_write(IA32_TSC_DEADLINE, due), Some(Ok(())));
        rig.clock.set(due + looked_at);
        rig.timers.expire(due + looked_at);
        rig.clock.set(due + taken_at);
        assert_eq!(lapic.ack_interrupt(), Some(Vector(0x41)));
        assert_eq!(lapic.take_stall(), stalled, "{looked_at} {taken_at}");
        assert!(!lapic.take_stall(), "it was told");
        put(lapic, EOI, 0);
        begin = due + taken_at;
    }
}

#[test]
fn errors_latch_on_a_write_and_interrupt_once() {
    let rig = rig(1).enabled();
    let lapic = rig.lapic(0);
    put(lapic, LVT_ERROR, 0xFE);
    ipi(lapic, 0, 0x0F);
    assert_eq!(lapic.ack_interrupt(), Some(Vector(0xFE)));
    put(lapic, EOI, 0);
    rig.chips.interconnect.deliver(&fixed(Vector(3), 0));
    get(lapic, 0x3A0);
    assert!(!rig.intr(0), "not armed again before ESR is written");
    assert_eq!(get(lapic, ESR), 0);
    put(lapic, ESR, 0);
    assert_eq!(
        get(lapic, ESR),
        esr::SEND_ILLEGAL_VECTOR | esr::RECEIVED_ILLEGAL_VECTOR | esr::ILLEGAL_REGISTER
    );
    get(lapic, 0x3A0);
    assert_eq!(lapic.ack_interrupt(), Some(Vector(0xFE)));
}

#[test]
fn the_base_msr_has_three_states() {
    let rig = rig(1);
    let lapic = rig.lapic(0);
    let write = |value| lapic.msr_write(IA32_APIC_BASE, value).unwrap();
    const OFF: u64 = 0xFEE0_0100;
    assert_eq!(write(OFF | base::EXTD), Err(MsrFault), "invalid");
    assert_eq!(write(OFF | base::EN | 1), Err(MsrFault), "reserved bit");
    assert_eq!(write(OFF | base::EN | 1 << 52), Err(MsrFault), "beyond MAXPHYADDR");
    assert_eq!(lapic.msr_read(0x802), Some(Err(MsrFault)), "not in x2APIC mode");
    assert_eq!(write(OFF), Ok(()));
    assert_eq!(lapic.mmio_base(), None);
    assert_eq!(write(OFF | base::EN | base::EXTD), Err(MsrFault), "disabled to x2APIC");
    assert_eq!(write(0x1_2345_6000 | base::EN), Ok(()));
    assert_eq!(lapic.mmio_base(), Some(Gpa(0x1_2345_6000)));
    assert_eq!(write(OFF | base::EN | base::EXTD), Ok(()));
    assert_eq!(lapic.mmio_base(), None);
    assert_eq!(write(OFF | base::EN), Err(MsrFault), "x2APIC to xAPIC");
    assert_eq!(write(OFF), Ok(()));
    assert_eq!(lapic.msr_read(IA32_APIC_BASE), Some(Ok(OFF)), "BSP is kept");
}

#[test]
fn x2apic_registers_and_faults() {
    let rig = rig(2).x2apic();
    let lapic = rig.lapic(1);
    let read = |register: u32| lapic.msr_read(X2APIC_MSR_BASE + (register >> STEP_SHIFT)).unwrap();
    let write = |register: u32, value| {
        lapic.msr_write(X2APIC_MSR_BASE + (register >> STEP_SHIFT), value).unwrap()
    };
    assert_eq!((read(ID), read(LDR), read(VERSION)), (Ok(1), Ok(2), Ok(0x50014)));
    for register in [EOI, SELF_IPI, DFR, ICR_HIGH, APR, RRD, LVT_CMCI, 0x3A0, 0x00, 0x7F0] {
        assert_eq!(read(register), Err(MsrFault), "read {register:#x}");
    }
    for register in
        [ID, VERSION, PPR, LDR, ISR, TMR, IRR, TIMER_CURRENT_COUNT, DFR, ICR_HIGH, LVT_CMCI]
    {
        assert_eq!(write(register, 0), Err(MsrFault), "write {register:#x}");
    }
    let reserved = [
        (TPR, 0x100),
        (EOI, 1),
        (ESR, 1),
        (SVR, 1 << 12),
        (LVT_TIMER, 1 << 8),
        (LVT_ERROR, 1 << 8),
        (TIMER_DIVIDE, 4),
        (SELF_IPI, 0x100),
        (ICR_LOW, 1 << 12),
        (TIMER_INITIAL_COUNT, 1 << 32),
    ];
    for (register, value) in reserved {
        assert_eq!(write(register, value), Err(MsrFault), "{register:#x} = {value:#x}");
    }
    assert_eq!(write(SELF_IPI, 0x77), Ok(()));
    assert_eq!(lapic.ack_interrupt(), Some(Vector(0x77)));
    assert_eq!(write(EOI, 0), Ok(()));
    assert_eq!(lapic.mmio_read(0x20, Width::B4), 0xFFFF_FFFF, "no page in x2APIC mode");
}

#[test]
fn the_8259_comes_through_virtual_wire_and_without_apic() {
    for (base, wired) in [(0xFEE0_0900, false), (0xFEE0_0900, true), (0xFEE0_0100, false)] {
        let rig = rig(1);
        let pic = &rig.chips.pic;
        use crate::bus::SharedPio;
        for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0)] {
            pic.write(Port(port), PortWidth::B1, value);
        }
        let lapic = rig.lapic(0);
        lapic.msr_write(IA32_APIC_BASE, base);
        if wired {
            lapic.set_virtual_wire();
        }
        let line = rig.chips.isa_line(4);
        line.set(true);
        let through = wired || base & base::EN == 0;
        assert_eq!(rig.intr(0), through);
        assert_eq!(lapic.ack_interrupt(), through.then_some(Vector(0x34)));
        assert!(!rig.intr(0));
        line.set(false);
        pic.write(Port(0x20), PortWidth::B1, 0x20);
        line.set(true);
        assert_eq!(rig.intr(0), through);
        line.set(false);
        assert_eq!((rig.intr(0), lapic.ack_interrupt()), (false, None), "withdrawn");
    }
}

#[test]
fn lint_pins_as_nmi_and_as_level_interrupt() {
    let rig = rig(1).enabled();
    let lapic = rig.lapic(0);
    put(lapic, LVT_LINT1, 4 << 8);
    lapic.set_input(Lapic::LINT1, true);
    assert!(rig.signals[0].is_raised(Signal::Nmi));
    put(lapic, LVT_LINT0, lvt::LEVEL | 0x66);
    lapic.set_input(Lapic::LINT0, true);
    assert_eq!(lapic.ack_interrupt(), Some(Vector(0x66)));
    assert_ne!(get(lapic, LVT_LINT0) & lvt::REMOTE_IRR, 0);
    put(lapic, EOI, 0);
    assert_eq!(lapic.ack_interrupt(), Some(Vector(0x66)), "still up");
    lapic.set_input(Lapic::LINT0, false);
    put(lapic, EOI, 0);
    assert!(!rig.intr(0));
}

#[test]
fn an_ioapic_level_interrupt_repeats_until_its_line_falls() {
    use crate::bus::SharedMmio;
    let rig = rig(2).enabled();
    let ioapic = &rig.chips.ioapic;
    let program = |register: u64, value: u64| {
        ioapic.write(0, Width::B4, register);
        ioapic.write(0x10, Width::B4, value);
    };
    program(0x10 + 2 * 9 + 1, 1 << 24);
    program(0x10 + 2 * 9, 0x8000 | 0x59);
    let sci = rig.chips.isa_line(9);
    sci.set(true);
    rig.expected(&[1]);
    assert_eq!(rig.lapic(1).ack_interrupt(), Some(Vector(0x59)));
    assert!(!rig.intr(1));
    put(rig.lapic(1), EOI, 0);
    assert_eq!(rig.lapic(1).ack_interrupt(), Some(Vector(0x59)));
    sci.set(false);
    put(rig.lapic(1), EOI, 0);
    rig.expected(&[]);
    // IRQ0 is on pin 2.
    program(0x10 + 2 * 2, 0x60);
    rig.chips.isa_line(0).pulse();
    assert_eq!(rig.lapic(0).ack_interrupt(), Some(Vector(0x60)));
    assert!(rig.chips.interconnect.send(Msi { address: Gpa(0xFEE0_1000), data: 0x71 }));
    assert_eq!(rig.lapic(1).ack_interrupt(), Some(Vector(0x71)));
}

#[test]
fn state_survives() {
    let rig = rig(2).enabled();
    let lapic = rig.lapic(0);
    put(lapic, TIMER_DIVIDE, 0b1011);
    put(lapic, LVT_TIMER, 0x20050);
    put(lapic, TIMER_INITIAL_COUNT, 12345);
    rig.chips.interconnect.deliver(&fixed(Vector(0x61), 0));
    rig.chips.interconnect.deliver(&fixed(Vector(0x32), 0));
    lapic.ack_interrupt();
    put(lapic, TPR, 0x20);
    rig.chips.ioapic.set_input(5, true);
    let saved = lapic.save();
    let other = self::rig(1);
    other.lapic(0).restore(&saved).expect("its own state");
    assert_eq!(other.lapic(0).save(), saved);
    assert_eq!(other.timers.next_deadline(), rig.timers.next_deadline());
    put(other.lapic(0), EOI, 0);
    assert_eq!(other.lapic(0).ack_interrupt(), Some(Vector(0x32)));
    let ioapic = rig.chips.ioapic.save();
    other.chips.ioapic.restore(&ioapic).expect("its own state");
    assert_eq!(other.chips.ioapic.save(), ioapic);
}

/// Many threads ask while one acknowledges: as many distinct deliveries as requests, and none lost.
#[test]
fn no_interrupt_is_lost_between_threads() {
    const ROUNDS: u32 = 5_000;
    let rig = rig(1).enabled();
    let (lapic, signals) = (rig.lapic(0), &rig.signals[0]);
    let taken: [std::sync::atomic::AtomicU32; 256] = std::array::from_fn(|_| 0.into());
    let count =
        |vector: Vector| taken[usize::from(vector.0)].load(std::sync::atomic::Ordering::SeqCst);
    std::thread::scope(|scope| {
        for vector in [0x41u8, 0x52, 0x63] {
            let chips = &rig.chips;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    chips.interconnect.deliver(&fixed(Vector(vector), 0));
                    // Waits for its own delivery, as a device does for its driver.
                    while count(Vector(vector)) == round {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut total = 0;
        while total < 3 * ROUNDS {
            let woken = signals.wait(
                vcpu::SignalSet::EMPTY.with(Signal::Intr),
                Some(std::time::Duration::from_secs(20)),
            );
            assert!(woken, "an interrupt was lost after {total}");
            while let Some(vector) = lapic.ack_interrupt() {
                put(lapic, EOI, 0);
                taken[usize::from(vector.0)].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                total += 1;
            }
        }
    });
    assert!(!rig.intr(0));
}

/// As above with a level-triggered line: the vCPU's side releases the line before its EOI, as a
/// driver does.
#[test]
fn no_level_interrupt_is_lost_between_threads() {
    use crate::bus::SharedMmio;
    use std::sync::atomic::{AtomicU32, Ordering};
    const ROUNDS: u32 = 5_000;
    let rig = rig(1).enabled();
    let (lapic, signals) = (rig.lapic(0), &rig.signals[0]);
    for (register, value) in [(0x10 + 2 * 5, 0x8055), (0x10 + 2 * 6, 0x8066)] {
        rig.chips.ioapic.write(0, Width::B4, register);
        rig.chips.ioapic.write(0x10, Width::B4, value);
    }
    let served = [AtomicU32::new(0), AtomicU32::new(0)];
    let lines = [rig.chips.isa_line(5), rig.chips.isa_line(6)];
    std::thread::scope(|scope| {
        for (line, served) in lines.iter().zip(&served) {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    line.set(true);
                    while served.load(Ordering::SeqCst) == round {
                        std::thread::yield_now();
                    }
                }
            });
        }
        while served.iter().any(|served| served.load(Ordering::SeqCst) < ROUNDS) {
            let woken = signals.wait(
                vcpu::SignalSet::EMPTY.with(Signal::Intr),
                Some(std::time::Duration::from_secs(20)),
            );
            assert!(woken, "lost after {served:?}");
            while let Some(vector) = lapic.ack_interrupt() {
                let index = usize::from(vector == Vector(0x66));
                lines[index].set(false);
                served[index].fetch_add(1, Ordering::SeqCst);
                put(lapic, EOI, 0);
            }
        }
    });
}

/// A TSC whose conversion to VM time always falls short by half.
struct Skewed(Arc<ManualClock>);

impl Tsc for Skewed {
    fn instant(&self) -> Instant {
        self.0.instant()
    }
    fn guest_tsc(&self) -> u64 {
        self.0.now()
    }
    fn moved(&self) -> u64 {
        0
    }
    fn ns_until(&self, tsc: u64) -> u64 {
        tsc.saturating_sub(self.0.now()).div_ceil(2)
    }
}

#[test]
fn a_deadline_that_is_met_early_is_armed_again() {
    let (clock, timers) = (ManualClock::new(), TimerQueue::new());
    let signals = Arc::new(Signals::default());
    let lapic = Lapic::new(LapicConfig {
        id: VcpuId::BOOT,
        bootstrap: true,
        signals: Arc::clone(&signals),
        clock: Arc::clone(&clock) as _,
        timers: Arc::clone(&timers),
        timer_hz: HZ,
        tsc: Arc::new(Skewed(Arc::clone(&clock))),
    });
    put(&lapic, SVR, 0x1FF);
    put(&lapic, LVT_TIMER, 2 << 17 | 0x41);
    lapic.msr_write(IA32_TSC_DEADLINE, 1_000_000);
    let mut wakes = 0;
    while let Some(at) = timers.next_deadline() {
        assert!(!signals.is_raised(Signal::Intr));
        clock.set(at);
        timers.expire(at);
        wakes += 1;
    }
    assert_eq!((clock.now(), lapic.ack_interrupt()), (1_000_000, Some(Vector(0x41))));
    assert!(wakes > 5);
}

/// A TSC that is moved against VM time.
struct Moved(Arc<ManualClock>, AtomicU64);

impl Tsc for Moved {
    fn instant(&self) -> Instant {
        Instant { ns: self.0.now(), tsc: self.guest_tsc() }
    }
    fn guest_tsc(&self) -> u64 {
        self.0.now() + self.1.load(Ordering::SeqCst)
    }
    fn moved(&self) -> u64 {
        self.1.load(Ordering::SeqCst)
    }
    fn ns_until(&self, tsc: u64) -> u64 {
        tsc.saturating_sub(self.guest_tsc())
    }
}

#[test]
fn a_tsc_deadline_follows_the_tsc_and_a_restored_clock() {
    let (clock, timers) = (ManualClock::new(), TimerQueue::new());
    let tsc = Arc::new(Moved(Arc::clone(&clock), AtomicU64::new(0)));
    let signals = Arc::new(Signals::default());
    let lapic = Lapic::new(LapicConfig {
        id: VcpuId::BOOT,
        bootstrap: true,
        signals: Arc::clone(&signals),
        clock: Arc::clone(&clock) as _,
        timers: Arc::clone(&timers),
        timer_hz: HZ,
        tsc: Arc::clone(&tsc) as _,
    });
    put(&lapic, SVR, 0x1FF);
    put(&lapic, LVT_TIMER, 2 << 17 | 0x41);
    lapic.msr_write(IA32_TSC_DEADLINE, 1_000_000);
    assert_eq!(timers.next_deadline(), Some(1_000_000));
    tsc.1.store(600_000, Ordering::SeqCst);
    lapic.tsc_changed();
    assert_eq!(timers.next_deadline(), Some(400_000));
    let state = lapic.save();
    tsc.1.store(700_000, Ordering::SeqCst);
    lapic.restore(&state).expect("its own state");
    assert_eq!(timers.next_deadline(), Some(300_000), "the same deadline at another time");
    tsc.1.store(2_000_000, Ordering::SeqCst);
    lapic.tsc_changed();
    assert!(signals.is_raised(Signal::Intr), "moved past the deadline");
}

#[test]
fn the_page_is_where_the_base_msr_says() {
    let rig = rig(1);
    let lapic = rig.lapic(0);
    lapic.msr_write(IA32_APIC_BASE, 0xFED0_0000 | base::EN).unwrap().unwrap();
    assert_eq!(lapic.mmio_base(), Some(Gpa(0xFED0_0000)));
    let state = lapic.save();
    lapic.msr_write(IA32_APIC_BASE, 0xFED0_0000 | base::EN | base::EXTD).unwrap().unwrap();
    assert_eq!(lapic.mmio_base(), None);
    lapic.restore(&state).expect("its own state");
    assert_eq!(lapic.mmio_base(), Some(Gpa(0xFED0_0000)));
}
