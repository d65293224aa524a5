//! Time: the time stamp counter, its frequency from CPUID or measured against the 8254.

use crate::cpu::{self, cpuid, inb, outb, rdtsc};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

static START: AtomicU64 = AtomicU64::new(0);
static FREQUENCY: AtomicU64 = AtomicU64::new(1);
/// Microseconds per count, as a fraction of 2^64.
static SCALE: AtomicU64 = AtomicU64::new(0);

/// Counts of the 8254 in a second (8254 data sheet; 14.318 MHz / 12).
const PIT: u64 = 1_193_182;

/// Finds out how fast the counter counts. Tells how it knows.
pub fn start(first: u64) -> &'static str {
    let (frequency, how) = match from_cpuid() {
        Some(frequency) => (frequency, "CPUID leaf 15H"),
        None => (measured(), "measured against the 8254"),
    };
    START.store(first, Relaxed);
    FREQUENCY.store(frequency, Relaxed);
    SCALE.store(((1_000_000u128 << 64) / u128::from(frequency)) as u64, Relaxed);
    how
}

/// SDM vol. 3, 20.7.3.
fn from_cpuid() -> Option<u64> {
    if cpuid(0, 0).eax < 0x15 {
        return None;
    }
    let leaf = cpuid(0x15, 0);
    let (denominator, numerator, crystal) =
        (u64::from(leaf.eax), u64::from(leaf.ebx), u64::from(leaf.ecx));
    (denominator != 0 && numerator != 0 && crystal != 0).then(|| crystal * numerator / denominator)
}

/// The 8254's counter 0 counts down in mode 0; two readings of it at least 4 ms apart tell.
/// (Counter 2 would need port 61H, which QEMU's microvm does not have.)
fn measured() -> u64 {
    outb(0x43, 0x30);
    outb(0x40, 0xFF);
    outb(0x40, 0xFF);
    let (first, from) = reading();
    loop {
        let (now, to) = reading();
        let counts = u64::from(from.wrapping_sub(to));
        if counts > PIT / 250 {
            return (now - first) * PIT / counts;
        }
    }
}

/// Counter 0 and the time stamp at the moment it was latched. A busy host may take the processor
/// away in between: of several attempts the quickest counts.
fn reading() -> (u64, u16) {
    let attempt = |_| {
        let before = rdtsc();
        outb(0x43, 0);
        let after = rdtsc();
        let count = u16::from_le_bytes([inb(0x40), inb(0x40)]);
        (after - before, after, count)
    };
    let (_, time, count) = (0..6).map(attempt).min().unwrap_or_default();
    (time, count)
}

/// Counts per second.
pub fn frequency() -> u64 {
    FREQUENCY.load(Relaxed)
}

/// Counts as microseconds.
pub fn to_microseconds(counts: u64) -> u64 {
    ((u128::from(counts) * u128::from(SCALE.load(Relaxed))) >> 64) as u64
}

/// Microseconds since boot.
pub fn microseconds() -> u64 {
    to_microseconds(rdtsc() - START.load(Relaxed))
}

/// Waits without sleeping.
pub fn spin(microseconds: u64) {
    let end = rdtsc() + frequency() * microseconds / 1_000_000;
    while rdtsc() < end {
        cpu::pause();
    }
}
