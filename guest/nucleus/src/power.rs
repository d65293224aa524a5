//! The end: soft off as the firmware's tables say, or a result for whoever runs the tests.

use crate::acpi::{PowerButton, SoftOff};
use crate::cpu::{self, inw, outb, outw};
use crate::{apic, clock, console, physical, tables};

/// The debug-exit port: the program that runs the machine ends with `code << 1 | 1`.
const DEBUG_EXIT: u16 = 0xF4;
/// Codes for it.
pub const PASSED: u8 = 0x10;
pub const FAILED: u8 = 0x11;
const BROKEN: u8 = 0x12;

/// PM1 status and enable: the power button.
const PRESSED: u16 = 1 << 8;

/// Has the power button interrupt.
pub fn listen(button: PowerButton) {
    outw(button.status, PRESSED);
    outw(button.enable, PRESSED);
    apic::connect_level(button.sci, tables::POWER);
}

/// Whether the power button was pressed; other reasons for its interrupt are switched off.
pub fn was_pressed(button: PowerButton) -> bool {
    let pressed = inw(button.status) & PRESSED != 0;
    outw(button.status, u16::MAX);
    outw(button.enable, PRESSED);
    pressed
}

/// Powers off.
pub fn off(how: Option<SoftOff>) -> ! {
    console::flush();
    match how {
        Some(SoftOff::Pm1a(port, value)) => outw(port, value),
        Some(SoftOff::SleepControl(register, value)) => physical::set8(register, value),
        None => {}
    }
    clock::spin(100_000);
    exit(0)
}

/// Leaves with a result; halts where there is no debug-exit port.
pub fn exit(code: u8) -> ! {
    console::flush();
    outb(DEBUG_EXIT, code);
    cpu::halt()
}

/// The nucleus cannot go on.
pub fn fail() -> ! {
    exit(BROKEN)
}
