//! The arithmetic of KVM's clock, without memory and host.
//!
//! The guest computes nanoseconds from its TSC: (ticks << shift) * multiplier / 2^32. All of a
//! machine's clocks lie on one line: nanoseconds = rate * TSC of the machine. The TSC stands still
//! while the machine does, and goes on where it stood when it is saved and restored. So the line
//! never moves, and no two processors disagree.

use super::registers::{PAIRING_SIZE, time_info};

const SECOND: i128 = 1_000_000_000;

/// How many nanoseconds a tick of the TSC has, as the guest multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    multiplier: u32,
    shift: u8,
}

impl Rate {
    /// Of a TSC at `hz`. The clock never runs fast, and is slow by less than one part in 2^27 (at 4
    /// GHz and below: 2^30).
    ///
    /// The guest computes its TSC's kilohertz from the two numbers and shifts the quotient last: a
    /// shift to the right would cost it low bits, so there is none.
    pub(super) fn of(hz: u64) -> Self {
        let hz = u128::from(hz.max(1));
        let second = SECOND as u128;
        let shift = (0..32).find(|&shift| hz << shift > second).unwrap_or(31);
        let multiplier = (second << (32 - shift)) / hz;
        Self { multiplier: u32::try_from(multiplier).unwrap_or(u32::MAX), shift: shift as u8 }
    }

    /// The nanoseconds of `ticks`, as the guest computes them.
    pub(super) fn ns(self, ticks: u64) -> u64 {
        let shifted = ticks.wrapping_shl(self.shift.into());
        ((u128::from(shifted) * u128::from(self.multiplier)) >> 32) as u64
    }
}

/// What follows the version in a `struct pvclock_vcpu_time_info`, on a processor whose TSC the
/// guest has `moved` from the machine's.
pub(super) fn time_record(rate: Rate, moved: u64, flags: u8) -> [u8; time_info::SIZE as usize - 4] {
    let mut record = [0; time_info::SIZE as usize - 4];
    record[4..12].copy_from_slice(&moved.to_le_bytes());
    // The time at that TSC, bytes 12 to 20, is 0.
    record[20..24].copy_from_slice(&rate.multiplier.to_le_bytes());
    record[24] = rate.shift;
    record[25] = flags;
    record
}

/// One moment on the host's wall clock and on the machine's TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Nanoseconds since 1970.
    pub(super) wall: i128,
    /// Ticks.
    pub(super) tsc: u64,
}

impl Moment {
    /// What follows the version in a `struct pvclock_wall_clock`: the wall clock's time when the
    /// TSC was 0.
    pub(super) fn wall_record(self, rate: Rate) -> [u8; 8] {
        let start = self.wall - i128::from(rate.ns(self.tsc));
        let seconds = start.div_euclid(SECOND) as u32;
        let nanoseconds = start.rem_euclid(SECOND) as u32;
        let mut record = [0; 8];
        record[..4].copy_from_slice(&seconds.to_le_bytes());
        record[4..].copy_from_slice(&nanoseconds.to_le_bytes());
        record
    }

    /// `struct kvm_clock_pairing`, for a processor whose TSC the guest has `moved`.
    pub(super) fn pairing_record(self, moved: u64) -> [u8; PAIRING_SIZE] {
        let seconds = self.wall.div_euclid(SECOND) as i64;
        let nanoseconds = self.wall.rem_euclid(SECOND) as i64;
        let mut record = [0; PAIRING_SIZE];
        record[..8].copy_from_slice(&seconds.to_le_bytes());
        record[8..16].copy_from_slice(&nanoseconds.to_le_bytes());
        record[16..24].copy_from_slice(&self.tsc.wrapping_add(moved).to_le_bytes());
        record
    }
}
