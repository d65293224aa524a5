//! Every device on one bus, driven by bytes: for property tests and for cargo-fuzz.
//!
//! Besides not panicking, a step must keep three promises: a local APIC's INTR signal is up exactly
//! while an interrupt is deliverable, timers settle (no deadline at or before now is left after a
//! few rounds), and saved state restores to itself.

use devices::bus::Bus;
use devices::chipset::{
    AcpiPm, AcpiPmState, DebugExit, FastA20, I8042, I8042State, LatchState, Pit, PitState,
    PostPort, ResetPort, Rtc, RtcConfig, RtcState, Uart, UartConfig, UartState, WallClock,
};
use devices::irq::{IrqInputs as _, IrqLine};
use devices::irqchip::{IoApicState, IrqChips, Lapic, LapicConfig, LapicState, PicState};
use devices::msi::{Msi, MsiSink as _};
use devices::power::PowerSink;
use devices::saved::RestoreError;
use devices::time::{Clock, ManualClock, TimerQueue};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use sync::lock;
use vcpu::{Signal, Signals};
use x86::addr::{Gpa, Port, PortWidth, VcpuId, Width};

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
pub(crate) struct Rig {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) timers: Arc<TimerQueue>,
    pub(crate) signals: Vec<Arc<Signals>>,
    pub(crate) chips: IrqChips,
    pub(crate) bus: Bus,
    pub(crate) pit: Arc<Mutex<Pit>>,
    pub(crate) rtc: Arc<Mutex<Rtc>>,
    pub(crate) uart: Arc<Mutex<Uart>>,
    pub(crate) i8042: Arc<Mutex<I8042>>,
    pub(crate) acpi: Arc<Mutex<AcpiPm>>,
    pub(crate) post: Arc<Mutex<PostPort>>,
    pub(crate) fast_a20: Arc<Mutex<FastA20>>,
    pub(crate) reset: Arc<Mutex<ResetPort>>,
    /// Devices that are nothing but an interrupt line, one on each ISA interrupt, and which of them
    /// ask.
    others: Vec<IrqLine>,
    asking: AtomicU16,
}

/// The state of all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) now: u64,
    pub(crate) asking: u16,
    pub(crate) lapics: Vec<LapicState>,
    pub(crate) pic: PicState,
    pub(crate) ioapic: IoApicState,
    pub(crate) pit: PitState,
    pub(crate) rtc: RtcState,
    pub(crate) uart: UartState,
    pub(crate) i8042: I8042State,
    pub(crate) acpi: AcpiPmState,
    pub(crate) post: LatchState,
    pub(crate) fast_a20: LatchState,
    pub(crate) reset: LatchState,
}

/// A clock that tells VM time, and the wall time that goes with it.
struct Wall(Arc<ManualClock>);

