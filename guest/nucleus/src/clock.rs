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
    let (denominator, numerator, crystal) = (u64::from(leaf.eax), u64::from(leaf.ebx), u64::from(leaf.ecx));
    (denominator != 0 && numerator != 0 && crystal != 0).then(|| crystal * numerator / denominator)
}

/// Several times, since a busy host may take the processor away in the middle: the reading with the least doubt counts.
fn measured() -> u64 {
    let readings = (0..8).map(|_| reading());
    let mut best = (u64::MAX, 1);
    for (doubt, frequency) in readings {
        best = best.min((doubt, frequency));
        if doubt < 20 {
            break;
        }
    }
    best.1
}

/// Counter 0 of the 8254 counts 4 ms down in mode 0; the read-back command tells when its output has risen. (Counter 2
/// would need port 61H, which QEMU's microvm does not have.) Returns the doubt, in thousandths, and the frequency.
fn reading() -> (u64, u64) {
    const OUTPUT: u8 = 1 << 7;
    let counts = PIT / 250;
    outb(0x43, 0x30);
    outb(0x40, counts as u8);
    let before = rdtsc();
    outb(0x40, (counts >> 8) as u8);
    let start = rdtsc();
    let mut last = start;
    loop {
        outb(0x43, 0xE2);
        let risen = inb(0x40) & OUTPUT != 0;
        let now = rdtsc();
        if risen {
            let elapsed = (now - start).max(1);
            let doubt = (start - before + now - last) * 1000 / elapsed;
            return (doubt, elapsed * PIT / counts);
        }
        last = now;
    }
}

/// Counts per second.
pub fn frequency() -> u64 {
    FREQUENCY.load(Relaxed)
}

/// Counts as microseconds.
pub fn to_microseconds(counts: u64) -> u64 {
    (u128::from(counts) * u128::from(SCALE.load(Relaxed)) >> 64) as u64
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
