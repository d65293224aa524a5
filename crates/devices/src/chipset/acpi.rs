//! ACPI fixed hardware (ACPI 6.5, 4.8): PM1a event and control blocks, PM timer.
//!
//! The machine is always in ACPI mode: SCI_EN is set and there is no SMI command port.

use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::power::{PowerEvent, PowerSink};
use crate::time::{Clock, Expire, ExpireMut, SECOND, Timer, TimerQueue};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// The PM timer's frequency in Hz.
pub const PM_TIMER_HZ: u64 = 3_579_545;

/// PM1_STS and PM1_EN: the timer's top bit has changed.
const TMR: u16 = 1 << 0;
/// PM1_STS and PM1_EN: global lock released.
const GBL: u16 = 1 << 5;
/// PM1_STS and PM1_EN: power button.
const PWRBTN: u16 = 1 << 8;
/// PM1_STS and PM1_EN: sleep button and RTC alarm, which never happen here.
const SLPBTN: u16 = 1 << 9;
const RTC: u16 = 1 << 10;
/// The enable bits that exist.
const ENABLES: u16 = TMR | GBL | PWRBTN | SLPBTN | RTC;

/// PM1_CNT: SCI_EN.
const SCI_EN: u16 = 1 << 0;
/// PM1_CNT: bus master reload, kept without effect.
const BM_RLD: u16 = 1 << 1;
/// PM1_CNT: SLP_TYP.
const SLP_TYP: u16 = 7 << 10;
/// PM1_CNT: SLP_EN, write-only.
const SLP_EN: u16 = 1 << 13;

/// The registers. Its fields are its saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Core {
    status: u16,
    enable: u16,
    control: u16,
    timer_bits: u32,
    /// The timer's top bit when it was last looked at.
    top: bool,
}

impl Core {
    fn new(timer_bits: u32) -> Self {
        Self { status: 0, enable: 0, control: SCI_EN, timer_bits, top: false }
    }

    fn ticks(ns: u64) -> u128 {
        u128::from(ns) * u128::from(PM_TIMER_HZ) / u128::from(SECOND)
    }

    fn timer(&self, ns: u64) -> u32 {
        (Self::ticks(ns) & ((1 << self.timer_bits) - 1)) as u32
    }

    /// Notes a change of the timer's top bit.
    fn advance(&mut self, ns: u64) {
        let top = self.timer(ns) >> (self.timer_bits - 1) != 0;
        if top != self.top {
            self.status |= TMR;
        }
        self.top = top;
    }

    /// When the top bit changes next, if that interrupts.
    fn deadline(&self, ns: u64) -> Option<u64> {
        let half = self.timer_bits - 1;
        let next = ((Self::ticks(ns) >> half) + 1) << half;
        let at = (next * u128::from(SECOND)).div_ceil(u128::from(PM_TIMER_HZ));
        (self.enable & TMR != 0 && self.status & TMR == 0).then_some(at as u64)
    }

    fn sci(&self) -> bool {
        self.status & self.enable != 0
    }

    /// The aligned dword at `offset`.
    fn dword(&self, offset: u16, ns: u64) -> u32 {
        match offset {
            AcpiPm::PM1A_EVT => u32::from(self.status) | u32::from(self.enable) << 16,
            AcpiPm::PM1A_CNT => u32::from(self.control),
            AcpiPm::PM_TMR => self.timer(ns),
            _ => 0,
        }
    }

    /// Writes one byte; true if it asks for soft off. SLP_TYP and SLP_EN share a byte.
    fn write(&mut self, offset: u16, byte: u8) -> bool {
        let value = u16::from(byte);
        match offset {
            0 => self.status &= !value,
            1 => self.status &= !(value << 8),
            2 => self.enable = (self.enable & 0xFF00 | value) & ENABLES,
            3 => self.enable = (self.enable & 0x00FF | value << 8) & ENABLES,
            4 => self.control = self.control & 0xFF00 | SCI_EN | value & BM_RLD,
            5 => {
                self.control = self.control & 0x00FF | value << 8 & SLP_TYP;
                return value << 8 & SLP_EN != 0 && self.sleep();
            }
            _ => {}
        }
        false
    }

    fn sleep(&self) -> bool {
        let kind = (self.control & SLP_TYP) >> 10;
        if kind != u16::from(AcpiPm::SLP_TYP_S5) {
            tracing::warn!(target: "power", kind, "the guest asked for a sleep state that is not there");
        }
        kind == u16::from(AcpiPm::SLP_TYP_S5)
    }
}

/// The ACPI fixed hardware in one block of 16 ports: +0 PM1a_EVT (status, enable; 4 bytes), +4
/// PM1a_CNT (2), +8 PM_TMR (4).
#[derive(Debug)]
pub struct AcpiPm {
    core: Core,
    base: u16,
    clock: HiddenClock,
    timer: Timer,
    sci: IrqLine,
    power: PowerSink,
}

/// A clock with nothing to print.
struct HiddenClock(Arc<dyn Clock>);

impl std::fmt::Debug for HiddenClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ns", self.0.now())
    }
}

/// The state of the ACPI fixed hardware, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcpiPmState {
    /// 1.
    pub version: u32,
    core: Core,
}

impl AcpiPm {
    /// The value of SLP_TYP that means S5; the DSDT's \_S5 says it too.
    pub const SLP_TYP_S5: u8 = 5;
    /// Offset of PM1a_EVT in the block.
    pub const PM1A_EVT: u16 = 0;
    /// Offset of PM1a_CNT in the block.
    pub const PM1A_CNT: u16 = 4;
    /// Offset of PM_TMR in the block.
    pub const PM_TMR: u16 = 8;
    /// Length of the block in ports.
    pub const PORTS: u16 = 16;

