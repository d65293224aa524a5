use super::core::*;
use super::registers::*;
use super::*;
use sync::lock;
use x86::addr::{Port, PortWidth};

#[test]
fn self_test_command_byte_and_absent_devices() {
    let mut core = Core::new();
    core.command(0xAA);
    assert_eq!((core.read_status() & OBF, core.read_data()), (OBF, 0x55));
    assert_eq!(core.read_status() & OBF, 0);
    core.command(0x60);
    core.data(0x05);
    core.command(0x20);
    assert_eq!(core.read_data(), 0x05);
    core.data(0xED);
    assert_eq!(core.read_status() & (OBF | AUX | TIMEOUT), OBF | TIMEOUT);
    assert!(core.interrupt());
    assert_eq!(core.read_data(), RESEND);
    core.command(0xD4);
    core.data(0xF2);
    assert_eq!(core.read_status() & (OBF | AUX | TIMEOUT), OBF | AUX | TIMEOUT);
    assert!(!core.interrupt());
}

#[test]
fn reset_lines_and_saved_state() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&events);
    let power = PowerSink::new(move |event| lock(&noted).push(event));
    let chip = I8042::new(power.clone(), IrqLine::unconnected());
    let mut chip = lock(&chip);
    chip.write(Port(0x64), PortWidth::B1, 0xFE);
    assert_eq!(*lock(&events), [PowerEvent::Reset]);
    chip.write(Port(0x64), PortWidth::B1, 0xFF);
    chip.write(Port(0x64), PortWidth::B1, 0xD1);
    chip.write(Port(0x60), PortWidth::B1, 0x03);
    assert_eq!(lock(&events).len(), 1);
    chip.write(Port(0x64), PortWidth::B1, 0xD1);
    let saved = chip.save();
    let other = I8042::new(power, IrqLine::unconnected());
    lock(&other).restore(&saved).expect("its own state");
    assert_eq!(lock(&other).save(), saved);
    lock(&other).write(Port(0x60), PortWidth::B1, 0x02);
    assert_eq!(lock(&events).len(), 2);
}
