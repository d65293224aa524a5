//! The numbers and records of KVM's interface (Linux `Documentation/virt/kvm/x86/msr.rst` and
//! `hypercalls.rst`; `include/uapi/asm/kvm_para.h` has the calls' numbers).

/// Model-specific registers.
pub(super) mod msr {
    /// MSR_KVM_WALL_CLOCK.
    pub(crate) const WALL_CLOCK_OLD: u32 = 0x11;
    /// MSR_KVM_SYSTEM_TIME.
    pub(crate) const SYSTEM_TIME_OLD: u32 = 0x12;
    /// MSR_KVM_WALL_CLOCK_NEW.
    pub(crate) const WALL_CLOCK: u32 = 0x4b56_4d00;
    /// MSR_KVM_SYSTEM_TIME_NEW.
    pub(crate) const SYSTEM_TIME: u32 = 0x4b56_4d01;
}

/// Hypercalls.
pub(super) mod call {
    /// KVM_HC_VAPIC_POLL_IRQ: nothing but an exit.
    pub(crate) const VAPIC_POLL_IRQ: u64 = 1;
    /// KVM_HC_CLOCK_PAIRING.
    pub(crate) const CLOCK_PAIRING: u64 = 9;
}

/// In a register that holds an address: the record there is kept up to date.
pub(super) const ENABLED: u64 = 1;

/// `struct pvclock_vcpu_time_info`: version, padding, TSC, nanoseconds, multiplier, shift, flags.
pub(super) mod time_info {
    /// Its bytes.
    pub(crate) const SIZE: u64 = 32;
    /// Where its flags are.
    pub(crate) const FLAGS: u64 = 29;
    /// The time is monotonic across processors.
    pub(crate) const TSC_STABLE: u8 = 1 << 0;
    /// The guest has been stopped; it clears the flag.
    pub(crate) const GUEST_STOPPED: u8 = 1 << 1;
}

/// `struct pvclock_wall_clock`: version, seconds, nanoseconds.
pub(super) const WALL_CLOCK_SIZE: u64 = 12;

/// `struct kvm_clock_pairing`: seconds, nanoseconds, TSC, flags, padding.
pub(super) const PAIRING_SIZE: usize = 64;
/// KVM_CLOCK_PAIRING_WALLCLOCK: the host's CLOCK_REALTIME.
pub(super) const PAIRING_WALL_CLOCK: u64 = 0;
