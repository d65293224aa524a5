//! Interrupts: the local APIC with its timer (SDM vol. 3, 12), the IOAPIC (82093AA) and, silenced,
//! the 8259s.

use crate::cpu::{self, outb};
use crate::physical::{get32, set32};
use crate::{clock, tables};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const LAPIC: u64 = 0xFEE0_0000;
const ID: u64 = LAPIC + 0x20;
const END_OF_INTERRUPT: u64 = LAPIC + 0xB0;
const SPURIOUS_VECTOR: u64 = LAPIC + 0xF0;
const TIMER: u64 = LAPIC + 0x320;
const TIMER_INITIAL: u64 = LAPIC + 0x380;
const TIMER_CURRENT: u64 = LAPIC + 0x390;
const TIMER_DIVIDE: u64 = LAPIC + 0x3E0;
const ENABLED: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0xB;

const IOAPIC: u64 = 0xFEC0_0000;
const IOAPIC_DATA: u64 = IOAPIC + 0x10;
/// The console's input of the IOAPIC.
const COM1_INPUT: u32 = 4;

/// Counts of the timer in 1024 microseconds.
static RATE: AtomicU64 = AtomicU64::new(1);

/// Takes the interrupt controllers over and measures the timer. The clock must run.
pub fn start() {
    outb(0x21, 0xFF);
    outb(0xA1, 0xFF);
    cpu::wrmsr(cpu::APIC_BASE, cpu::rdmsr(cpu::APIC_BASE) | 1 << 11);
    set32(SPURIOUS_VECTOR, ENABLED | u32::from(tables::SPURIOUS));
    set32(TIMER, MASKED);
    set32(TIMER_DIVIDE, DIVIDE_BY_1);
    set32(TIMER_INITIAL, u32::MAX);
    let start = cpu::rdtsc();
    clock::spin(1024);
    let counts = u64::from(u32::MAX - get32(TIMER_CURRENT));
    let elapsed = clock::to_microseconds(cpu::rdtsc() - start).max(1);
    RATE.store((counts * 1024 / elapsed).max(1), Relaxed);
    set32(TIMER_INITIAL, 0);
    set32(TIMER, tables::TIMER.into()); // one shot
    let destination = get32(ID) >> 24 << 24;
    ioapic(0x11 + 2 * COM1_INPUT, destination);
    ioapic(0x10 + 2 * COM1_INPUT, tables::CONSOLE.into()); // edge, active high, not masked
}

fn ioapic(register: u32, value: u32) {
    set32(IOAPIC, register);
    set32(IOAPIC_DATA, value);
}

/// Counts of the timer per second.
pub fn timer_frequency() -> u64 {
    RATE.load(Relaxed) * 1_000_000 / 1024
}

/// One interrupt after `microseconds`, instead of any asked for before.
pub fn set_timer(microseconds: u64) {
    let counts = microseconds.saturating_mul(RATE.load(Relaxed)) / 1024;
    set32(TIMER_INITIAL, counts.clamp(1, u32::MAX.into()) as u32);
}

/// The handler's work is done; the next interrupt may come.
pub fn end_of_interrupt() {
    set32(END_OF_INTERRUPT, 0);
}
