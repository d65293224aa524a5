use super::*;
use crate::bus::Bus;
use sync::lock;
use x86::addr::{Port, PortWidth};

type Events = Arc<Mutex<Vec<PowerEvent>>>;

fn sink() -> (PowerSink, Events) {
    let events = Events::default();
    let noted = Arc::clone(&events);
    (PowerSink::new(move |event| lock(&noted).push(event)), events)
}

#[test]
fn the_reset_register_resets_on_the_rise_of_rst_cpu() {
    let (power, events) = sink();
    let mut bus = Bus::new();
    bus.add_byte_port("reset", Port(0xCF9), ResetPort::new(power)).unwrap();
    bus.pio_write(Port(0xCF9), PortWidth::B1, 0x02);
    assert_eq!(bus.pio_read(Port(0xCF9), PortWidth::B1), 0x02);
    assert!(lock(&events).is_empty());
    bus.pio_write(Port(0xCF9), PortWidth::B1, 0x06);
    assert_eq!(*lock(&events), [PowerEvent::Reset]);
    bus.pio_write(Port(0xCF9), PortWidth::B1, 0x0E);
    assert_eq!(lock(&events).len(), 2);
}

#[test]
fn a_pci_configuration_address_is_no_reset() {
    let (power, events) = sink();
    let mut bus = Bus::new();
    bus.add_byte_port("reset", Port(0xCF9), ResetPort::new(power)).unwrap();
    bus.pio_write(Port(0xCF8), PortWidth::B4, 0x8000_FFFC);
    bus.pio_write(Port(0xCF8), PortWidth::B2, 0x06FF);
    bus.pio_write(Port(0xCF9), PortWidth::B2, 0x0006);
    bus.pio_write(Port(0xCFB), PortWidth::B1, 0x06);
    assert_eq!(
        (bus.pio_read(Port(0xCF8), PortWidth::B4), bus.pio_read(Port(0xCFB), PortWidth::B1)),
        (u32::MAX, 0xFF)
    );
    assert!(lock(&events).is_empty());
    // A PCI root may have all of these ports beside it.
    let root = PostPort::new();
    bus.add_pio("root", Port(0xCF8)..=Port(0xCFF), Arc::clone(&root) as _).unwrap();
    bus.pio_write(Port(0xCF9), PortWidth::B1, 0x02);
    bus.pio_write(Port(0xCF8), PortWidth::B4, 0x5A06_0606);
    assert_eq!(
        (bus.pio_read(Port(0xCF9), PortWidth::B1), bus.pio_read(Port(0xCF8), PortWidth::B1)),
        (0x02, 0x5A)
    );
    assert!(lock(&events).is_empty());
}

#[test]
fn debug_exit_is_one_event_with_the_low_byte() {
    let (power, events) = sink();
    let mut bus = Bus::new();
    bus.add_pio("debug exit", Port(0xF4)..=Port(0xF7), DebugExit::new(power)).unwrap();
    bus.pio_write(Port(0xF4), PortWidth::B1, 0x10);
    bus.pio_write(Port(0xF4), PortWidth::B4, 0x2A);
    assert_eq!(*lock(&events), [PowerEvent::DebugExit(0x10), PowerEvent::DebugExit(0x2A)]);
}

#[test]
fn a20_is_always_open_and_fast_init_resets() {
    let (power, events) = sink();
    let port = FastA20::new(power);
    let mut port = lock(&port);
    port.write(Port(0x92), PortWidth::B1, 0x00);
    assert_eq!(port.read(Port(0x92), PortWidth::B1), 0x02);
    port.write(Port(0x92), PortWidth::B1, 0x01);
    assert_eq!(*lock(&events), [PowerEvent::Reset]);
}

#[test]
fn latches_keep_their_state() {
    let (power, _) = sink();
    let (post, reset, a20) =
        (PostPort::new(), ResetPort::new(power.clone()), FastA20::new(power.clone()));
    lock(&post).write(Port(0x80), PortWidth::B1, 0x5A);
    lock(&reset).write(Port(0xCF9), PortWidth::B1, 0x0A);
    lock(&a20).write(Port(0x92), PortWidth::B1, 0xC0);
    let others = (PostPort::new(), ResetPort::new(power.clone()), FastA20::new(power));
    lock(&others.0).restore(&lock(&post).save()).expect("its own state");
    lock(&others.1).restore(&lock(&reset).save()).expect("its own state");
    lock(&others.2).restore(&lock(&a20).save()).expect("its own state");
    assert_eq!(lock(&others.0).read(Port(0x80), PortWidth::B1), 0x5A);
    assert_eq!(lock(&others.1).read(Port(0xCF9), PortWidth::B1), 0x0A);
    assert_eq!(lock(&others.2).read(Port(0x92), PortWidth::B1), 0xC2);
}
