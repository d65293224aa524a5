//! The clock against a guest's arithmetic, written from the documents; the registers' manners.

mod async_pf;
mod processors;

use super::clock::{Moment, Rate, time_record};
use super::*;
use crate::irqchip::{Lapic, LapicConfig};
use crate::time::{Instant, ManualClock, TimerQueue};
use proptest::prelude::*;
use std::sync::Mutex;
use sync::lock;
use x86::addr::{VcpuId, Width};

const GHZ: u64 = 1_000_000_000;
const AT: u64 = 0x3000;
const CLOCK: u32 = 0x4b56_4d01;
const WALL: u32 = 0x4b56_4d00;

/// A record as a guest reads it (`struct pvclock_vcpu_time_info`).
#[derive(Clone, Copy, Debug, PartialEq)]
struct TimeInfo {
    version: u32,
    tsc: u64,
    ns: u64,
    multiplier: u32,
    shift: i8,
    flags: u8,
}

impl TimeInfo {
    fn of(bytes: &[u8]) -> Self {
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let (shift, flags) = (bytes[28] as i8, bytes[29]);
        let (version, multiplier) = (word(0), word(24));
        Self { version, tsc: long(8), ns: long(16), multiplier, shift, flags }
    }

    /// The guest's time, by the formula of the document.
    fn time(&self, tsc: u64) -> u64 {
        let delta = tsc.wrapping_sub(self.tsc);
        let shifted = if self.shift < 0 { delta >> -self.shift } else { delta << self.shift };
        self.ns + ((u128::from(shifted) * u128::from(self.multiplier)) >> 32) as u64
    }

    /// The frequency that Linux computes (`pvclock_tsc_khz`).
    fn khz(&self) -> u64 {
        let quotient = (1_000_000 << 32) / u64::from(self.multiplier);
        if self.shift < 0 { quotient << -self.shift } else { quotient >> self.shift }
    }
}

/// What a guest gets at a frequency.
fn info(hz: u64, moved: u64) -> TimeInfo {
    let record = time_record(Rate::of(hz), moved, 0);
    TimeInfo::of(&[&[0; 4], &record[..]].concat())
}

proptest! {
    #[test]
    fn the_clock_is_true_and_never_fast(hz in 200_000_000..20 * GHZ, days in 0u64..4000) {
        let ticks = days * 86_400 * hz;
        let (exact, ns) = (days * 86_400 * GHZ, info(hz, 0).time(ticks));
        prop_assert!(ns <= exact, "fast");
        prop_assert!(exact - ns <= exact / (1 << 27) + 1, "slow by {} ns", exact - ns);
        prop_assert_eq!(Rate::of(hz).ns(ticks), ns);
    }

    #[test]
    fn the_clock_never_goes_back(hz in 200_000_000..20 * GHZ, at: u64, step in 0u64..1 << 40) {
        let (info, at) = (info(hz, 0), at >> 8);
        prop_assert!(info.time(at + step) >= info.time(at));
    }

    #[test]
    fn all_processors_have_the_same_time(
        hz in 200_000_000..20 * GHZ, tsc in 0u64..1 << 60, moved: u64,
    ) {
        let (still, far) = (info(hz, 0), info(hz, moved));
        prop_assert_eq!(far.time(tsc.wrapping_add(moved)), still.time(tsc));
    }

    #[test]
    fn a_guest_computes_the_frequency_to_the_kilohertz(khz in 200_000..20_000_000u64) {
        // The multiplier has fewer bits for faster processors.
        let error = info(khz * 1000, 0).khz() - khz;
        prop_assert!(error <= khz / 4_000_000, "{khz}: off by {error}");
    }

    #[test]
    fn wall_time_is_that_of_the_start_and_the_clock(
        hz in 200_000_000..20 * GHZ, wall in 0i128..1 << 61, tsc in 0u64..1 << 55,
    ) {
        let record = Moment { wall, tsc }.wall_record(Rate::of(hz));
        let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
        let sum = i128::from(word(0)) * i128::from(GHZ) + i128::from(word(4));
        prop_assert!(word(4) < GHZ as u32);
        // Seconds have 32 bits.
        let now = (sum + i128::from(info(hz, 0).time(tsc))).rem_euclid(i128::from(GHZ) << 32);
        prop_assert_eq!(now, wall.rem_euclid(i128::from(GHZ) << 32));
    }
}

/// A TSC at 2 GHz and a wall clock, both moved by hand.
#[derive(Default)]
struct Hands {
    tsc: AtomicU64,
    moved: AtomicU64,
    wall: Mutex<i128>,
}

impl Tsc for Hands {
    fn instant(&self) -> Instant {
        Instant { ns: self.guest_tsc() / 2, tsc: self.guest_tsc() }
    }
    fn guest_tsc(&self) -> u64 {
        self.tsc.load(Ordering::SeqCst).wrapping_add(self.moved())
    }
    fn moved(&self) -> u64 {
        self.moved.load(Ordering::SeqCst)
    }
    fn ns_until(&self, _: u64) -> u64 {
        0
    }
}

