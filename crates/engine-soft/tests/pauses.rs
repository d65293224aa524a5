//! PAUSE: counted on both tiers, so that the machine hears of a processor that spins.

mod long_mode;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use iced_x86::code_asm::*;
use memory::GuestRam;
use vcpu::{CpuIo, Elements, Exit, MsrFault, NoDevices, Slice, Vcpu};
use x86::addr::{Gpa, Port, PortWidth, Vector, Width};
use x86::cpuid::CpuModel;
use x86::state::gpr;

const CODE: u64 = 0x1_0000;
const TABLES: u64 = 0x1000;

/// A machine that is nothing but asked, after as many PAUSEs as it says.
struct Asked {
    every: u32,
    times: u32,
}

impl CpuIo for Asked {
    fn pio_read(&mut self, port: Port, width: PortWidth) -> u32 {
        NoDevices.pio_read(port, width)
    }
    fn pio_write(&mut self, _: Port, _: PortWidth, _: u32) {}
    fn mmio_read(&mut self, gpa: Gpa, width: Width) -> u64 {
        NoDevices.mmio_read(gpa, width)
    }
    fn mmio_write(&mut self, _: Gpa, _: Width, _: u64) {}
    fn msr_read(&mut self, _: u32) -> Option<Result<u64, MsrFault>> {
        None
    }
    fn msr_write(&mut self, _: u32, _: u64) -> Option<Result<(), MsrFault>> {
        None
    }
    fn ack_interrupt(&mut self) -> Option<Vector> {
        None
    }
    fn task_priority(&mut self) -> u8 {
        0
    }
    fn set_task_priority(&mut self, _: u8) {}
    fn spins(&mut self) -> u32 {
        self.times += 1;
        self.every
    }
}

/// A processor in 64-bit mode that pauses `pauses` times, with flags alive over each PAUSE and
/// beside dead ones, and halts.
fn processor(tier: Tier, pauses: u32) -> SoftVcpu {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("some memory");
    let put = |at: u64, value: u64| ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
    put(TABLES, (TABLES + 0x1000) | 3);
    put(TABLES + 0x1000, (TABLES + 0x2000) | 3);
    put(TABLES + 0x2000, 0x83);
    let code = long_mode::assemble(CODE, |a| {
        let (mut live, mut dead) = (a.create_label(), a.create_label());
        a.mov(ecx, pauses / 2)?;
        a.set_label(&mut live)?;
        a.dec(ecx)?;
        a.pause()?;
        a.jnz(live)?;
        a.mov(ecx, pauses - pauses / 2)?;
        a.set_label(&mut dead)?;
        a.pause()?;
        a.dec(ecx)?;
        a.jnz(dead)?;
        a.hlt()
    });
    ram.write(Gpa(CODE), &code).expect("in RAM");

    let state = long_mode::at(CODE, TABLES);
    let model = CpuModel::gemello_v2();
    let mut vcpu = SoftVcpu::with_tier(ram, model, tier, CODE_CACHE / 16).expect("an engine");
    if tier == Tier::Translate {
        vcpu.translate_at_once();
    }
    vcpu.set(Elements::all(), &state).expect("a state");
    vcpu
}

#[test]
fn the_machine_is_asked_at_the_first_pause_and_after_as_many_as_it_says() {
    for tier in Tier::ALL {
        for every in [1, 7, 256, u32::MAX] {
            for pauses in [2, 255, 256, 1000] {
                let mut vcpu = processor(tier, pauses);
                let mut io = Asked { every, times: 0 };
                let exit = vcpu.run(&mut io, Slice::UNTIL_KICKED);
                assert!(matches!(exit, Exit::Halted(_)), "{tier:?}: {exit:?}");
                assert_eq!(vcpu.state_now().gpr[gpr::RCX], 0, "flags are kept over PAUSE");
                if tier != Tier::Lockstep {
                    assert_eq!(io.times, pauses.div_ceil(every), "{tier:?} {every} {pauses}");
                }
            }
        }
    }
}
