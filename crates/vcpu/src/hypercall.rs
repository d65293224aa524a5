//! Hypercalls: how a guest calls its hypervisor by VMCALL or VMMCALL, in KVM's convention (Linux
//! `Documentation/virt/kvm/x86/hypercalls.rst`).

use x86::state::{CpuState, Mode, gpr};

/// A call of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hypercall {
    /// RAX: what is asked.
    pub number: u64,
    /// RBX, RCX, RDX, RSI.
    pub arguments: [u64; 4],
    /// Bits of each: 64 in 64-bit mode, else 32.
    pub bits: u32,
}

/// Why a call is refused: Linux's error numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum HypercallError {
    /// EPERM: it comes from user code.
    NotPermitted = 1,
    /// EFAULT: the address given is no RAM.
    Fault = 14,
    /// EINVAL: an argument makes no sense.
    Invalid = 22,
    /// EOPNOTSUPP: not in this form.
    NotSupported = 95,
    /// KVM_ENOSYS: there is no such call.
    Unknown = 1000,
}

impl Hypercall {
    /// The call that a processor in `state` makes. Outside 64-bit mode registers have 32 bits.
    ///
    /// # Errors
    /// User code calls, which only supervisors may.
    pub fn of(state: &CpuState) -> Result<Self, HypercallError> {
        if state.cpl != 0 {
            return Err(HypercallError::NotPermitted);
        }
        let register = |n: usize| state.gpr[n] & mask(state);
        let arguments = [gpr::RBX, gpr::RCX, gpr::RDX, gpr::RSI].map(register);
        Ok(Self { number: register(gpr::RAX), arguments, bits: mask(state).count_ones() })
    }
}

/// Puts the answer to a call in RAX: the result, or the error's number negated.
pub fn answer(state: &mut CpuState, result: Result<u64, HypercallError>) {
    let value = result.unwrap_or_else(|error| (error as u64).wrapping_neg());
    state.gpr[gpr::RAX] = value & mask(state);
}

fn mask(state: &CpuState) -> u64 {
    if state.mode() == Mode::Long64 { u64::MAX } else { u32::MAX.into() }
}
