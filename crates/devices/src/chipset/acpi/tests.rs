use super::registers::*;
use super::*;
use crate::time::{ManualClock, SECOND};
use sync::lock;
use x86::addr::{Port, PortWidth};

type Parts = (Arc<ManualClock>, Arc<TimerQueue>, Arc<Mutex<Vec<PowerEvent>>>, Arc<Mutex<AcpiPm>>);

fn pm() -> Parts {
    let (clock, timers) = (ManualClock::new(), TimerQueue::new());
    let events = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&events);
    let power = PowerSink::new(move |event| lock(&noted).push(event));
    let sci = IrqLine::unconnected();
    let pm = AcpiPm::new(Port(0x600), Arc::clone(&clock) as _, &timers, sci, power, false);
    (clock, timers, events, pm)
}

#[test]
fn soft_off_and_no_other_sleep_state() {
    let (_, _, events, pm) = pm();
    let mut pm = lock(&pm);
    pm.write(Port(0x604), PortWidth::B2, 1 << 10 | u32::from(SLP_EN));
    pm.write(Port(0x604), PortWidth::B2, 5 << 10);
    assert!(lock(&events).is_empty());
    assert_eq!(pm.read(Port(0x604), PortWidth::B2), 5 << 10 | 1, "SLP_EN reads as 0, SCI_EN as 1");
    pm.write(Port(0x605), PortWidth::B1, (5 << 10 | u32::from(SLP_EN)) >> 8);
    assert_eq!(*lock(&events), [PowerEvent::PowerOff]);
}

#[test]
fn the_timer_counts_and_its_top_bit_interrupts() {
    let (clock, timers, _, pm) = pm();
    clock.set(SECOND);
    assert_eq!(lock(&pm).read(Port(0x608), PortWidth::B4), 3_579_545);
    lock(&pm).write(Port(0x602), PortWidth::B2, u32::from(TMR));
    // 2^23 ticks.
    let at = timers.next_deadline().unwrap();
    assert_eq!(at, (1u64 << 23) * 1_000_000_000 / 3_579_545 + 1);
    clock.set(at);
    timers.expire(at);
    assert!(lock(&pm).core.sci());
    assert_eq!(lock(&pm).read(Port(0x600), PortWidth::B4), 0x0001_0001);
    lock(&pm).write(Port(0x600), PortWidth::B2, u32::from(TMR));
    assert!(!lock(&pm).core.sci());
    assert_eq!(timers.next_deadline(), Some((1u64 << 24) * 1_000_000_000 / 3_579_545 + 1));
}

#[test]
fn power_button_and_saved_state() {
    let (_, _, _, pm) = pm();
    lock(&pm).write(Port(0x602), PortWidth::B2, u32::from(PWRBTN));
    lock(&pm).press_power_button();
    assert!(lock(&pm).core.sci());
    let saved = lock(&pm).save();
    let (_, _, _, other) = self::pm();
    lock(&other).restore(&saved).expect("its own state");
    assert_eq!(lock(&other).save(), saved);
}
