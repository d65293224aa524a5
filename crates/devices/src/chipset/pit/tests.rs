use super::core::*;
use super::counter::*;
use super::registers::*;
use super::*;
use crate::time::{ManualClock, SECOND};
use proptest::prelude::*;
use x86::addr::{Port, PortWidth};

/// The 8254 stepped tick by tick, as the datasheet's timing diagrams draw it (binary counting, gate
/// high).
struct Naive {
    mode: u8,
    count: u32,
    element: u32,
    out: bool,
    load: bool,
    done: bool,
}

impl Naive {
    fn new(mode: u8, count: u32) -> Self {
        Self { mode, count, element: 0, out: mode != 0, load: true, done: false }
    }

    fn step(&mut self) {
        if self.load {
            self.load = false;
            self.element = if self.mode == 3 { self.count & !1 } else { self.count };
            return;
        }
        match self.mode {
            0 => {
                self.element = self.element.wrapping_sub(1) & 0xFFFF;
                self.out |= self.element == 0;
            }
            2 => {
                if self.element == 1 {
                    self.element = self.count;
                    self.out = true;
                } else {
                    self.element -= 1;
                    self.out = self.element != 1;
                }
            }
            3 => {
                // Odd counts spend one more tick high.
                let last = if self.out && self.count & 1 != 0 { 0 } else { 2 };
                if self.element == last {
                    self.element = self.count & !1;
                    self.out = !self.out;
                } else {
                    self.element -= 2;
                }
            }
            _ => {
                self.element = self.element.wrapping_sub(1) & 0xFFFF;
                self.out = self.done || self.element != 0;
                self.done |= self.element == 0;
            }
        }
    }
}

fn programmed(mode: u8, count: u16) -> Counter {
    let mut counter = Counter::new(true);
    counter.control(0x30 | mode << 1);
    let [low, high] = count.to_le_bytes();
    counter.write(low, 0);
    counter.write(high, 0);
    counter
}

fn read_word(counter: &mut Counter, now: Tick) -> u32 {
    counter.latch_count(now);
    u32::from(u16::from_le_bytes([counter.read(now), counter.read(now)]))
}

proptest! {
    #[test]
    fn counts_and_out_equal_the_stepped_model(
        mode in prop::sample::select(vec![0u8, 2, 3, 4]),
        count in 2u16..300,
    ) {
        let mut counter = programmed(mode, count);
        let mut naive = Naive::new(mode, u32::from(count));
        let mut rises = Vec::new();
        for now in 1..1500 {
            let before = naive.out;
            naive.step();
            prop_assert_eq!(counter.out(now), naive.out, "OUT at tick {}", now);
            prop_assert_eq!(read_word(&mut counter, now), naive.element, "count at tick {}", now);
            if naive.out && !before {
                rises.push(now);
            }
            prop_assert_eq!(counter.last_rise(now), rises.last().copied());
            let next = counter.next_change(now);
            prop_assert!(next.is_none_or(|next| next > now));
            if mode != 2 && next.is_none_or(|next| next > now + 1) {
                prop_assert_eq!(counter.out(now + 1), naive.out, "a change that was not foretold");
            }
        }
    }

    #[test]
    fn gate_triggered_modes(mode in prop::sample::select(vec![1u8, 5]), count in 2u16..300) {
        let mut counter = programmed(mode, count);
        prop_assert!(counter.out(50));
        counter.set_gate(false, 60);
        counter.set_gate(true, 100);
        let n = Tick::from(count);
        for now in 100..1000 {
            let expected = match mode {
                1 => now == 100 || now - 101 >= n,
                _ => now - 101 != n,
            };
            prop_assert_eq!(counter.out(now), expected, "tick {}", now);
        }
    }

    #[test]
    fn a_new_count_waits_for_the_end_of_the_cycle(first in 4u16..100, second in 4u16..100,
        at in 2i64..90) {
        let mut counter = programmed(2, first);
        let at = at.min(Tick::from(first));
        let [low, high] = second.to_le_bytes();
        counter.write(low, at);
        counter.write(high, at);
        let mut rises = vec![];
        for now in at..500 {
            counter.advance(now);
            if let Some(rise) = counter.last_rise(now) && rises.last() != Some(&rise) && rise > at {
                rises.push(rise);
            }
        }
        // The first cycle begins at tick 1.
        let start = 1 + Tick::from(first);
        let starts_second = if at >= start { start + Tick::from(first) } else { start };
        let expected: Vec<_> =
            (1..).map(|k| starts_second + k * Tick::from(second))
                .take_while(|&r| r < 500).collect();
        prop_assert_eq!(&rises[rises.len() - expected.len()..], &expected[..]);
    }
}

