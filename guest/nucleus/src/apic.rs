//! Interrupts: the local APIC with its timer (SDM vol. 3, 12), the IOAPIC (82093AA) and, silenced,
//! the 8259s.

use crate::cpu::{self, outb};
use crate::physical::{get32, set32};
use crate::{clock, tables};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The local APIC's layout, as the machine has it.
#[path = "../../../crates/x86/src/apic.rs"]
#[allow(dead_code)] // the nucleus needs few of them
mod layout;

use layout::{DEFAULT_BASE, base, lvt, reg, svr};

/// TIMER_DIVIDE: by 1.
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
    cpu::wrmsr(cpu::APIC_BASE, cpu::rdmsr(cpu::APIC_BASE) | base::EN);
    set(reg::SVR, svr::ENABLE | u32::from(tables::SPURIOUS));
    set(reg::LVT_TIMER, lvt::MASKED);
    set(reg::TIMER_DIVIDE, DIVIDE_BY_1);
    set(reg::TIMER_INITIAL_COUNT, u32::MAX);
    let start = cpu::rdtsc();
    clock::spin(1024);
    let counts = u64::from(u32::MAX - get(reg::TIMER_CURRENT_COUNT));
    let elapsed = clock::to_microseconds(cpu::rdtsc() - start).max(1);
    RATE.store((counts * 1024 / elapsed).max(1), Relaxed);
    set(reg::TIMER_INITIAL_COUNT, 0);
    set(reg::LVT_TIMER, tables::TIMER.into()); // one shot
    let destination = get(reg::ID) >> 24 << 24;
    ioapic(0x11 + 2 * COM1_INPUT, destination);
    ioapic(0x10 + 2 * COM1_INPUT, tables::CONSOLE.into()); // edge, active high, not masked
}

/// Has the level at the IOAPIC's `input`, which is active low, interrupt as `vector`.
pub fn connect_level(input: u16, vector: u8) {
    const ACTIVE_LOW: u32 = 1 << 13;
    const LEVEL: u32 = 1 << 15;
    let input = u32::from(input);
    ioapic(0x11 + 2 * input, get(reg::ID) >> 24 << 24);
    ioapic(0x10 + 2 * input, LEVEL | ACTIVE_LOW | u32::from(vector));
}

fn get(register: u32) -> u32 {
    get32(DEFAULT_BASE + u64::from(register))
}

fn set(register: u32, value: u32) {
    set32(DEFAULT_BASE + u64::from(register), value);
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
    set(reg::TIMER_INITIAL_COUNT, counts.clamp(1, u32::MAX.into()) as u32);
}

/// The handler's work is done; the next interrupt may come.
pub fn end_of_interrupt() {
    set(reg::EOI, 0);
}
