//! IA32_APIC_BASE as the processor sees it: what it lets through to its local APIC, and what CPUID
//! shows of it.

use engine_soft::SoftVcpu;
use memory::GuestRam;
use vcpu::{CpuIo, Elements, MsrFault, Slice, Vcpu};
use x86::addr::{Gpa, Port, PortWidth, Vector, Width};
use x86::apic::base;
use x86::cpuid::CpuModel;
use x86::state::{CpuState, gpr};

const IA32_APIC_BASE: u32 = 0x1b;
const CODE: u64 = 0x7c00;
/// CPUID.01H:EDX.APIC.
const APIC: u64 = 1 << 9;

/// A machine that is nothing but the one register, and takes whatever reaches it.
struct Base(u64);

impl CpuIo for Base {
    fn pio_read(&mut self, _: Port, _: PortWidth) -> u32 {
        u32::MAX
    }
    fn pio_write(&mut self, _: Port, _: PortWidth, _: u32) {}
    fn mmio_read(&mut self, _: Gpa, _: Width) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: Gpa, _: Width, _: u64) {}
    fn msr_read(&mut self, msr: u32) -> Option<Result<u64, MsrFault>> {
        (msr == IA32_APIC_BASE).then_some(Ok(self.0))
    }
    fn msr_write(&mut self, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        (msr == IA32_APIC_BASE).then(|| {
            self.0 = value;
            Ok(())
        })
    }
    fn ack_interrupt(&mut self) -> Option<Vector> {
        None
    }
    fn task_priority(&mut self) -> u8 {
        0
    }
    fn set_task_priority(&mut self, _: u8) {}
}

/// Runs `code` in real mode with `registers` (EAX, ECX, EDX) until HLT; every vector leads to a HLT
/// at its number's address.
fn run(model: &str, io: &mut Base, code: &[u8], registers: [u64; 3]) -> CpuState {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("a megabyte");
    for vector in 0..32u64 {
        ram.write(Gpa(vector * 4), &[vector as u8, 0x10, 0, 0]).expect("in RAM");
    }
    ram.write(Gpa(0x1000), &[0xf4; 32]).expect("in RAM");
    ram.write(Gpa(CODE), code).expect("in RAM");
    let mut state = CpuState::reset();
    state.seg[1].selector = 0;
    state.seg[1].base = 0;
    state.rip = CODE;
    state.gpr[gpr::RSP] = 0x7000;
    state.gpr[..3].copy_from_slice(&registers);
    let model = CpuModel::parse(model).expect("a known model");
    let mut vcpu = SoftVcpu::new(ram, model).expect("the engine runs here");
    vcpu.set(Elements::all(), &state).expect("a state");
    vcpu.run(io, Slice { instructions: 100 });
    vcpu.state_now().clone()
}

#[test]
fn cpuid_shows_the_apic_while_it_is_enabled() {
    let code = [0x0f, 0xa2, 0xf4];
    for (value, shown) in [(x86::apic::DEFAULT_BASE | base::EN, APIC), (x86::apic::DEFAULT_BASE, 0)]
    {
        let state = run("gemello-v2", &mut Base(value), &code, [1, 0, 0]);
        assert_eq!(state.gpr[2] & APIC, shown, "{value:#x}");
    }
    // Bit 9 of other leaves is another thing: SSSE3 in leaf 1's ECX stays, and so does leaf
    // 80000001H.
    let extended = run("gemello-v2", &mut Base(0), &code, [0x8000_0001, 0, 0]);
    let enabled = run("gemello-v2", &mut Base(base::EN), &code, [0x8000_0001, 0, 0]);
    assert_eq!(extended.gpr[2], enabled.gpr[2]);
}

#[test]
fn what_the_processor_refuses_does_not_reach_the_apic() {
    let code = [0x0f, 0x30, 0xf4];
    let faulted = 0x1000 + Vector::GP.0 as u64 + 1;
    let msr = u64::from(IA32_APIC_BASE);
    let before = x86::apic::DEFAULT_BASE | base::EN;
    let cases = [
        ("gemello-v2", before | base::EXTD, true),
        ("gemello-v2,-x2apic", before | base::EXTD, false),
        ("gemello-v2", before | 1 << 60, false),
    ];
    for (model, value, allowed) in cases {
        let mut io = Base(before);
        let state = run(model, &mut io, &code, [value & 0xffff_ffff, msr, value >> 32]);
        assert_eq!(io.0, if allowed { value } else { before }, "{model} {value:#x}");
        assert_eq!(state.rip == faulted, !allowed, "{model} {value:#x}: {:#x}", state.rip);
    }
}
