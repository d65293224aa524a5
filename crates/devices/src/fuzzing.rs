//! Every device on one bus, driven by bytes: for cargo-fuzz and for this crate's property tests.
//!
//! Besides not panicking, a step must keep three promises: a local APIC's INTR signal is up exactly
//! while an interrupt is deliverable, timers settle (no deadline at or before now is left after a
//! few rounds), and saved state restores to itself.

use crate::bus::Bus;
use crate::chipset::{
    AcpiPm, DebugExit, FastA20, I8042, Pit, PostPort, ResetPort, Rtc, RtcConfig, Uart, UartConfig,
    WallClock,
};
use crate::irq::IrqInputs as _;
use crate::irqchip::{IrqChips, Lapic, LapicConfig};
use crate::msi::{Msi, MsiSink as _};
use crate::power::PowerSink;
use crate::sync::lock;
use crate::time::{Clock, ManualClock, TimerQueue};
use std::sync::{Arc, Mutex};
use vcpu::{Signal, Signals};

const IOAPIC_BASE: u64 = 0xFEC0_0000;
/// Rounds of expiry after which no due timer may be left.
const ROUNDS: usize = 64;

/// Ports worth accessing; anything else is unclaimed.
const PORTS: [u16; 40] = [
    0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0x60, 0x64,
    0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF, 0x600, 0x601, 0x602, 0x603, 0x604,
    0x605, 0x608, 0x60B, 0x60E, 0x60F, 0x80, 0x92, 0xF4, 0xCF8, 0xCF9, 0xCFB, 0xFFFF,
];

/// A machine's devices without the machine.
struct Rig {
    clock: Arc<ManualClock>,
    timers: Arc<TimerQueue>,
    signals: Vec<Arc<Signals>>,
    chips: IrqChips,
    bus: Bus,
    pit: Arc<Mutex<Pit>>,
    rtc: Arc<Mutex<Rtc>>,
    uart: Arc<Mutex<Uart>>,
    i8042: Arc<Mutex<I8042>>,
    acpi: Arc<Mutex<AcpiPm>>,
}

impl WallClock for ManualClock {
    fn unix_ns(&self) -> i128 {
        1_700_000_000_000_000_000 + i128::from(self.now())
    }
}

impl Rig {
    fn new() -> Self {
        let (clock, timers) = (ManualClock::new(), TimerQueue::new());
        let signals: Vec<_> = (0..2).map(|_| Arc::new(Signals::default())).collect();
        let lapic = |(id, signals): (u32, &Arc<Signals>)| {
            Lapic::new(LapicConfig {
                id,
                bootstrap: id == 0,
                signals: Arc::clone(signals),
                clock: Arc::clone(&clock) as _,
                timers: Arc::clone(&timers),
                timer_hz: 25_000_000,
                tsc: Arc::clone(&clock) as _,
            })
        };
        let chips = IrqChips::new((0..).zip(&signals).map(lapic).collect(), 2);
        let vm_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let power = PowerSink::new(|_| {});
        let pit = Pit::new(Arc::clone(&vm_clock), &timers, chips.isa_line(0));
        let rtc = Rtc::new(RtcConfig {
            clock: Arc::clone(&vm_clock),
            timers: Arc::clone(&timers),
            wall: Arc::clone(&clock) as _,
            irq8: chips.isa_line(8),
            ram_below_4g: 1 << 30,
            ram_above_4g: 0,
        });
        let uart = Uart::new(UartConfig {
            base: 0x3F8,
            clock: Arc::clone(&vm_clock),
            timers: Arc::clone(&timers),
            irq: chips.isa_line(4),
            output: Box::new(std::io::sink()),
        });
        let i8042 = I8042::new(power.clone());
        lock(&i8042).connect_irq1(chips.isa_line(1));
        let acpi = AcpiPm::new(0x600, vm_clock, &timers, chips.isa_line(9), power.clone(), true);
        let bus = Bus::new();
        let mut rig = Self { clock, timers, signals, chips, bus, pit, rtc, uart, i8042, acpi };
        rig.attach(&power);
        rig
    }

