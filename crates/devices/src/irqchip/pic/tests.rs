use super::registers::*;
use super::*;
use proptest::prelude::*;
use x86::addr::{Port, PortWidth, Vector};

/// ICW1 to ICW4 as PC firmware and kernels write them.
fn initialized() -> Pair {
    let mut pair = Pair::new();
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x30),
        (0x21, 0x04),
        (0x21, 0x01),
        (0xA0, 0x11),
        (0xA1, 0x38),
        (0xA1, 0x02),
        (0xA1, 0x01),
    ] {
        pair.write(Port(port), value);
    }
    pair.settle();
    pair
}

fn ack(pair: &mut Pair) -> u8 {
    let vector = pair.acknowledge();
    pair.settle();
    vector.0
}

fn eoi(pair: &mut Pair, port: Port) -> bool {
    pair.write(port, 0x20);
    pair.settle()
}

proptest! {
    /// With everything requested, vectors come in the order 0, 1, 8…15, 3…7, as far as the masks
    /// let them.
    #[test]
    fn fixed_priorities(requests in any::<u16>(), masks in any::<u16>()) {
        let mut pair = initialized();
        pair.write(Port(0x21), masks as u8);
        pair.write(Port(0xA1), (masks >> 8) as u8);
        (0..16).for_each(|irq| pair.set_input(irq, requests >> irq & 1 != 0));
        let cascade = masks & 1 << CASCADE == 0;
        let order = [0u8, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7];
        let wanted = |irq: &u8| (requests & !masks) >> irq & 1 != 0 && (*irq < 8 || cascade);
        for irq in order.into_iter().filter(wanted) {
            prop_assert!(pair.settle());
            prop_assert_eq!(ack(&mut pair), 0x30 + irq);
            if irq >= 8 {
                eoi(&mut pair, Port(0xA0));
            }
            eoi(&mut pair, Port(0x20));
        }
        prop_assert!(!pair.settle());
    }

    /// Set Priority makes the input after the one named the highest.
    #[test]
    fn rotation(lowest in 0u8..8, requests in 1u8..) {
        let mut pair = initialized();
        pair.write(Port(0x20), 0xC0 | lowest);
        let requests = requests & !(1 << CASCADE);
        (0..8).for_each(|irq| pair.set_input(irq, requests >> irq & 1 != 0));
        let first = (1..=8).map(|n| (lowest + n) & 7).find(|irq| requests >> irq & 1 != 0);
        pair.settle();
        prop_assert_eq!(ack(&mut pair), 0x30 + first.unwrap_or(7));
    }
}

#[test]
fn in_service_blocks_lower_and_lets_higher_through() {
    let mut pair = initialized();
    pair.set_input(4, true);
    assert_eq!(ack(&mut pair), 0x34);
    pair.set_input(5, true);
    assert!(!pair.settle());
    pair.set_input(3, true);
    assert!(pair.settle());
    assert_eq!(ack(&mut pair), 0x33);
    pair.write(Port(0x20), 0x0B);
    assert_eq!(pair.read(Port(0x20)), 0x18, "ISR");
    pair.write(Port(0x20), 0x0A);
    assert_eq!(pair.read(Port(0x20)), 0x20, "IRR");
    assert!(!eoi(&mut pair, Port(0x20)));
    assert!(eoi(&mut pair, Port(0x20)), "now 5");
}

#[test]
fn edges_need_a_rise_and_levels_do_not() {
    let mut pair = initialized();
    pair.set_input(10, true);
    assert!(pair.settle());
    assert_eq!(ack(&mut pair), 0x3A);
    eoi(&mut pair, Port(0xA0));
    assert!(!eoi(&mut pair, Port(0x20)), "edge: once");
    pair.write(Port(0x4D1), 0xFF);
    assert_eq!(pair.read(Port(0x4D1)), 0xDE);
    assert!(pair.settle(), "level: as long as it is up");
    assert_eq!(ack(&mut pair), 0x3A);
    eoi(&mut pair, Port(0xA0));
    assert!(eoi(&mut pair, Port(0x20)));
    pair.set_input(10, false);
    assert!(!pair.settle());
}