impl WallClock for Hands {
    fn unix_ns(&self) -> i128 {
        *lock(&self.wall)
    }
}

struct Rig {
    ram: GuestRam,
    hands: Arc<Hands>,
    signals: Vec<Arc<Signals>>,
    lapics: Vec<Arc<Lapic>>,
    common: Arc<Common>,
    paravirt: Paravirt,
}

/// A local APIC that takes interrupts.
fn lapic(id: u32, signals: &Arc<Signals>) -> Arc<Lapic> {
    let clock = ManualClock::new();
    let lapic = Lapic::new(LapicConfig {
        id: VcpuId(id),
        bootstrap: id == 0,
        signals: Arc::clone(signals),
        clock: Arc::clone(&clock) as _,
        timers: TimerQueue::new(),
        timer_hz: GHZ,
        tsc: clock,
    });
    lapic.mmio_write(0xf0, Width::B4, 0x1ff);
    lapic
}

fn rig(model: &str) -> Rig {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 16)]).expect("memory");
    let model = CpuModel { tsc_hz: 2 * GHZ, ..CpuModel::parse(model).expect("a known model") };
    let hands = Arc::new(Hands::default());
    let signals: Vec<Arc<Signals>> = (0..3).map(|_| Arc::default()).collect();
    let lapics: Vec<_> = (0..).zip(&signals).map(|(id, signals)| lapic(id, signals)).collect();
    let common = Common::new(CommonConfig {
        model: &model,
        ram: &ram,
        wall: Arc::clone(&hands) as _,
        interconnect: Interconnect::new(lapics.iter().map(|lapic| lapic.clone() as _).collect()),
        signals: signals.clone(),
    });
    let paravirt = Paravirt::new(&common, VcpuId(0), Arc::clone(&hands) as _);
    Rig { ram, hands, signals, lapics, common, paravirt }
}

impl Rig {
    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.ram.read(Gpa(at), &mut bytes).expect("in RAM");
        bytes
    }

    fn info(&self) -> TimeInfo {
        TimeInfo::of(&self.bytes::<32>(AT))
    }

    fn call(&mut self, number: u64, a0: u64, a1: u64) -> Result<u64, HypercallError> {
        self.paravirt.hypercall(Hypercall { number, arguments: [a0, a1, 0, 0], bits: 64 })
    }
}

#[test]
fn a_record_is_written_when_it_is_asked_for_and_has_an_even_version() {
    let mut rig = rig("gemello-v2");
    for (register, before, after) in [(CLOCK, 0, 2), (0x12, 7, 10)] {
        rig.ram.write(Gpa(AT), &[0; 32]).expect("in RAM");
        rig.ram.write(Gpa(AT), &[before]).expect("in RAM");
        assert_eq!(rig.paravirt.msr_write(register, AT | 1), Some(Ok(())));
        let info = rig.info();
        assert_eq!((info.version, info.flags), (after, 1));
        assert_eq!((info.time(2 * GHZ), info.khz()), (GHZ, 2_000_000));
        assert_eq!(rig.paravirt.msr_read(register), Some(Ok(AT | 1)));
    }
    // Not any more.
    rig.paravirt.msr_write(CLOCK, AT);
    rig.paravirt.was_stopped();
    assert_eq!(rig.info().flags, 1);
}

#[test]
fn the_guest_hears_that_it_was_stopped_until_it_has_taken_note() {
    let mut rig = rig("gemello-v2");
    rig.paravirt.was_stopped();
    assert_eq!(rig.bytes::<32>(AT), [0; 32], "nobody has asked");
    rig.paravirt.msr_write(CLOCK, AT | 1);
    rig.paravirt.was_stopped();
    rig.paravirt.tsc_changed();
    assert_eq!(rig.info().flags, 3);
    rig.ram.write(Gpa(AT + 29), &[1]).expect("in RAM");
    rig.paravirt.tsc_changed();
    assert_eq!(rig.info().flags, 1);
}

#[test]
fn a_moved_tsc_keeps_the_time_but_is_not_stable() {
    let mut rig = rig("gemello-v2");
    rig.hands.tsc.store(6 * GHZ, Ordering::SeqCst);
    rig.paravirt.msr_write(CLOCK, AT | 1);
    assert_eq!(rig.info().time(rig.hands.guest_tsc()), 3 * GHZ);
    rig.hands.moved.store(0_u64.wrapping_sub(5 * GHZ), Ordering::SeqCst);
    rig.paravirt.tsc_changed();
    assert_eq!(rig.info().time(rig.hands.guest_tsc()), 3 * GHZ);
    assert_eq!(rig.info().flags, 0);
}