    fn attach(&mut self, power: &PowerSink) {
        let Self { bus, chips, pit, rtc, uart, i8042, acpi, .. } = self;
        let placed = [
            chips.attach(bus, IOAPIC_BASE),
            bus.add_pio("pit", 0x40..=0x43, Arc::clone(pit) as _),
            bus.add_pio("port 61", 0x61..=0x61, Arc::clone(pit) as _),
            bus.add_pio("rtc", 0x70..=0x71, Arc::clone(rtc) as _),
            bus.add_pio("uart", 0x3F8..=0x3FF, Arc::clone(uart) as _),
            bus.add_pio("i8042", 0x60..=0x60, Arc::clone(i8042) as _),
            bus.add_pio("i8042", 0x64..=0x64, Arc::clone(i8042) as _),
            bus.add_pio("acpi", 0x600..=0x60F, Arc::clone(acpi) as _),
            bus.add_byte_port("reset", 0xCF9, ResetPort::new(power.clone())),
            bus.add_pio("debug exit", 0xF4..=0xF4, DebugExit::new(power.clone())),
            bus.add_pio("post", 0x80..=0x80, PostPort::new()),
            bus.add_pio("a20", 0x92..=0x92, FastA20::new(power.clone())),
        ];
        placed.into_iter().for_each(|result| assert_eq!(result, Ok(())));
    }

    /// One step of eight bytes: operation, place, size, value.
    fn step(&self, step: [u8; 8]) {
        let [operation, place, size, v0, v1, v2, v3, v4] = step;
        let value = u32::from_le_bytes([v0, v1, v2, v3]);
        let wide = u64::from(value) | u64::from(v4) << 56;
        let port = PORTS[usize::from(place) % PORTS.len()];
        let size = 1 << (size & 3);
        let lapics = &self.chips.lapics;
        let lapic = &lapics[usize::from(v4) % lapics.len()];
        let register = place & 0x3F;
        let (msr, wide) = match place >> 6 {
            // Mostly legal transitions of IA32_APIC_BASE, and deadlines that are near.
            0 => (0x1B, 0xFEE0_0000 | wide & 0xD00),
            1 => (0x6E0, self.clock.now() >> 1 | u64::from(value >> 8)),
            _ => (0x800 + u32::from(register), if v0 & 1 == 0 { wide & 0xFFF } else { wide }),
        };
        match operation % 12 {
            0 => drop(self.bus.pio_read(port, size.min(4))),
            1 | 2 => self.bus.pio_write(port, size.min(4), value),
            3 => drop(lapic.mmio_read(u64::from(place) << 4 | u64::from(v0 & 15), size)),
            4 => lapic.mmio_write(u64::from(register) << 4, 4, u64::from(value)),
            5 => drop(lapic.msr_read(msr)),
            6 => drop(lapic.msr_write(msr, wide)),
            7 => self.program_ioapic(place, value),
            8 => drop(lapic.ack_interrupt()),
            9 => lapic.set_task_priority(v0 & 15),
            10 => self.host_event(place, value),
            _ => self.pass((u64::from(value) << 8) >> (place & 31)),
        }
        self.check();
    }

    fn program_ioapic(&self, register: u8, value: u32) {
        self.bus.mmio_write(IOAPIC_BASE, 4, u64::from(register & 0x3F));
        self.bus.mmio_write(IOAPIC_BASE + 0x10, 4, u64::from(value));
        self.bus.mmio_read(IOAPIC_BASE + 0x10, 8);
        if register & 0xC0 == 0xC0 {
            self.bus.mmio_write(IOAPIC_BASE + 0x40, 4, u64::from(value));
        }
    }

    fn host_event(&self, kind: u8, value: u32) {
        let lapics = &self.chips.lapics;
        match kind % 8 {
            0 => drop(lock(&self.uart).receive(&value.to_le_bytes())),
            1 => lock(&self.acpi).press_power_button(),
            2 => {
                let (address, data) = (Msi::ADDRESS | u64::from(value), value >> 8);
                self.chips.interconnect.send(Msi { address, data });
            }
            3 => self.chips.isa_line(value as u8).pulse(),
            4 => lapics.iter().for_each(|lapic| lapic.init()),
            5 => lapics.iter().for_each(|lapic| lapic.set_virtual_wire()),
            6 => lapics.iter().for_each(|lapic| lapic.set_input(Lapic::LINT1, value & 1 != 0)),
            _ => self.save_and_restore(),
        }
    }

    /// Lets `ns` pass, and what is due happen.
    fn pass(&self, ns: u64) {
        self.clock.advance(ns);
        let now = self.clock.now();
        let settled = (0..ROUNDS).any(|_| self.timers.expire(now) == 0);
        assert!(settled, "timers do not settle at {now}: {:?}", self.timers);
    }

