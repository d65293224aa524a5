//! Setting the control registers drops the translations that a processor has cached, even if
//! nothing changes: what a paravirtual flush stands on.

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use memory::GuestRam;
use vcpu::{Elements, NoDevices, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::regs::{Cr0, Cr4};
use x86::state::{CpuState, Seg, Segment, gpr};

const CODE: u64 = 0x8000;
const DIRECTORY: u64 = 0x1000;
/// Global, 4 MiB, writable, present.
const LARGE: u32 = 0x183;
const REGION: u64 = 4 << 20;

/// 32-bit code at level 0 with 4 MiB pages.
fn state() -> CpuState {
    let mut state = CpuState::reset();
    let flat = |access| Segment { base: 0, limit: u32::MAX, selector: 8, access };
    state.seg = [flat(0xc093); 6];
    state.seg[Seg::Cs as usize] = flat(0xc09b);
    state.paging.cr0 = Cr0::PE | Cr0::PG | Cr0::ET;
    state.paging.cr4 = Cr4::PSE | Cr4::PGE;
    state.paging.cr3 = DIRECTORY;
    state.rip = CODE;
    state
}

#[test]
fn control_registers_drop_translations() {
    for tier in [Tier::Interpret, Tier::Translate] {
        let ram = GuestRam::new(&[(Gpa(0), 3 * REGION)]).expect("memory");
        let write = |at: u64, value: u32| ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
        write(DIRECTORY, LARGE);
        write(DIRECTORY + 4, REGION as u32 | LARGE);
        write(REGION + 0x100, 1);
        write(2 * REGION + 0x100, 2);
        // again: mov eax, [400100h]; jmp again
        ram.write(Gpa(CODE), &[0xa1, 0x00, 0x01, 0x40, 0x00, 0xeb, 0xf9]).expect("in RAM");
        let mut vcpu = SoftVcpu::with_tier(ram.clone(), CpuModel::gemello_v2(), tier, CODE_CACHE)
            .expect("the engine runs here");
        if tier == Tier::Translate {
            vcpu.translate_at_once();
        }
        vcpu.set(Elements::all(), &state()).expect("a state");
        let read = |vcpu: &mut SoftVcpu| {
            vcpu.run(&mut NoDevices, Slice { instructions: 100 });
            vcpu.state_now().gpr[gpr::RAX]
        };
        assert_eq!(read(&mut vcpu), 1);
        // The page tables change, and nobody tells the processor.
        write(DIRECTORY + 4, (2 * REGION) as u32 | LARGE);
        assert_eq!(read(&mut vcpu), 1, "the test has no translation that could be dropped");
        let mut same = CpuState::reset();
        vcpu.get(Elements::CONTROL, &mut same).expect("it can be read");
        vcpu.set(Elements::CONTROL, &same).expect("its own");
        assert_eq!(read(&mut vcpu), 2);
    }
}
