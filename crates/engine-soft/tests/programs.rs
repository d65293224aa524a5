//! A program whose code lies elsewhere in each address space, as all do that are independent of
//! their position, goes from page to page without leaving translated code.

mod long_mode;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use memory::GuestRam;
use vcpu::{Elements, Exit, NoDevices, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::regs::{Cr4, Efer};
use x86::state::{CpuState, gpr};

/// Where the kernel begins, and where it is called.
const START: u64 = 0x1_0000;
const KERNEL: u64 = 0x1_1000;
/// Page tables, and the process-context identifiers where these are in use.
const SPACES: [u64; 2] = [0x10_0000, 0x11_0000];
const PCIDS: [u64; 2] = [1, 2];
/// Where the program is in either, a page and the one behind it.
const PROGRAM: [u64; 2] = [0x40_0000, 0x40_8000];
const FIRST: u64 = 0x2_0000;
/// The second page, which is another one in each address space.
const SECOND: [u64; 2] = [0x2_1000, 0x2_2000];
/// What it adds to RBX.
const ADDS: [u32; 2] = [1, 0x10_0000];
/// Rounds of the program each time it is called, and how often that is.
const ROUNDS: u32 = 20_000;
const TIMES: u64 = 6;

/// Goes to the other address space, and calls the program there.
fn kernel(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut end = a.create_label();
    a.dec(r14)?;
    a.jz(end)?;
    a.mov(rdx, cr3)?;
    a.xor(rdx, r13)?;
    a.or(rdx, r10)?;
    a.mov(cr3, rdx)?;
    a.xor(r12, (PROGRAM[0] ^ PROGRAM[1]) as i32)?;
    a.mov(rcx, r12)?;
    a.mov(ebp, ROUNDS)?;
    a.sysretq()?;
    a.set_label(&mut end)?;
    a.hlt()
}

fn memory() -> GuestRam {
    let ram = GuestRam::new(&[(Gpa(0), 2 << 20)]).expect("some memory");
    let write = |at: u64, bytes: &[u8]| ram.write(Gpa(at), bytes).expect("in RAM");
    let put = |at: u64, value: u64| write(at, &value.to_le_bytes());
    for n in 0..2 {
        let (space, program) = (SPACES[n], PROGRAM[n] >> 12 & 0x1ff);
        put(space, (space + 0x1000) | 7);
        put(space + 0x1000, (space + 0x2000) | 7);
        put(space + 0x2000, 0x83);
        put(space + 0x2010, (space + 0x3000) | 7);
        put(space + 0x3000 + 8 * program, FIRST | 5);
        put(space + 0x3008 + 8 * program, SECOND[n] | 5);
        write(
            SECOND[n],
            &long_mode::assemble(PROGRAM[0] + 0x1000, |a| {
                a.add(rbx, ADDS[n] as i32)?;
                a.dec(ebp)?;
                a.jnz(PROGRAM[0])?;
                a.syscall()
            }),
        );
    }
    write(FIRST, &long_mode::assemble(PROGRAM[0], |a| a.jmp(PROGRAM[0] + 0x1000)));
    write(KERNEL, &long_mode::assemble(KERNEL, kernel));
    write(START, &long_mode::assemble(START, CodeAssembler::sysretq));
    ram
}

/// The state before the program is called the first time.
fn state(identifiers: bool) -> CpuState {
    let mut state = long_mode::at(START, SPACES[0]);
    state.paging.efer |= Efer::SCE;
    let mut differ = SPACES[0] ^ SPACES[1];
    if identifiers {
        state.paging.cr4 |= Cr4::PCIDE;
        state.paging.cr3 |= PCIDS[0];
        differ |= PCIDS[0] ^ PCIDS[1];
        // MOV to CR3 drops nothing (SDM vol. 3, 4.10.4.1).
        state.gpr[10] = 1 << 63;
    }
    (state.msr.star, state.msr.lstar) = (0x0033_0008 << 32, KERNEL);
    (state.gpr[gpr::RCX], state.gpr[gpr::RBP]) = (PROGRAM[0], u64::from(ROUNDS));
    state.gpr[11..15].copy_from_slice(&[2, PROGRAM[0], differ, TIMES]);
    state
}

#[test]
fn a_program_that_lies_elsewhere_in_each_address_space_is_linked_in_each() {
    for identifiers in [false, true] {
        for tier in [Tier::Interpret, Tier::Translate] {
            let (model, memory) = (CpuModel::gemello_v2(), memory());
            let mut vcpu =
                SoftVcpu::with_tier(memory, model, tier, CODE_CACHE / 16).expect("an engine");
            vcpu.set(Elements::all(), &state(identifiers)).expect("a state");
            let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
            assert!(matches!(exit, Exit::Halted(_)), "{exit:?}");
            let sum = u64::from(ROUNDS) * TIMES / 2 * u64::from(ADDS[0] + ADDS[1]);
            assert_eq!(vcpu.state_now().gpr[gpr::RBX], sum, "{tier:?}");
            let exits = vcpu.statistics().translated_exits;
            // One in so many ways without a link leaves translated code.
            assert!(exits < u64::from(ROUNDS) / 64, "{exits} exits, {identifiers}");
        }
    }
}