#[test]
fn wall_time_is_right_whenever_it_is_asked_for() {
    let mut rig = rig("gemello-v2");
    for (register, wall, tsc) in [(WALL, 1_700_000_000, 5), (0x11, 1_700_000_900, 7)] {
        // The second time, the machine has lain in a file for 899 seconds.
        *lock(&rig.hands.wall) = i128::from(wall * GHZ + 5);
        rig.hands.tsc.store(tsc * 2 * GHZ, Ordering::SeqCst);
        assert_eq!(rig.paravirt.msr_write(register, AT), Some(Ok(())));
        let bytes = rig.bytes::<12>(AT);
        let word = |at: usize| u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
        assert_eq!((word(4), word(8), word(0) % 2), (wall - tsc, 5, 0));
        assert_eq!(rig.paravirt.msr_read(register), Some(Ok(AT)));
    }
}

#[test]
fn clocks_are_paired() {
    let mut rig = rig("gemello-v2");
    *lock(&rig.hands.wall) = i128::from(1_700_000_000 * GHZ + 77);
    rig.hands.tsc.store(1000, Ordering::SeqCst);
    rig.hands.moved.store(11, Ordering::SeqCst);
    assert_eq!(rig.call(9, AT, 0), Ok(0));
    let bytes = rig.bytes::<64>(AT);
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!((long(0), long(8), long(16)), (1_700_000_000, 77, 1011));
    assert_eq!(bytes[24..], [0; 40]);
    assert_eq!(rig.call(9, AT, 1), Err(HypercallError::NotSupported));
    assert_eq!(rig.call(9, 0xffe0, 0), Err(HypercallError::Fault));
    assert_eq!(rig.call(9, u64::MAX - 3, 0), Err(HypercallError::Fault));
}

#[test]
fn calls_that_there_are_not_are_refused() {
    let mut rig = rig("gemello-v2");
    assert_eq!(rig.call(1, 0, 0), Ok(0));
    for unknown in [0, 2, 12, 1 << 40] {
        assert_eq!(rig.call(unknown, 0, 0), Err(HypercallError::Unknown), "{unknown}");
    }
}

/// Nor does a record that lies partly outside.
#[test]
fn a_record_outside_memory_is_nowhere() {
    let mut rig = rig("gemello-v2");
    for at in [0x1_0000, 0xfff8, u64::MAX - 8, 1 << 52] {
        for register in [CLOCK, WALL] {
            assert_eq!(rig.paravirt.msr_write(register, at | 1), Some(Ok(())));
        }
        rig.paravirt.was_stopped();
        assert_eq!(rig.bytes::<16>(0xfff0), [0; 16]);
    }
}

#[test]
fn what_the_model_has_not_is_not_there() {
    let registers = [0x11, 0x12, WALL, CLOCK];
    let there = |model: &str| {
        let mut rig = rig(model);
        registers.map(|register| {
            let reads = rig.paravirt.msr_read(register).is_some();
            assert_eq!(rig.paravirt.msr_write(register, 0).is_some(), reads);
            reads
        })
    };
    assert_eq!(there("gemello-v2"), [true; 4]);
    assert_eq!(there("gemello-v2,-kvm"), [false; 4]);
    assert_eq!(there("gemello-v2,-kvmclock"), [true, true, false, false]);
    assert_eq!(there("gemello-v2,-kvmclock_old"), [false, false, true, true]);
    let mut unstable = rig("gemello-v2,-kvmclock_stable_bit");
    unstable.paravirt.msr_write(CLOCK, AT | 1);
    assert_eq!(unstable.info().flags, 0);
}

#[test]
fn init_ends_the_record_and_a_saved_one_goes_on() {
    let mut rig = rig("gemello-v2");
    rig.paravirt.msr_write(CLOCK, AT | 1);
    rig.paravirt.msr_write(WALL, AT + 64);
    let (state, common) = (rig.paravirt.save(), rig.common.save());
    rig.paravirt.init();
    rig.paravirt.was_stopped();
    assert_eq!((rig.info().flags, rig.paravirt.msr_read(CLOCK)), (1, Some(Ok(0))));
    assert_eq!(rig.paravirt.msr_read(WALL), Some(Ok(AT + 64)), "it is the machine's");
    rig.paravirt.restore(&state).expect("its own");
    rig.paravirt.was_stopped();
    assert_eq!((rig.info().flags, rig.paravirt.save()), (3, state.clone()));

    let mut other = self::rig("gemello-v2,-kvm");
    assert!(other.paravirt.restore(&state).is_err());
    assert!(other.common.restore(&common).is_err());
    let future = ParavirtState { version: 9, ..state };
    assert!(rig.paravirt.restore(&future).is_err());
    assert!(rig.common.restore(&CommonState { version: 9, ..common }).is_err());
}
