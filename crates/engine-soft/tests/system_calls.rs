//! What a kernel's way in and out of a system call is made of stays in translated code: SYSCALL,
//! SYSRET, STI, and POP RSP.

mod long_mode;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use memory::GuestRam;
use vcpu::{Elements, Exit, NoDevices, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::regs::{Cr0, Cr4, Efer, Rflags};
use x86::state::{CpuState, gpr};

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
    let (vcpu, exit) = run(tier, ram, &long_mode::at(CODE, TABLES));
    assert!(matches!(exit, Exit::Halted(_)), "{exit:?}");
    vcpu
}

/// A processor that ran from `state` until something ended it, and what that was.
fn run(tier: Tier, ram: GuestRam, state: &CpuState) -> (SoftVcpu, Exit) {
    let model = CpuModel::gemello_v2();
    let mut vcpu = SoftVcpu::with_tier(ram, model, tier, CODE_CACHE / 16).expect("an engine");
    if tier != Tier::Interpret {
        vcpu.translate_at_once();
    }
    vcpu.set(Elements::all(), state).expect("a state");
    let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
    (vcpu, exit)
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

/// Where a kernel is called.
const KERNEL: u64 = 0x1_1000;
/// User code and its stack, each on a page of 2 MiB.
const USER: u64 = 0x40_0000;
const USER_STACK: u64 = 0x80_0800;
/// Address spaces that differ in where the user's stack is.
const SPACES: [u64; 2] = [0x10_0000, 0x11_0000];
const STACKS: [u64; 2] = [0x20_0000, 0x60_0000];
/// Where an address space's entry for that is.
const STACK_ENTRY: u64 = 0x2020;
const STAR: u64 = 0x0033_0008 << 32;
const OTHER_STAR: u64 = 0x0053_0028 << 32;
/// RFLAGS.AC.
const AC: u64 = 1 << 18;

/// What differs from one run of [`calls`] to another.
#[derive(Clone, Copy, Debug)]
struct Kind {
    fmask: u64,
    /// RFLAGS of the user's.
    flags: u64,
    kernel: Kernel,
    user: User,
}

/// What the kernel does with each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Nothing,
    /// Changes to the other address space.
    Space,
    /// Maps the stack as the other address space does.
    Page,
    /// Has the other selectors from now on.
    Star,
    /// Uses the user's stack: with RFLAGS.AC, as SMAP demands, and in the end without.
    UserStack,
}

/// What the user does in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Ends,
    /// What only the kernel may.
    Cli,
    /// An access that is not aligned.
    Misaligned,
}

/// Adds CS and SS to `sum`.
fn selectors(a: &mut CodeAssembler, sum: AsmRegister64) -> Result<(), IcedError> {
    for selector in [cs, ss] {
        a.mov(edi, selector)?;
        a.add(sum, rdi)?;
    }
    Ok(())
}

/// Does what is asked with each call, and sums up what it sees.
fn kernel(a: &mut CodeAssembler, kind: Kernel) -> Result<(), IcedError> {
    if kind == Kernel::UserStack {
        return kernel_on_the_users_stack(a);
    }
    let mut end = a.create_label();
    a.mov(r15, rsp)?;
    a.mov(rsp, STACK)?;
    a.pushfq()?;
    a.push(rcx)?;
    a.push(r11)?;
    a.test(ebp, ebp)?;
    a.jnz(end)?;
    match kind {
        Kernel::Nothing | Kernel::UserStack => {}
        Kernel::Space => {
            a.mov(rdx, cr3)?;
            a.xor(edx, (SPACES[0] ^ SPACES[1]) as i32)?;
            a.mov(cr3, rdx)?;
        }
        Kernel::Page => {
            a.mov(edx, (SPACES[0] + STACK_ENTRY) as u32)?;
            a.xor(dword_ptr(rdx), (STACKS[0] ^ STACKS[1]) as i32)?;
            a.invlpg(byte_ptr(USER_STACK))?;
        }
        Kernel::Star => {
            a.mov(ecx, 0xc000_0081u32)?;
            a.rdmsr()?;
            a.xor(edx, ((STAR ^ OTHER_STAR) >> 32) as i32)?;
            a.wrmsr()?;
        }
    }
    selectors(a, r14)?;
    a.pop(r11)?;
    a.pop(rcx)?;
    a.pop(rdx)?;
    a.add(r14, rdx)?;
    a.mov(rsp, r15)?;
    a.sysretq()?;
    a.set_label(&mut end)?;
    a.hlt()
}

