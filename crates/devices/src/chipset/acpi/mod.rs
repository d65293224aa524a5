//! ACPI fixed hardware (ACPI 6.5, 4.8): PM1a event and control blocks, PM timer.
//!
//! The machine is always in ACPI mode: SCI_EN is set and there is no SMI command port.

mod core;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use saved::AcpiPmState;
use x86::addr::{Port, PortWidth};

use self::core::Core;
use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::power::{PowerEvent, PowerSink};
use crate::saved::RestoreError;
use crate::time::{Clock, Expire, ExpireMut, Timer, TimerQueue};
use std::sync::{Arc, Mutex};

/// The ACPI fixed hardware in one block of 16 ports: +0 PM1a_EVT (status, enable; 4 bytes), +4
/// PM1a_CNT (2), +8 PM_TMR (4).
#[derive(Debug)]
pub struct AcpiPm {
    core: Core,
    base: Port,
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

impl AcpiPm {
    /// The value of SLP_TYP that means S5; the DSDT's \_S5 says it too.
    pub const SLP_TYP_S5: u8 = registers::SLP_TYP_S5;
    /// Offset of PM1a_EVT in the block.
    pub const PM1A_EVT: u16 = registers::PM1A_EVT;
    /// Offset of PM1a_CNT in the block.
    pub const PM1A_CNT: u16 = registers::PM1A_CNT;
    /// Offset of PM_TMR in the block.
    pub const PM_TMR: u16 = registers::PM_TMR;
    /// Length of the block in ports.
    pub const PORTS: u16 = 16;

    /// At port `base`, in ACPI mode (SCI_EN set, no SMI_CMD). `sci` is level-triggered (the MADT
    /// says so). With `timer_32_bit` the timer counts to 2^32 (FADT.TMR_VAL_EXT), else to 2^24.
    pub fn new(
        base: Port,
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
        self.core.status |= registers::PWRBTN;
        self.drive();
    }

    /// The saved state, with the SCI driven up to now: save the chips that it leads to afterwards.
    pub fn save(&mut self) -> AcpiPmState {
        self.drive();
        let Self { core, base: _, clock: _, timer: _, sci: _, power: _ } = self;
        core.save()
    }

    /// Goes on from `state`, and drives the SCI and the timer.
    ///
    /// # Errors
    /// The state is another version's or no ACPI hardware's; nothing was changed.
    pub fn restore(&mut self, state: &AcpiPmState) -> Result<(), RestoreError> {
        self.core = Core::restored(state, self.core.timer_bits)?;
        self.drive();
        Ok(())
    }

    fn drive(&mut self) {
        let now = self.clock.0.now();
        self.core.advance(now);
        self.sci.set(self.core.sci());
        self.timer.set(self.core.deadline(now));
    }
}

impl PioDevice for AcpiPm {
    fn read(&mut self, port: Port, width: PortWidth) -> u32 {
        self.drive();
        let offset = port.0.wrapping_sub(self.base.0);
        let now = self.clock.0.now();
        let low = u64::from(self.core.dword(offset & !3, now));
        let high = u64::from(self.core.dword((offset & !3).wrapping_add(4), now));
        let value = (high << 32 | low) >> ((offset & 3) * 8);
        value as u32 & width.mask()
    }

    fn write(&mut self, port: Port, width: PortWidth, value: u32) {
        self.drive();
        let offset = port.0.wrapping_sub(self.base.0);
        let mut off = false;
        for (index, byte) in (0u16..).zip(value.to_le_bytes()).take(width.bytes()) {
            off |= self.core.write(offset.wrapping_add(index), byte);
        }
        self.drive();
        if off {
            self.power.send(PowerEvent::PowerOff);
        }
    }

    fn max_width(&self) -> PortWidth {
        PortWidth::B4
    }
}

impl ExpireMut for AcpiPm {
    fn expired(&mut self, _now: u64) {
        self.drive();
    }
}
