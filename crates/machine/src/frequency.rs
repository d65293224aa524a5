//! The frequency of the host's TSC: told by the host, or measured.

use rustix::time::{ClockId, clock_gettime};
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

/// Where a frequency comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// CPUID leaf 15H: crystal frequency and ratio (SDM vol. 3, 20.7.3).
    Leaf15,
    /// The hypervisor's timing leaf, 4000_0010H: kHz in EAX.
    HypervisorLeaf,
    /// `/sys/devices/system/cpu/cpu0/tsc_freq_khz`.
    Sysfs,
    /// Measured against CLOCK_MONOTONIC_RAW.
    Measured,
}

/// The host's TSC frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// Ticks per second.
    pub hz: u64,
    /// Where it comes from.
    pub source: Source,
}

/// Plausible frequencies; a reported one outside this range is ignored.
const PLAUSIBLE: std::ops::RangeInclusive<u64> = 200_000_000..=20_000_000_000;

/// How long to measure: reading both clocks takes below 100 ns, so the error stays below 10 ppm.
const MEASUREMENT: Duration = Duration::from_millis(20);

/// The host's TSC frequency; found out once.
pub fn host_tsc_frequency() -> Frequency {
    static FREQUENCY: OnceLock<Frequency> = OnceLock::new();
    *FREQUENCY.get_or_init(|| {
        let told = [
            (leaf15(), Source::Leaf15),
            (hypervisor_leaf(), Source::HypervisorLeaf),
            (sysfs(), Source::Sysfs),
        ];
        let believed = told.into_iter().find_map(|(hz, source)| {
            let hz = hz.filter(|hz| PLAUSIBLE.contains(hz))?;
            Some(Frequency { hz, source })
        });
        believed.unwrap_or_else(|| Frequency { hz: measure(), source: Source::Measured })
    })
}

fn leaf15() -> Option<u64> {
    if __cpuid(0).eax < 0x15 {
        return None;
    }
    let leaf = __cpuid(0x15);
    let (denominator, numerator, crystal) = (leaf.eax, leaf.ebx, leaf.ecx);
    (denominator != 0 && numerator != 0 && crystal != 0)
        .then(|| u64::from(crystal) * u64::from(numerator) / u64::from(denominator))
}

fn hypervisor_leaf() -> Option<u64> {
    const HYPERVISOR: u32 = 1 << 31;
    if __cpuid(1).ecx & HYPERVISOR == 0 || __cpuid(0x4000_0000).eax < 0x4000_0010 {
        return None;
    }
    Some(u64::from(__cpuid_count(0x4000_0010, 0).eax) * 1000)
}

fn sysfs() -> Option<u64> {
    let text = fs::read_to_string("/sys/devices/system/cpu/cpu0/tsc_freq_khz").ok()?;
    text.trim().parse::<u64>().ok()?.checked_mul(1000)
}

fn measure() -> u64 {
    let (start_tsc, start_ns) = sample();
    std::thread::sleep(MEASUREMENT);
    let (end_tsc, end_ns) = sample();
    let ticks = u128::from(end_tsc.wrapping_sub(start_tsc));
    let ns = u128::from(end_ns.wrapping_sub(start_ns)).max(1);
    u64::try_from(ticks * 1_000_000_000 / ns).unwrap_or(u64::MAX)
}

/// Both clocks at nearly one instant: of some tries the one that took the least time.
fn sample() -> (u64, u64) {
    let tries = (0..16).map(|_| {
        let before = vcpu::host_tsc();
        let ns = monotonic_raw();
        let took = vcpu::host_tsc().wrapping_sub(before);
        (took, before.wrapping_add(took / 2), ns)
    });
    tries.min().map_or((0, 0), |(_, tsc, ns)| (tsc, ns))
}

fn monotonic_raw() -> u64 {
    let time = clock_gettime(ClockId::MonotonicRaw);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_agrees_with_the_measurement() {
        let told = host_tsc_frequency().hz as f64;
        let measured = measure() as f64;
        assert!((told / measured - 1.0).abs() < 1e-3, "{told} against {measured}");
    }
}