fn kernel_on_the_users_stack(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut out = a.create_label();
    a.cmp(r12d, 10)?;
    a.jbe(out)?;
    a.mov(r15, rsp)?;
    a.mov(rsp, STACK)?;
    a.push((AC | 2) as i32)?;
    a.popfq()?;
    a.mov(rsp, r15)?;
    a.set_label(&mut out)?;
    a.push(rdx)?;
    a.pop(rdx)?;
    a.sysretq()
}

/// Calls the kernel so often, pushes and pops, and sums up what it sees of its stack, selectors,
/// RCX and R11.
fn user(a: &mut CodeAssembler, kind: User) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(rsp, USER_STACK)?;
    a.mov(r12d, TIMES)?;
    a.set_label(&mut again)?;
    a.push(r12)?;
    a.add(r13, r12)?;
    a.syscall()?;
    a.pop(rdi)?;
    for sum in [rdi, rcx, r11] {
        a.add(r13, sum)?;
    }
    selectors(a, r13)?;
    a.dec(r12d)?;
    a.jnz(again)?;
    match kind {
        User::Ends => {}
        User::Cli => a.cli()?,
        User::Misaligned => a.mov(edi, dword_ptr(rsp + 1))?,
    }
    a.mov(ebp, 1)?;
    a.syscall()
}

fn calls(tier: Tier, kind: Kind) -> (SoftVcpu, Exit) {
    let ram = GuestRam::new(&[(Gpa(0), 8 << 20)]).expect("some memory");
    let put = |at: u64, value: u64| ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
    for (space, stack) in SPACES.into_iter().zip(STACKS) {
        put(space, (space + 0x1000) | 7);
        put(space + 0x1000, (space + 0x2000) | 7);
        put(space + 0x2000, 0x83);
        put(space + 0x2010, USER | 0x87);
        put(space + STACK_ENTRY, stack | 0x87);
    }
    let code = |at, write: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        ram.write(Gpa(at), &long_mode::assemble(at, write)).expect("in RAM");
    };
    code(CODE, &|a| {
        a.mov(ecx, USER as u32)?;
        a.mov(r11, kind.flags)?;
        a.sysretq()
    });
    code(USER, &|a| user(a, kind.user));
    code(KERNEL, &|a| kernel(a, kind.kernel));
    let mut state = long_mode::at(CODE, SPACES[0]);
    state.paging.efer |= Efer::SCE;
    state.paging.cr0 |= Cr0::AM;
    state.paging.cr4.set(Cr4::SMAP, kind.kernel == Kernel::UserStack);
    (state.msr.star, state.msr.lstar, state.msr.fmask) = (STAR, KERNEL, kind.fmask);
    run(tier, ram, &state)
}

/// What the tiers must agree in, and the translator's processor.
fn on_both(kind: Kind) -> (SoftVcpu, Exit) {
    let [expected, found] = [Tier::Interpret, Tier::Translate].map(|tier| calls(tier, kind));
    let parts = |(vcpu, exit): &(SoftVcpu, Exit)| {
        let state = vcpu.state_now();
        let mut gprs = state.gpr;
        // Where the engine keeps a block's address.
        gprs[gpr::BLOCK_IP] = 0;
        let exit = std::mem::discriminant(exit);
        (exit, gprs, state.rip, state.seg, state.cpl, state.flags, state.paging.cr3)
    };
    assert_eq!(parts(&expected), parts(&found), "{kind:?}");
    found
}

#[test]
fn system_calls_stay_in_translated_code() {
    let (linux, user) = (0x25_7fd5, User::Ends);
    for fmask in [0, Rflags::IF.bits(), 0x8d5, linux, u64::from(u32::MAX)] {
        for flags in [2, 0x202, 0xad7, 0x602, AC | 0x202, 0x20_3202] {
            for kernel in [Kernel::Nothing, Kernel::Space, Kernel::Page, Kernel::Star] {
                let kind = Kind { fmask, flags, kernel, user };
                let (found, exit) = on_both(kind);
                assert!(matches!(exit, Exit::Halted(_)), "{kind:?} {exit:?}");
                if kernel == Kernel::Nothing && flags & AC == 0 {
                    stays(&found);
                }
            }
        }
    }
}

/// There is no handler for the fault: it ends in a shutdown.
#[test]
fn what_a_level_may_not_it_may_not_behind_a_system_call() {
    let none = Kernel::Nothing;
    for (flags, fmask, kernel, user) in [
        (2, 0, none, User::Cli),
        (2, u64::from(u32::MAX), none, User::Cli),
        (AC | 2, 0, none, User::Misaligned),
        (AC | 2, AC, none, User::Misaligned),
        (2, AC, Kernel::UserStack, User::Ends),
    ] {
        let kind = Kind { fmask, flags, kernel, user };
        let (_, exit) = on_both(kind);
        assert!(matches!(exit, Exit::Shutdown), "{kind:?} {exit:?}");
    }
}