#[test]
fn withdrawn_requests_are_spurious() {
    let mut pair = initialized();
    pair.set_input(3, true);
    pair.set_input(3, false);
    assert_eq!(ack(&mut pair), 0x37);
    pair.set_input(12, true);
    assert!(pair.settle());
    pair.slave.set_line(4, false);
    assert_eq!(
        pair.acknowledge(),
        Vector(Vector(0x3F).0),
        "the master still has its request, the slave none"
    );
    pair.write(Port(0xA0), 0x0B);
    assert_eq!(pair.read(Port(0xA0)), 0, "no spurious interrupt in service");
    pair.write(Port(0x20), 0x0B);
    assert_eq!(pair.read(Port(0x20)), 1 << CASCADE);
}

#[test]
fn automatic_eoi_and_its_rotation() {
    let mut pair = initialized();
    for value in [0x11, 0x30, 0x04, 0x03] {
        pair.write(if value == 0x11 { Port(0x20) } else { Port(0x21) }, value);
    }
    pair.set_input(1, true);
    pair.set_input(4, true);
    assert!(!pair.settle() || pair.master.isr == 0);
    pair.set_input(1, false);
    pair.set_input(1, true);
    pair.write(Port(0x20), 0x80);
    assert_eq!(ack(&mut pair), 0x31);
    assert_eq!(pair.master.isr, 0);
    pair.set_input(1, false);
    pair.set_input(1, true);
    pair.set_input(4, false);
    pair.set_input(4, true);
    assert_eq!(ack(&mut pair), 0x34, "1 has become the lowest");
}

#[test]
fn special_mask_mode_lets_lower_through_and_poll_acknowledges() {
    let mut pair = initialized();
    pair.set_input(3, true);
    ack(&mut pair);
    pair.set_input(6, true);
    assert!(!pair.settle());
    pair.write(Port(0x20), 0x68);
    pair.write(Port(0x21), 1 << 3);
    assert!(pair.settle());
    pair.write(Port(0x20), 0x0C);
    assert_eq!(pair.read(Port(0x20)), 0x86);
    pair.write(Port(0x20), 0x0C);
    assert_eq!(pair.read(Port(0x20)), 0);
    eoi(&mut pair, Port(0x20));
    assert_eq!(pair.master.isr, 1 << 3, "a masked input stays in service");
    pair.write(Port(0x20), 0x63);
    assert_eq!(pair.master.isr, 0, "unless named");
}

#[test]
fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    for (icw4, again) in [(0x01, false), (0x11, true)] {
        let mut pair = initialized();
        for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 0x04), (0x21, icw4)] {
            pair.write(Port(port), value);
        }
        pair.set_input(12, true);
        pair.settle();
        assert_eq!(ack(&mut pair), 0x3C);
        pair.set_input(9, true);
        assert_eq!(pair.settle(), again);
    }
}

#[test]
fn initialization_words_can_be_skipped_and_state_survives() {
    let pic = PicPair::new(IrqLine::unconnected());
    pic.write(Port(0x20), PortWidth::B1, 0x12);
    pic.write(Port(0x21), PortWidth::B1, 0x45);
    pic.write(Port(0x21), PortWidth::B1, 0xF0);
    assert_eq!(pic.read(Port(0x21), PortWidth::B1), 0xF0, "no ICW3, no ICW4: this was OCW1");
    pic.set_input(1, true);
    assert_eq!(pic.acknowledge(), Vector(0x41));
    let saved = pic.save();
    let other = PicPair::new(IrqLine::unconnected());
    other.restore(&saved).expect("its own state");
    assert_eq!(other.save(), saved);
}
