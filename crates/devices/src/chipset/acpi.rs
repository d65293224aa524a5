//! ACPI fixed hardware: PM1a event and control blocks, PM timer.
use crate::bus::PioDevice;
use crate::irq::IrqLine;
use crate::power::PowerSink;
use crate::time::{Clock, ExpireMut, TimerQueue};
use std::sync::{Arc, Mutex};

/// The PM timer's frequency in Hz.
pub const PM_TIMER_HZ: u64 = 3_579_545;

/// The ACPI fixed hardware in one block of 16 ports: +0 PM1a_EVT (status, enable; 4 bytes), +4 PM1a_CNT (2), +8 PM_TMR (4).
#[derive(Debug)]
pub struct AcpiPm {}

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

    /// At port `base`, in ACPI mode (SCI_EN set, no SMI_CMD). `sci` is level-triggered (the MADT says so). With
    /// `timer_32_bit` the timer counts to 2^32 (FADT.TMR_VAL_EXT), else to 2^24.
    pub fn new(
        base: u16,
        clock: Arc<dyn Clock>,
        timers: &Arc<TimerQueue>,
        sci: IrqLine,
        power: PowerSink,
        timer_32_bit: bool,
    ) -> Arc<Mutex<Self>> {
        let _ = (base, clock, timers, sci, power, timer_32_bit);
        Arc::new(Mutex::new(Self {}))
    }

    /// The power button was pressed.
    pub fn press_power_button(&mut self) {}
}

impl PioDevice for AcpiPm {
    fn read(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn write(&mut self, _port: u16, _size: u8, _value: u32) {}
    fn max_width(&self) -> u8 {
        4
    }
}

impl ExpireMut for AcpiPm {
    fn expired(&mut self, _now: u64) {}
}
