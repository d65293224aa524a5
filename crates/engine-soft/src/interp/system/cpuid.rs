//! CPUID: the model's answer, and what a register adds to it.

use crate::cpu::Cpu;
use crate::cpu::Op;
use crate::op::Step;
use x86::msr::names;

/// CPUID.01H:EDX.APIC.
const CPUID_APIC: u32 = 1 << 9;

/// CPUID.
pub(crate) fn cpuid(cpu: &mut Cpu, _: &Op) -> Step {
    cpu.stats.cpuid += 1;
    let (leaf, subleaf) = (cpu.reg::<u32>(0), cpu.reg::<u32>(1));
    let [a, b, c, mut d] = x86::cpuid::cpuid(&cpu.model, &cpu.state, leaf, subleaf);
    if leaf == 1 && !apic_enabled(cpu) {
        d &= !CPUID_APIC;
    }
    cpu.set_reg::<u32>(0, a);
    cpu.set_reg::<u32>(3, b);
    cpu.set_reg::<u32>(1, c);
    cpu.set_reg::<u32>(2, d);
    Step::Next
}

/// IA32_APIC_BASE.EN, which CPUID.01H:EDX.APIC shows (SDM vol. 3, 12.4.3).
fn apic_enabled(cpu: &mut Cpu) -> bool {
    let base = cpu.machine.io().and_then(|io| io.msr_read(names::IA32_APIC_BASE));
    !matches!(base, Some(Ok(base)) if base & x86::apic::base::EN == 0)
}