impl WallClock for Wall {
    fn unix_ns(&self) -> i128 {
        1_700_000_000_000_000_000 + i128::from(self.0.now())
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        let (clock, timers) = (ManualClock::new(), TimerQueue::new());
        let signals: Vec<_> = (0..2).map(|_| Arc::new(Signals::default())).collect();
        let lapic = |(id, signals): (u32, &Arc<Signals>)| {
            Lapic::new(LapicConfig {
                id: VcpuId(id),
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
            wall: Arc::new(Wall(Arc::clone(&clock))),
            irq8: chips.isa_line(8),
            ram_below_4g: 1 << 30,
            ram_above_4g: 0,
        });
        let uart = Uart::new(UartConfig {
            base: Port(0x3F8),
            clock: Arc::clone(&vm_clock),
            timers: Arc::clone(&timers),
            irq: chips.isa_line(4),
            output: Box::new(std::io::sink()),
        });
        let i8042 = I8042::new(power.clone(), chips.isa_line(1));
        let acpi =
            AcpiPm::new(Port(0x600), vm_clock, &timers, chips.isa_line(9), power.clone(), true);
        let mut rig = Self {
            post: PostPort::new(),
            fast_a20: FastA20::new(power.clone()),
            reset: ResetPort::new(power.clone()),
            others: (0..16).map(|irq| chips.isa_line(irq)).collect(),
            asking: AtomicU16::new(0),
            bus: Bus::new(),
            clock,
            timers,
            signals,
            chips,
            pit,
            rtc,
            uart,
            i8042,
            acpi,
        };
        rig.attach(&power);
        rig
    }

    fn attach(&mut self, power: &PowerSink) {
        let Self { bus, chips, pit, rtc, uart, i8042, acpi, post, fast_a20, reset, .. } = self;
        let placed = [
            chips.attach(bus, Gpa(IOAPIC_BASE)),
            bus.add_pio("pit", Port(0x40)..=Port(0x43), Arc::clone(pit) as _),
            bus.add_pio("port 61", Port(0x61)..=Port(0x61), Arc::clone(pit) as _),
            bus.add_pio("rtc", Port(0x70)..=Port(0x71), Arc::clone(rtc) as _),
            bus.add_pio("uart", Port(0x3F8)..=Port(0x3FF), Arc::clone(uart) as _),
            bus.add_pio("i8042", Port(0x60)..=Port(0x60), Arc::clone(i8042) as _),
            bus.add_pio("i8042", Port(0x64)..=Port(0x64), Arc::clone(i8042) as _),
            bus.add_pio("acpi", Port(0x600)..=Port(0x60F), Arc::clone(acpi) as _),
            bus.add_byte_port("reset", Port(0xCF9), Arc::clone(reset) as _),
            bus.add_pio("debug exit", Port(0xF4)..=Port(0xF4), DebugExit::new(power.clone())),
            bus.add_pio("post", Port(0x80)..=Port(0x80), Arc::clone(post) as _),
            bus.add_pio("a20", Port(0x92)..=Port(0x92), Arc::clone(fast_a20) as _),
        ];
        placed.into_iter().for_each(|result| assert_eq!(result, Ok(())));
    }

    /// One step of eight bytes: operation, place, size, value. Returns what the guest sees of it.
    pub(crate) fn step(&self, step: [u8; 8]) -> u64 {
        let [operation, place, size, v0, v1, v2, v3, v4] = step;
        let value = u32::from_le_bytes([v0, v1, v2, v3]);
        let wide = u64::from(value) | u64::from(v4) << 56;
        let port = PORTS[usize::from(place) % PORTS.len()];
        let width = [Width::B1, Width::B2, Width::B4, Width::B8][usize::from(size & 3)];
        let port_width = PortWidth::try_from(width.bytes()).unwrap_or(PortWidth::B4);
        let lapics = &self.chips.lapics;
        let lapic = &lapics[usize::from(v4) % lapics.len()];
        let register = place & 0x3F;
        let (msr, wide) = match place >> 6 {
            // Mostly legal transitions of IA32_APIC_BASE, and deadlines that are near.
            0 => (0x1B, 0xFEE0_0000 | wide & 0xD00),
            1 => (0x6E0, self.clock.now() >> 1 | u64::from(value >> 8)),
            _ => (0x800 + u32::from(register), if v0 & 1 == 0 { wide & 0xFFF } else { wide }),
        };
        let mut seen = 0;
        match operation % 12 {
            0 => seen = self.bus.pio_read(Port(port), port_width).into(),
            1 | 2 => self.bus.pio_write(Port(port), port_width, value),
            3 => seen = lapic.mmio_read(u64::from(place) << 4 | u64::from(v0 & 15), width),
            4 => lapic.mmio_write(u64::from(register) << 4, Width::B4, u64::from(value)),
            5 => seen = lapic.msr_read(msr).map_or(1, |result| result.unwrap_or(2)),
            6 => seen = lapic.msr_write(msr, wide).map_or(1, |result| result.is_err().into()),
            7 => seen = self.program_ioapic(place, value),
            8 => seen = lapic.ack_interrupt().map_or(u64::MAX, |vector| vector.0.into()),
            9 => lapic.set_task_priority(v0 & 15),
            10 => self.host_event(place, value),
            _ => self.pass((u64::from(value) << 8) >> (place & 31)),
        }
        self.check();
        seen
    }

    fn program_ioapic(&self, register: u8, value: u32) -> u64 {
        self.bus.mmio_write(Gpa(IOAPIC_BASE), Width::B4, u64::from(register & 0x3F));
        self.bus.mmio_write(Gpa(IOAPIC_BASE + 0x10), Width::B4, u64::from(value));
        let seen = self.bus.mmio_read(Gpa(IOAPIC_BASE + 0x10), Width::B8);
        if register & 0xC0 == 0xC0 {
            self.bus.mmio_write(Gpa(IOAPIC_BASE + 0x40), Width::B4, u64::from(value));
        }
        seen
    }

    fn host_event(&self, kind: u8, value: u32) {
        let lapics = &self.chips.lapics;
        match kind % 8 {
            0 => drop(lock(&self.uart).receive(&value.to_le_bytes())),
            1 => lock(&self.acpi).press_power_button(),
            2 => {
                let (address, data) = (Msi::ADDRESS | u64::from(value), value >> 8);
                self.chips.interconnect.send(Msi { address: Gpa(address), data });
            }
            3 => self.ask(value as u16),
            4 => lapics.iter().for_each(|lapic| lapic.init()),
            5 => lapics.iter().for_each(|lapic| lapic.set_virtual_wire()),
            6 => lapics.iter().for_each(|lapic| lapic.set_input(Lapic::LINT1, value & 1 != 0)),
            _ => self.restore(&self.save()).expect("its own state"),
        }
    }

    /// Lets `ns` pass, and what is due happen.
    pub(crate) fn pass(&self, ns: u64) {
        self.clock.advance(ns);
        let now = self.clock.now();
        let settled = (0..ROUNDS).any(|_| self.timers.expire(now) == 0);
        assert!(settled, "timers do not settle at {now}: {:?}", self.timers);
    }

    pub(crate) fn check(&self) {
        for (lapic, signals) in self.chips.lapics.iter().zip(&self.signals) {
            assert_eq!(signals.is_raised(Signal::Intr), lapic.interrupt_pending(), "{lapic:?}");
        }
    }

    /// Of the devices that are only a line, those ask whose bit is set.
    fn ask(&self, which: u16) {
        self.asking.store(which, Ordering::Relaxed);
        for (irq, line) in self.others.iter().enumerate() {
            line.set(which >> irq & 1 != 0);
        }
    }

    /// The state, saved in the order that [`devices`] prescribes.
    pub(crate) fn save(&self) -> Snapshot {
        let pit = lock(&self.pit).save();
        let rtc = lock(&self.rtc).save();
        let acpi = lock(&self.acpi).save();
        Snapshot {
            now: self.clock.now(),
            asking: self.asking.load(Ordering::Relaxed),
            pit,
            rtc,
            acpi,
            uart: lock(&self.uart).save(),
            i8042: lock(&self.i8042).save(),
            post: lock(&self.post).save(),
            fast_a20: lock(&self.fast_a20).save(),
            reset: lock(&self.reset).save(),
            pic: self.chips.pic.save(),
            ioapic: self.chips.ioapic.save(),
            lapics: self.chips.lapics.iter().map(|lapic| lapic.save()).collect(),
        }
    }

    /// Goes on from `state`, restored in the order that [`devices`] prescribes.
    pub(crate) fn restore(&self, state: &Snapshot) -> Result<(), RestoreError> {
        self.clock.set(state.now);
        for (lapic, state) in self.chips.lapics.iter().zip(&state.lapics) {
            lapic.restore(state)?;
        }
        self.chips.pic.restore(&state.pic)?;
        self.chips.ioapic.restore(&state.ioapic)?;
        lock(&self.pit).restore(&state.pit)?;
        lock(&self.rtc).restore(&state.rtc)?;
        lock(&self.uart).restore(&state.uart)?;
        lock(&self.i8042).restore(&state.i8042)?;
        lock(&self.acpi).restore(&state.acpi)?;
        lock(&self.post).restore(&state.post)?;
        lock(&self.fast_a20).restore(&state.fast_a20)?;
        lock(&self.reset).restore(&state.reset)?;
        self.ask(state.asking);
        Ok(())
    }
}

/// Builds all devices on a bus and accesses them as `data` says, eight bytes a step. Must neither
/// panic nor hang.
pub(crate) fn fuzz(data: &[u8]) {
    let rig = Rig::new();
    for step in data.chunks_exact(8).take(4096) {
        rig.step(step.try_into().unwrap_or_default());
    }
}
