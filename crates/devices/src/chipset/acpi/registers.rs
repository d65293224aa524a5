//! Bits of ACPI's fixed hardware (ACPI 6.5, 4.8.3).

/// PM1_STS and PM1_EN: the timer's top bit has changed.
pub(super) const TMR: u16 = 1 << 0;
/// PM1_STS and PM1_EN: global lock released.
pub(super) const GBL: u16 = 1 << 5;
/// PM1_STS and PM1_EN: power button.
pub(super) const PWRBTN: u16 = 1 << 8;
/// PM1_STS and PM1_EN: sleep button and RTC alarm, which never happen here.
pub(super) const SLPBTN: u16 = 1 << 9;
pub(super) const RTC: u16 = 1 << 10;
/// The enable bits that exist.
pub(super) const ENABLES: u16 = TMR | GBL | PWRBTN | SLPBTN | RTC;

/// PM1_CNT: SCI_EN.
pub(super) const SCI_EN: u16 = 1 << 0;
/// PM1_CNT: bus master reload, kept without effect.
pub(super) const BM_RLD: u16 = 1 << 1;
/// PM1_CNT: SLP_TYP.
pub(super) const SLP_TYP: u16 = 7 << 10;
/// PM1_CNT: SLP_EN, write-only.
pub(super) const SLP_EN: u16 = 1 << 13;

/// PM1_STS: what happens here.
pub(super) const EVENTS: u16 = TMR | PWRBTN;

/// Offset of PM1a_EVT in the block: status, then enable.
pub(super) const PM1A_EVT: u16 = 0;
/// Offset of PM1a_CNT in the block.
pub(super) const PM1A_CNT: u16 = 4;
/// Offset of PM_TMR in the block.
pub(super) const PM_TMR: u16 = 8;
/// The value of SLP_TYP that means S5; the DSDT's \_S5 says it too.
pub(super) const SLP_TYP_S5: u8 = 5;
/// Where SLP_TYP begins.
pub(super) const SLP_TYP_SHIFT: u32 = 10;
