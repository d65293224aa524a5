//! The host's time-stamp counter. The one place of the pure floors that executes an instruction by
//! hand.

/// The host processor's TSC now (SDM vol. 2B, RDTSC).
///
/// Not serializing: a few nanoseconds of program order either way.
#[inline]
pub fn host_tsc() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor and reads no memory. Where the host forbids it
    // to user code (CR4.TSD) the process is stopped by a signal; nothing becomes undefined.
    #[allow(unsafe_code)]
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
}