    /// At port `base`, in ACPI mode (SCI_EN set, no SMI_CMD). `sci` is level-triggered (the MADT
    /// says so). With `timer_32_bit` the timer counts to 2^32 (FADT.TMR_VAL_EXT), else to 2^24.
    pub fn new(
        base: u16,
        clock: Arc<dyn Clock>,
        timers: &Arc<TimerQueue>,
        sci: IrqLine,
        power: PowerSink,
        timer_32_bit: bool,
    ) -> Arc<Mutex<Self>> {
        let timer = timers.timer("acpi");
        let core = Core::new(if timer_32_bit { 32 } else { 24 });
        let clock = HiddenClock(clock);
        let pm = Arc::new(Mutex::new(Self { core, base, clock, timer: timer.clone(), sci, power }));
        let owner: Arc<dyn Expire> = Arc::clone(&pm) as _;
        timer.connect(Arc::downgrade(&owner));
        pm
    }

    /// The power button was pressed: asks the guest to shut down.
    pub fn press_power_button(&mut self) {
        self.core.status |= PWRBTN;
        self.drive();
    }

    /// A reset.
    pub fn reset(&mut self) {
        self.core = Core { top: self.core.top, ..Core::new(self.core.timer_bits) };
        self.drive();
    }

    /// The saved state.
    pub fn save(&self) -> AcpiPmState {
        let Self { core, base: _, clock: _, timer: _, sci: _, power: _ } = self;
        AcpiPmState { version: 1, core: core.clone() }
    }

    /// Takes over `state`, and drives the SCI and the timer.
    pub fn restore(&mut self, state: &AcpiPmState) {
        let AcpiPmState { version: _, core } = state.clone();
        let timer_bits = core.timer_bits.clamp(24, 32);
        self.core = Core { timer_bits, ..core };
        self.drive();
    }

    fn drive(&mut self) {
        let now = self.clock.0.now();
        self.core.advance(now);
        self.sci.set(self.core.sci());
        self.timer.set(self.core.deadline(now));
    }
}

impl PioDevice for AcpiPm {
    fn read(&mut self, port: u16, size: u8) -> u32 {
        self.drive();
        let offset = port.wrapping_sub(self.base);
        let now = self.clock.0.now();
        let low = u64::from(self.core.dword(offset & !3, now));
        let high = u64::from(self.core.dword((offset & !3).wrapping_add(4), now));
        let value = (high << 32 | low) >> ((offset & 3) * 8);
        value as u32 & if size >= 4 { u32::MAX } else { (1 << (size * 8)) - 1 }
    }

    fn write(&mut self, port: u16, size: u8, value: u32) {
        self.drive();
        let offset = port.wrapping_sub(self.base);
        let mut off = false;
        for (index, byte) in (0u16..).zip(value.to_le_bytes()).take(usize::from(size)) {
            off |= self.core.write(offset.wrapping_add(index), byte);
        }
        self.drive();
        if off {
            self.power.send(PowerEvent::PowerOff);
        }
    }

    fn max_width(&self) -> u8 {
        4
    }
}

impl ExpireMut for AcpiPm {
    fn expired(&mut self, _now: u64) {
        self.drive();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::lock;
    use crate::time::ManualClock;

    type Parts =
        (Arc<ManualClock>, Arc<TimerQueue>, Arc<Mutex<Vec<PowerEvent>>>, Arc<Mutex<AcpiPm>>);

    fn pm() -> Parts {
        let (clock, timers) = (ManualClock::new(), TimerQueue::new());
        let events = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&events);
        let power = PowerSink::new(move |event| lock(&noted).push(event));
        let sci = IrqLine::unconnected();
        let pm = AcpiPm::new(0x600, Arc::clone(&clock) as _, &timers, sci, power, false);
        (clock, timers, events, pm)
    }

    #[test]
    fn soft_off_and_no_other_sleep_state() {
        let (_, _, events, pm) = pm();
        let mut pm = lock(&pm);
        pm.write(0x604, 2, 1 << 10 | u32::from(SLP_EN));
        pm.write(0x604, 2, 5 << 10);
        assert!(lock(&events).is_empty());
        assert_eq!(pm.read(0x604, 2), 5 << 10 | 1, "SLP_EN reads as 0, SCI_EN as 1");
        pm.write(0x605, 1, (5 << 10 | u32::from(SLP_EN)) >> 8);
        assert_eq!(*lock(&events), [PowerEvent::PowerOff]);
    }

    #[test]
    fn the_timer_counts_and_its_top_bit_interrupts() {
        let (clock, timers, _, pm) = pm();
        clock.set(SECOND);
        assert_eq!(lock(&pm).read(0x608, 4), 3_579_545);
        lock(&pm).write(0x602, 2, u32::from(TMR));
        // 2^23 ticks.
        let at = timers.next_deadline().unwrap();
        assert_eq!(at, (1u64 << 23) * 1_000_000_000 / 3_579_545 + 1);
        clock.set(at);
        timers.expire(at);
        assert!(lock(&pm).core.sci());
        assert_eq!(lock(&pm).read(0x600, 4), 0x0001_0001);
        lock(&pm).write(0x600, 2, u32::from(TMR));
        assert!(!lock(&pm).core.sci());
        assert_eq!(timers.next_deadline(), Some((1u64 << 24) * 1_000_000_000 / 3_579_545 + 1));
    }

    #[test]
    fn power_button_and_saved_state() {
        let (_, _, _, pm) = pm();
        lock(&pm).write(0x602, 2, u32::from(PWRBTN));
        lock(&pm).press_power_button();
        assert!(lock(&pm).core.sci());
        let saved = lock(&pm).save();
        let (_, _, _, other) = self::pm();
        lock(&other).restore(&saved);
        assert_eq!(lock(&other).save(), saved);
    }
}