    fn check(&self) {
        for (lapic, signals) in self.chips.lapics.iter().zip(&self.signals) {
            assert_eq!(signals.is_raised(Signal::Intr), lapic.interrupt_pending(), "{lapic:?}");
        }
    }

    /// Lets the devices that follow the clock lazily look at it, so that their states are of this
    /// moment.
    fn catch_up(&self) {
        self.pass(0);
        macro_rules! look {
            ($device:expr) => {{
                let mut device = lock($device);
                let state = device.save();
                device.restore(&state);
            }};
        }
        look!(&self.pit);
        look!(&self.rtc);
        look!(&self.acpi);
    }

    fn save_and_restore(&self) {
        macro_rules! round_trip {
            ($device:expr) => {{
                let saved = $device.save();
                $device.restore(&saved);
                assert_eq!($device.save(), saved);
            }};
        }
        round_trip!(self.chips.pic);
        round_trip!(self.chips.ioapic);
        self.chips.lapics.iter().for_each(|lapic| round_trip!(lapic));
        round_trip!(lock(&self.i8042));
        round_trip!(lock(&self.uart));
        self.catch_up();
        round_trip!(lock(&self.pit));
        round_trip!(lock(&self.rtc));
        round_trip!(lock(&self.acpi));
    }
}

/// Builds all devices on a bus and accesses them as `data` says, eight bytes a step. Must neither
/// panic nor hang.
pub fn fuzz(data: &[u8]) {
    let rig = Rig::new();
    for step in data.chunks_exact(8).take(4096) {
        rig.step(step.try_into().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chipset::{AcpiPmState, I8042State, PitState, RtcState, UartState};
    use crate::irqchip::{IoApicState, LapicState, PicState};
    use proptest::prelude::*;

    #[derive(Debug, PartialEq)]
    struct Snapshot {
        lapics: Vec<LapicState>,
        pic: PicState,
        ioapic: IoApicState,
        pit: PitState,
        rtc: RtcState,
        uart: UartState,
        i8042: I8042State,
        acpi: AcpiPmState,
    }

    fn snapshot(rig: &Rig) -> Snapshot {
        Snapshot {
            lapics: rig.chips.lapics.iter().map(|lapic| lapic.save()).collect(),
            pic: rig.chips.pic.save(),
            ioapic: rig.chips.ioapic.save(),
            pit: lock(&rig.pit).save(),
            rtc: lock(&rig.rtc).save(),
            uart: lock(&rig.uart).save(),
            i8042: lock(&rig.i8042).save(),
            acpi: lock(&rig.acpi).save(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        /// A whole machine's devices, restored into fresh ones in the order that the crate
        /// prescribes.
        #[test]
        fn a_snapshot_restores_to_itself(data in prop::collection::vec(any::<[u8; 8]>(), 0..400)) {
            let rig = Rig::new();
            data.into_iter().for_each(|step| rig.step(step));
            rig.catch_up();
            let saved = snapshot(&rig);
            let fresh = Rig::new();
            fresh.clock.set(rig.clock.now());
            for (lapic, state) in fresh.chips.lapics.iter().zip(&saved.lapics) {
                lapic.restore(state);
            }
            fresh.chips.pic.restore(&saved.pic);
            fresh.chips.ioapic.restore(&saved.ioapic);
            lock(&fresh.pit).restore(&saved.pit);
            lock(&fresh.rtc).restore(&saved.rtc);
            lock(&fresh.uart).restore(&saved.uart);
            lock(&fresh.i8042).restore(&saved.i8042);
            lock(&fresh.acpi).restore(&saved.acpi);
            prop_assert_eq!(snapshot(&fresh), saved);
            fresh.check();
            prop_assert_eq!(fresh.timers.next_deadline(), rig.timers.next_deadline());
        }

        #[test]
        fn no_sequence_panics_or_hangs(data in prop::collection::vec(any::<u8>(), 0..4000)) {
            fuzz(&data);
        }

        /// Every port of the whole space, in every width.
        #[test]
        fn any_port_in_any_width(accesses in prop::collection::vec((any::<u16>(), 0u8..3, any::<u32>()), 0..200)) {
            let rig = Rig::new();
            for (port, size, value) in accesses {
                rig.bus.pio_write(port, 1 << size, value);
                rig.bus.pio_read(port, 1 << size);
                rig.check();
            }
        }
    }
}
