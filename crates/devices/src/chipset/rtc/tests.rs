use super::core::*;
use super::registers::*;
use super::*;
use crate::time::{ManualClock, SECOND};
use proptest::prelude::*;
use sync::lock;
use x86::addr::{Port, PortWidth};

/// 2009-02-13 23:31:30 UTC, a Friday.
const START: i128 = 1_234_567_890_000_000_000;

fn now(ns: u64) -> Now {
    Now { wall: START + i128::from(ns), vm: ns }
}

fn time(core: &mut Core, ns: u64) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|register| core.read(register, now(ns)))
}

#[test]
fn time_in_both_codes_and_both_hour_forms() {
    let mut core = Core::new(now(0));
    assert_eq!(time(&mut core, 0), [0x20, 0x09, 0x02, 0x13, 6, 0x23, 0x31, 0x30]);
    core.write(B, B_24 | B_DM, now(0));
    assert_eq!(time(&mut core, 0), [20, 9, 2, 13, 6, 23, 31, 30]);
    core.write(B, B_DM, now(0));
    assert_eq!(core.read(4, now(0)), 0x80 | 11);
    assert_eq!(core.read(4, now(3600 * SECOND)), 12, "midnight is 12 AM");
    assert_eq!(core.read(4, now(13 * 3600 * SECOND)), 0x80 | 12, "noon is 12 PM");
}

#[test]
fn setting_holds_the_time_and_goes_on_from_it() {
    let mut core = Core::new(now(0));
    core.write(B, B_SET | B_24, now(0));
    for (register, value) in
        [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x58)]
    {
        core.write(register, value, now(5 * SECOND));
    }
    assert_eq!(core.read(0, now(60 * SECOND)), 0x58);
    core.write(B, B_24, now(60 * SECOND));
    assert_eq!(core.read(0, now(61 * SECOND)), 0x59);
    assert_eq!(time(&mut core, 62 * SECOND), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
}

#[test]
fn the_divider_restarts_the_second_half_way() {
    let mut core = Core::new(now(0));
    core.write(A, 0x70, now(0));
    core.write(A, 0x26, now(10 * SECOND));
    assert_eq!(core.read(0, now(10 * SECOND + 499_000_000)), 0x30);
    assert_eq!(core.read(0, now(10 * SECOND + 500_000_000)), 0x31);
}

#[test]
fn update_in_progress_precedes_the_update() {
    let mut core = Core::new(now(0));
    assert_eq!(core.read(A, now(SECOND - 244_001)) & A_UIP, 0);
    assert_eq!(core.read(A, now(SECOND - 244_000)) & A_UIP, A_UIP);
    assert_eq!(core.read(A, now(SECOND)) & A_UIP, 0);
}

#[test]
fn flags_rise_and_a_read_of_c_clears_them() {
    let mut core = Core::new(now(0));
    core.write(B, B_24 | UPDATE, now(0));
    assert_eq!(core.wait(now(400)), Some(SECOND - 400));
    core.advance(now(SECOND));
    assert!(core.interrupt());
    assert_eq!(core.read(C, now(SECOND)) & (C_IRQF | UPDATE), C_IRQF | UPDATE);
    assert_eq!(core.read(C, now(SECOND)), 0);
}

#[test]
fn alarms_match_with_wildcards() {
    let mut core = Core::new(now(0));
    for (register, value) in [(1, 0x05), (3, 0x32), (5, 0xFF)] {
        core.write(register, value, now(0));
    }
    core.write(B, B_24 | ALARM, now(0));
    core.advance(now(34 * SECOND));
    assert!(!core.interrupt());
    core.advance(now(35 * SECOND));
    assert!(core.interrupt());
    core.read(C, now(35 * SECOND));
    core.advance(now((35 + 3599) * SECOND));
    assert!(!core.interrupt());
    core.advance(now((35 + 3600) * SECOND));
    assert!(core.interrupt(), "every hour");
}

proptest! {
    /// Rate n gives 32768 / 2^(n-1) Hz, but for 1 and 2, which are 256 and 128 Hz.
    #[test]
    fn periodic_rates(rate in 1u8..16) {
        let hertz = match rate { 1 => 256, 2 => 128, _ => 32768u64 >> (rate - 1) };
        let mut core = Core::new(now(0));
        core.write(A, 0x20 | rate, now(0));
        core.write(B, B_24 | PERIODIC, now(0));
        let (mut at, mut count) = (0, 0);
        while let Some(wait) = core.wait(now(at)) && at + wait <= SECOND {
            at += wait;
            core.advance(now(at));
            prop_assert!(core.interrupt());
            core.read(C, now(at));
            count += 1;
        }
        prop_assert_eq!(count, hertz);
    }
}

struct Wall;

impl WallClock for Wall {
    fn unix_ns(&self) -> i128 {
        START
    }
}

fn rtc() -> Arc<Mutex<Rtc>> {
    Rtc::new(RtcConfig {
        clock: ManualClock::new(),
        timers: TimerQueue::new(),
        wall: Arc::new(Wall),
        irq8: IrqLine::unconnected(),
        ram_below_4g: 512 << 20,
        ram_above_4g: 1 << 30,
    })
}

#[test]
fn ports_memory_sizes_and_saved_state() {
    let rtc = rtc();
    let mut rtc = lock(&rtc);
    let mut cmos = |register: u32| {
        rtc.write(Port(0x70), PortWidth::B1, register);
        rtc.read(Port(0x71), PortWidth::B1)
    };
    assert_eq!((cmos(0x15), cmos(0x16)), (640 & 0xFF, 640 >> 8));
    assert_eq!((cmos(0x30), cmos(0x31)), (0xFF, 0xFF));
    assert_eq!((cmos(0x34), cmos(0x35)), (0, (496 << 4) >> 8));
    assert_eq!((cmos(0x5B), cmos(0x5C), cmos(0x5D)), (0, 0x40, 0));
    assert_eq!(cmos(0x0D), 0x80);
    rtc.write(Port(0x70), PortWidth::B1, 0x80 | 0x40);
    rtc.write(Port(0x71), PortWidth::B1, 0x5A);
    assert_eq!(rtc.read(Port(0x71), PortWidth::B1), 0x5A);
    rtc.write(Port(0x70), PortWidth::B1, u32::from(B));
    rtc.write(Port(0x71), PortWidth::B1, u32::from(B_SET));
    let saved = rtc.save();
    let other = self::rtc();
    lock(&other).restore(&saved).expect("its own state");
    assert_eq!(lock(&other).save(), saved);
}
