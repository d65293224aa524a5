//! The chipset: timers, clock, serial line, keyboard controller, power management, small ports.
//!
//! Every constructor returns what [`crate::bus::Bus::add_pio`] takes; the device is told absolute
//! port numbers.

mod acpi;
mod i8042;
mod pit;
mod ports;
mod rtc;
mod uart;

pub use acpi::{AcpiPm, AcpiPmState};
pub use i8042::{I8042, I8042State};
pub use pit::{CounterState, Pit, PitState};
pub use ports::{DebugExit, FastA20, LatchState, PostPort, ResetPort};
pub use rtc::{HeldTime, Rtc, RtcConfig, RtcState, SystemWallClock, WallClock};
pub use uart::{Uart, UartConfig, UartState};
