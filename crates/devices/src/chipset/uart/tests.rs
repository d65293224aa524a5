use super::core::*;
use super::registers::*;
use super::*;
use crate::time::ManualClock;
use std::sync::atomic::{AtomicU32, Ordering};
use sync::lock;
use x86::addr::{Port, PortWidth};

/// A terminal: what was sent.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn uart() -> (Arc<ManualClock>, Arc<TimerQueue>, Sink, Arc<Mutex<Uart>>) {
    let (clock, timers, sink) = (ManualClock::new(), TimerQueue::new(), Sink::default());
    let uart = Uart::new(UartConfig {
        base: Port(0x3F8),
        clock: Arc::clone(&clock) as _,
        timers: Arc::clone(&timers),
        irq: IrqLine::unconnected(),
        output: Box::new(sink.clone()),
    });
    (clock, timers, sink, uart)
}

/// FIFO on with trigger level 8, DTR, RTS and OUT2 up, receive interrupt on.
fn listen(core: &mut Core) {
    core.write(2, 0x81, 0);
    core.write(4, 0x0B, 0);
    core.write(1, IER_RDA, 0);
}

#[test]
fn priorities_of_the_interrupts() {
    let mut core = Core::new();
    core.write(2, 0x01, 0);
    core.write(4, 0x10, 0);
    for byte in 0..17 {
        core.write(0, byte, 0);
    }
    core.write(4, 0x08, 0);
    core.write(1, 0x0F, 0);
    assert!(core.interrupt());
    assert_eq!(core.read(2, 0), 0xC6, "overrun first");
    assert_eq!(core.read(5, 0), 0x63);
    assert_eq!(core.read(2, 0), 0xC4, "then data");
    (0..16).for_each(|byte| assert_eq!(core.read(0, 0), byte));
    assert_eq!(core.read(2, 0), 0xC2, "then THRE, which reading IIR clears");
    assert_eq!(core.read(2, 0), 0xC0, "then the modem lines");
    core.read(6, 0);
    assert_eq!(core.read(2, 0), 0xC1);
    assert!(core.let_go(), "held up for a driver that fills the FIFO");
    assert!(!core.interrupt());
}

#[test]
fn thre_rises_again_on_each_enable_and_each_write() {
    let mut core = Core::new();
    core.write(4, 0x08, 0);
    for _ in 0..2 {
        core.write(1, IER_THRE, 0);
        assert_eq!((core.interrupt(), core.read(2, 0), core.read(2, 0)), (true, 0x02, 0x01));
        core.write(1, 0, 0);
    }
    core.write(1, IER_THRE, 0);
    core.read(2, 0);
    assert_eq!(core.write(0, b'x', 0), Some(b'x'));
    assert!(core.interrupt());
    core.write(4, 0, 0);
    assert!(!core.interrupt(), "OUT2 connects the interrupt");
}

#[test]
fn loopback_turns_the_modem_lines_around() {
    let mut core = Core::new();
    assert_eq!(core.read(6, 0), 0xB0);
    for (mcr, lines) in [(0x1A, 0x90), (0x11, 0x20), (0x14, 0x40)] {
        core.write(4, mcr, 0);
        assert_eq!(core.read(6, 0) & 0xF0, lines);
    }
    core.write(4, 0x10, 0);
    assert_eq!(core.read(6, 0), 0x04, "the end of ringing");
    assert_eq!(core.read(6, 0), 0x00);
    assert_eq!(core.write(0, b'l', 0), None, "nothing leaves");
    assert_eq!(core.read(0, 0), b'l');
}

#[test]
fn divisor_scratch_and_fifo_identification() {
    let mut core = Core::new();
    assert_eq!(core.read(2, 0), 0x01, "no FIFO after reset");
    core.write(3, 0x83, 0);
    core.write(0, 0x34, 0);
    core.write(1, 0x12, 0);
    assert_eq!((core.read(0, 0), core.read(1, 0)), (0x34, 0x12));
    core.write(3, 0x03, 0);
    assert_eq!((core.read(0, 0), core.read(1, 0)), (0, 0));
    core.write(7, 0xA5, 0);
    assert_eq!(core.read(7, 0), 0xA5);
    core.write(2, 0xC1, 0);
    assert_eq!(core.read(2, 0), 0xC1);
}

