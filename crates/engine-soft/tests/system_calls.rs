//! What a kernel's way in and out of a system call is made of stays in translated code: STI, and
//! POP RSP.

mod long_mode;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use memory::GuestRam;
use vcpu::{Elements, Exit, NoDevices, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::regs::Rflags;
use x86::state::gpr;

const CODE: u64 = 0x1_0000;
const TABLES: u64 = 0x1000;
const STACK: u64 = 0x9000;
const OTHER_STACK: u64 = 0x7ff0;
const TIMES: u32 = 1000;

/// A processor that has run the code of `body` so often, and then a HLT.
fn ran(tier: Tier, body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> SoftVcpu {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("some memory");
    let put = |at: u64, value: u64| ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
    put(TABLES, (TABLES + 0x1000) | 3);
    put(TABLES + 0x1000, (TABLES + 0x2000) | 3);
    put(TABLES + 0x2000, 0x83);
    put(OTHER_STACK, 0x1234);
    let code = long_mode::assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(ecx, TIMES)?;
        a.set_label(&mut again)?;
        a.mov(rsp, STACK)?;
        body(a)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    ram.write(Gpa(CODE), &code).expect("in RAM");
    let model = CpuModel::gemello_v2();
    let mut vcpu = SoftVcpu::with_tier(ram, model, tier, CODE_CACHE / 16).expect("an engine");
    if tier != Tier::Interpret {
        vcpu.translate_at_once();
    }
    vcpu.set(Elements::all(), &long_mode::at(CODE, TABLES)).expect("a state");
    let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
    assert!(matches!(exit, Exit::Halted(_)), "{exit:?}");
    vcpu
}

/// Exits of translated code: far fewer than `TIMES`.
fn stays(vcpu: &SoftVcpu) {
    let exits = vcpu.statistics().translated_exits;
    assert!(exits < u64::from(TIMES) / 10, "translated code was left {exits} times");
}

#[test]
fn sti_opens_interrupts_in_place() {
    for tier in [Tier::Interpret, Tier::Translate] {
        let vcpu = ran(tier, |a| {
            a.cli()?;
            a.sti()?;
            a.inc(ebx)
        });
        let state = vcpu.state_now();
        assert_eq!(state.gpr[gpr::RBX], u64::from(TIMES));
        assert!(state.flags.bits() & Rflags::IF.bits() != 0);
        if tier == Tier::Translate {
            stays(&vcpu);
        }
    }
}

/// Where interrupts are open, STI does not delay them: what runs behind it is in no shadow.
#[test]
fn sti_casts_its_shadow_once() {
    ran(Tier::Lockstep, |a| {
        a.sti()?;
        a.in_(al, 0x80u32)
    });
    ran(Tier::Lockstep, |a| {
        a.cli()?;
        a.sti()?;
        a.sti()?;
        a.in_(al, 0x80u32)
    });
}

#[test]
fn pop_rsp_goes_on_where_it_leads() {
    for tier in [Tier::Interpret, Tier::Translate] {
        let vcpu = ran(tier, |a| {
            a.push(1)?;
            a.mov(rax, OTHER_STACK)?;
            a.push(rax)?;
            a.pop(rsp)?;
            a.pop(rdx)?;
            a.mov(rbx, rsp)
        });
        let state = vcpu.state_now();
        assert_eq!((state.gpr[gpr::RDX], state.gpr[gpr::RBX]), (0x1234, OTHER_STACK + 8));
        if tier == Tier::Translate {
            stays(&vcpu);
        }
    }
}
