//! CPUID: the model's answer, and what a register adds to it.

use crate::core::Core;
use crate::core::Op;
use crate::op::Step;
use x86::msr::names;

/// CPUID.01H:EDX.APIC.
const CPUID_APIC: u32 = 1 << 9;

/// CPUID.
pub(crate) fn cpuid(core: &mut Core, _: &Op) -> Step {
    super::drain_stores(core);
    core.stats.cpuid += 1;
    let (leaf, subleaf) = (core.reg::<u32>(0), core.reg::<u32>(1));
    let [a, b, c, mut d] = x86::cpuid::cpuid(&core.model, &core.state, leaf, subleaf);
    if leaf == 1 && !apic_enabled(core) {
        d &= !CPUID_APIC;
    }
    core.set_reg::<u32>(0, a);
    core.set_reg::<u32>(3, b);
    core.set_reg::<u32>(1, c);
    core.set_reg::<u32>(2, d);
    Step::Next
}

/// IA32_APIC_BASE.EN, which CPUID.01H:EDX.APIC shows (SDM vol. 3, 12.4.3).
fn apic_enabled(core: &mut Core) -> bool {
    let base = core.machine.io().and_then(|io| io.msr_read(names::IA32_APIC_BASE));
    !matches!(base, Some(Ok(base)) if base & x86::apic::base::EN == 0)
}