#[test]
fn input_waits_until_the_guest_listens_and_drains() {
    let (_, _, _, uart) = uart();
    let rung = Arc::new(AtomicU32::new(0));
    let bell = Arc::clone(&rung);
    let mut uart = lock(&uart);
    uart.on_drain(move || {
        bell.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(uart.receive(b"early"), 0);
    for (port, value) in [(0x3FA, 0x81), (0x3FC, 0x0B), (0x3F9, 0x01)] {
        uart.write(Port(port), PortWidth::B1, value);
    }
    assert_eq!(rung.load(Ordering::SeqCst), 1);
    assert_eq!(uart.receive(&[b'a'; 20]), 16);
    assert_eq!((uart.wants_input(), uart.receive(b"x")), (0, 0));
    for left in (0..16).rev() {
        assert_eq!(uart.read(Port(0x3F8), PortWidth::B1), u32::from(b'a'));
        let (rings, room) = if left == 0 { (2, 16) } else { (1, 0) };
        assert_eq!((rung.load(Ordering::SeqCst), uart.wants_input()), (rings, room), "{left}");
    }
    uart.write(Port(0x3FC), PortWidth::B1, 0x09);
    assert_eq!(uart.wants_input(), 0, "RTS down");
}

#[test]
fn a_polling_guest_gets_input_too() {
    let mut core = Core::new();
    for _ in 0..32 {
        assert_eq!(core.room(), 0);
        assert_eq!(core.read(5, 0) & LSR_DR, 0);
    }
    assert_eq!(core.room(), 1);
    core.write(0, b'>', 0);
    assert_eq!(core.room(), 0, "sending is no sign of listening");
}

#[test]
fn few_bytes_interrupt_after_four_character_times() {
    let mut core = Core::new();
    core.write(3, 0x83, 0);
    core.write(0, 1, 0);
    core.write(1, 0, 0);
    core.write(3, 0x03, 0);
    listen(&mut core);
    core.receive(b'a', 1000);
    assert!(!core.interrupt(), "below the trigger level");
    // 10 bits at 115200 baud are 86.8 µs.
    let at = core.timeout_at().unwrap();
    assert_eq!(at, 1000 + 4 * 86_805);
    core.advance(at - 1);
    assert!(!core.interrupt());
    core.advance(at);
    assert_eq!((core.interrupt(), core.read(2, at)), (true, 0xCC));
    core.read(0, at);
    assert!(!core.interrupt());
    (0..8).for_each(|byte| core.receive(byte, at));
    assert_eq!((core.interrupt(), core.read(2, at)), (true, 0xC4), "at the trigger level");
}

#[test]
fn output_reaches_the_sink_and_state_survives() {
    let (_, timers, sink, uart) = uart();
    let mut uart = lock(&uart);
    b"twin\n".iter().for_each(|&byte| uart.write(Port(0x3F8), PortWidth::B1, u32::from(byte)));
    assert_eq!(*lock(&sink.0), b"twin\n");
    listen(&mut uart.core);
    assert_eq!(uart.receive(b"abc"), 3);
    let saved = uart.save();
    let (_, other_timers, _, other) = self::uart();
    lock(&other).restore(&saved).expect("its own state");
    assert_eq!(lock(&other).save(), saved);
    assert_eq!(other_timers.next_deadline(), timers.next_deadline());
}

/// The edges of the interrupt output, and its level.
#[derive(Default)]
struct Edges(AtomicU32, AtomicU32);

impl crate::irq::IrqInputs for Edges {
    fn set_input(&self, _pin: u8, level: bool) {
        if self.1.swap(level.into(), Ordering::SeqCst) == 0 && level {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A driver that has something to send, its THRE interrupt on, and the edges that it gets.
fn sending() -> (Arc<ManualClock>, Sink, Arc<Mutex<Uart>>, Arc<Edges>) {
    let (clock, timers, sink) = (ManualClock::new(), TimerQueue::new(), Sink::default());
    let edges = Arc::<Edges>::default();
    let uart = Uart::new(UartConfig {
        base: Port(0x3F8),
        clock: Arc::clone(&clock) as _,
        timers,
        irq: IrqLine::to_pin(4, Arc::clone(&edges) as _),
        output: Box::new(sink.clone()),
    });
    for (port, value) in [(0x3FA, 0x01), (0x3FC, 0x0B), (0x3F9, IER_RDA | IER_THRE)] {
        lock(&uart).write(Port(port), PortWidth::B1, value.into());
    }
    (clock, sink, uart, edges)
}

impl Edges {
    /// Edges so far, and the level.
    fn seen(&self) -> (u32, bool) {
        (self.0.load(Ordering::SeqCst), self.1.load(Ordering::SeqCst) != 0)
    }
}

const IIR_PORT: Port = Port(0x3FA);
const LSR_PORT: Port = Port(0x3FD);
const THR_PORT: Port = Port(0x3F8);

#[test]
fn a_handler_that_fills_the_fifo_again_and_again_has_one_edge() {
    let (_, sink, uart, edges) = sending();
    let mut uart = lock(&uart);
    assert_eq!(edges.seen(), (1, true));
    for _ in 0..5 {
        assert_eq!(uart.read(IIR_PORT, PortWidth::B1), 0xC2);
        uart.read(LSR_PORT, PortWidth::B1);
        (0..16).for_each(|byte| uart.write(THR_PORT, PortWidth::B1, byte));
        assert_eq!(edges.seen(), (1, true));
    }
    assert_eq!(lock(&sink.0).len(), 80);
    uart.read(IIR_PORT, PortWidth::B1);
    uart.write(Port(0x3F9), PortWidth::B1, IER_RDA.into());
    assert_eq!(edges.seen(), (1, false), "nothing more to send");
    uart.write(Port(0x3F9), PortWidth::B1, (IER_RDA | IER_THRE).into());
    assert_eq!(edges.seen(), (2, true));
}

/// Between IIR and THR.
#[test]
fn whatever_else_happens_is_an_edge_of_its_own() {
    type Happens = fn(&ManualClock, &mut Uart);
    let happens: [(&str, Happens); 4] = [
        ("data come", |_, uart| {
            uart.write(IIR_PORT, PortWidth::B1, 0x01);
            uart.read(IIR_PORT, PortWidth::B1);
            assert_eq!(uart.receive(b"x"), 1);
            uart.core.advance(u64::MAX / 2);
            uart.drive();
        }),
        ("IER", |_, uart| {
            for enabled in [0, IER_THRE] {
                uart.write(Port(0x3F9), PortWidth::B1, enabled.into());
            }
        }),
        ("time", |clock, uart| {
            clock.advance(1_000_000);
            uart.write(THR_PORT, PortWidth::B1, 0);
        }),
        ("IIR says that there is nothing", |_, uart| {
            assert_eq!(uart.read(IIR_PORT, PortWidth::B1), 0xC1);
            uart.write(THR_PORT, PortWidth::B1, 0);
        }),
    ];
    for (what, happens) in happens {
        let (clock, _, uart, edges) = sending();
        let mut uart = lock(&uart);
        assert_eq!(uart.read(IIR_PORT, PortWidth::B1), 0xC2);
        assert_eq!(edges.seen(), (1, true), "{what}");
        let saved = uart.save();
        uart.restore(&saved).expect("its own state");
        assert_eq!((uart.save(), edges.seen()), (saved, (1, true)), "{what}");
        happens(&clock, &mut uart);
        assert_eq!(edges.seen(), (2, true), "{what}");
    }
}
