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
    /// MSR_KVM_ASYNC_PF_EN.
    pub(crate) const ASYNC_PF_EN: u32 = 0x4b56_4d02;
    /// MSR_KVM_STEAL_TIME.
    pub(crate) const STEAL_TIME: u32 = 0x4b56_4d03;
    /// MSR_KVM_ASYNC_PF_INT: the vector of *ready*.
    pub(crate) const ASYNC_PF_INT: u32 = 0x4b56_4d06;
    /// MSR_KVM_ASYNC_PF_ACK: bit 0 says that the guest has taken the last token.
    pub(crate) const ASYNC_PF_ACK: u32 = 0x4b56_4d07;
}

/// Hypercalls.
pub(super) mod call {
    /// KVM_HC_VAPIC_POLL_IRQ: nothing but an exit.
    pub(crate) const VAPIC_POLL_IRQ: u64 = 1;
    /// KVM_HC_KICK_CPU.
    pub(crate) const KICK_CPU: u64 = 5;
    /// KVM_HC_CLOCK_PAIRING.
    pub(crate) const CLOCK_PAIRING: u64 = 9;
    /// KVM_HC_SEND_IPI.
    pub(crate) const SEND_IPI: u64 = 10;
    /// KVM_HC_SCHED_YIELD.
    pub(crate) const SCHED_YIELD: u64 = 11;
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

/// `struct kvm_steal_time`: steal time in nanoseconds, version, flags, whether it is preempted.
pub(super) mod steal_time {
    /// Its bytes, and its alignment.
    pub(crate) const SIZE: u64 = 64;
    /// Bits of the register that must be clear.
    pub(crate) const RESERVED: u64 = 0x3e;
    /// Where its version is.
    pub(crate) const VERSION: u64 = 8;
    /// Where it says whether the processor runs.
    pub(crate) const PREEMPTED: u64 = 16;
    /// It does not (KVM_VCPU_PREEMPTED).
    pub(crate) const AWAY: u8 = 1 << 0;
    /// Another processor asks for a flush of the TLB before it does again (KVM_VCPU_FLUSH_TLB).
    pub(crate) const FLUSH_TLB: u8 = 1 << 1;
}

/// `struct kvm_vcpu_pv_apf_data`: flags, token.
pub(super) mod async_pf {
    /// Its bytes, and its alignment.
    pub(crate) const SIZE: u64 = 64;
    /// What of MSR_KVM_ASYNC_PF_EN is no address.
    pub(crate) const FLAGS: u64 = SIZE - 1;
    /// Kernel code may be told, too.
    pub(crate) const SEND_ALWAYS: u64 = 1 << 1;
    /// *Ready* comes by interrupt (KVM_ASYNC_PF_DELIVERY_AS_INT). Nothing comes otherwise.
    pub(crate) const BY_INTERRUPT: u64 = 1 << 3;
    /// Bits of the register that must be clear: delivery as an exit to a hypervisor in the guest,
    /// and two that mean nothing.
    pub(crate) const RESERVED: u64 = 1 << 2 | 3 << 4;
    /// Where its flags are.
    pub(crate) const FLAG: u64 = 0;
    /// The page fault at hand is an asynchronous one (KVM_PV_REASON_PAGE_NOT_PRESENT).
    pub(crate) const NOT_PRESENT: u32 = 1;
    /// Where the token is of a page that is ready.
    pub(crate) const TOKEN: u64 = 4;
}

/// `struct pvclock_wall_clock`: version, seconds, nanoseconds.
pub(super) const WALL_CLOCK_SIZE: u64 = 12;

/// `struct kvm_clock_pairing`: seconds, nanoseconds, TSC, flags, padding.
pub(super) const PAIRING_SIZE: usize = 64;
/// KVM_CLOCK_PAIRING_WALLCLOCK: the host's CLOCK_REALTIME.
pub(super) const PAIRING_WALL_CLOCK: u64 = 0;