#[test]
fn bcd_counts_in_decimal() {
    let mut counter = Counter::new(true);
    counter.control(0x31);
    counter.write(0x00, 0);
    counter.write(0x10, 0);
    counter.latch_count(2);
    assert_eq!([counter.read(2), counter.read(2)], [0x99, 0x09]);
    assert!(!counter.out(1000));
    assert!(counter.out(1001));
    counter.latch_count(1002);
    assert_eq!([counter.read(2), counter.read(2)], [0x99, 0x99]);
}

#[test]
fn the_gate_holds_mode_0() {
    let mut counter = programmed(0, 100);
    counter.set_gate(false, 51);
    assert_eq!(read_word(&mut counter, 90), 50);
    counter.set_gate(true, 200);
    assert!(!counter.out(249));
    assert!(counter.out(250));
}

#[test]
fn read_back_latches_status_before_count() {
    let mut core = Core::new();
    core.write(Port(0x43), 0x34, 0);
    core.write(Port(0x43), 0xC2, 0);
    assert_eq!(core.read(Port(0x40), 0), 0xF4, "OUT high, null count, both bytes, mode 2");
    let _ = (core.read(Port(0x40), 0), core.read(Port(0x40), 0));
    core.write(Port(0x40), 0x10, 0);
    core.write(Port(0x40), 0x00, 0);
    core.write(Port(0x43), 0xC2, 5_000);
    assert_eq!(core.read(Port(0x40), 5_000), 0xB4);
    // 5 µs are 5 ticks, of which the first loaded the count.
    assert_eq!((core.read(Port(0x40), 9_000), core.read(Port(0x40), 9_000)), (0x10 - 4, 0));
}

#[test]
fn port_61_gates_and_shows_counter_2() {
    let mut core = Core::new();
    core.write(Port(0x43), 0xB0, 0);
    core.write(Port(0x42), 0xA9, 0);
    core.write(Port(0x42), 0x04, 0);
    assert_eq!(core.read(Port(0x61), SECOND) & OUT2, 0, "gate closed");
    core.write(Port(0x61), GATE2, SECOND);
    // 04A9H = 1193 ticks are just under a millisecond.
    assert_eq!(core.read(Port(0x61), SECOND + 990_000) & OUT2, 0);
    assert_eq!(core.read(Port(0x61), SECOND + 1_002_000) & OUT2, OUT2);
    assert_ne!(core.read(Port(0x61), 0) & REFRESH, core.read(Port(0x61), REFRESH_NS) & REFRESH);
}

struct Edges(Mutex<(bool, u32)>);

impl crate::irq::IrqInputs for Edges {
    fn set_input(&self, pin: u8, level: bool) {
        if pin == 0 {
            let mut seen = lock(&self.0);
            seen.1 += u32::from(level && !seen.0);
            seen.0 = level;
        }
    }
}

#[test]
fn counter_0_interrupts_at_its_rate_and_state_survives() {
    let (clock, timers) = (ManualClock::new(), TimerQueue::new());
    let edges = Arc::new(Edges(Mutex::new((false, 0))));
    let pins: Arc<dyn crate::irq::IrqInputs> = Arc::clone(&edges) as _;
    let irqs = crate::irq::IsaIrqs::new(&pins, &pins);
    let pit = Pit::new(Arc::clone(&clock) as _, &timers, irqs.line(0));
    for (port, value) in [(0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)] {
        lock(&pit).write(Port(port), PortWidth::B1, value);
    }
    lock(&edges.0).1 = 0;
    while let Some(at) = timers.next_deadline().filter(|&at| at <= SECOND) {
        clock.set(at);
        assert_eq!(timers.expire(at), 1);
    }
    // 1193182 Hz / 1193
    assert_eq!(lock(&edges.0).1, 1000);
    let saved = lock(&pit).save();
    let other = Pit::new(Arc::clone(&clock) as _, &TimerQueue::new(), irqs.line(3));
    lock(&other).restore(&saved).expect("its own state");
    assert_eq!(lock(&other).save(), saved);
}

#[test]
fn the_status_has_the_control_word_as_written() {
    let mut core = Core::new();
    for word in 0x90..=0xBF_u8 {
        core.write(Port(0x43), word, 0);
        core.write(Port(0x43), 0xE8, 0);
        assert_eq!(core.read(Port(0x42), 0) & 0x3F, word & 0x3F);
    }
}
