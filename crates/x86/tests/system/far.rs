//! Far JMP, CALL and RET (SDM vol. 2; vol. 3, 5.8).

use crate::machine::*;
use x86::addr::{Vector, Width};
use x86::exception::Exception;
use x86::far::{far_call, far_jump, far_return};
use x86::state::{CpuState, Mode, Seg, Segment, gpr};

const NEXT: u64 = CODE_IP + 7;

fn jump(
    s: &mut CpuState,
    m: &mut Machine,
    selector: u16,
    offset: u64,
    size: Width,
) -> Result<(), Exception> {
    far_jump(s, m, selector, offset, size, NEXT)
}

fn call(
    s: &mut CpuState,
    m: &mut Machine,
    selector: u16,
    offset: u64,
    size: Width,
) -> Result<(), Exception> {
    far_call(s, m, selector, offset, size, NEXT)
}

#[test]
fn real_mode_jump_and_call() {
    let (mut s, mut m) = real();
    jump(&mut s, &mut m, 0x3000, 0xf_5678, Width::B2).unwrap();
    assert_eq!((s.rip, s.seg[1].base), (0x5678, 0x3_0000));
    call(&mut s, &mut m, 0x1000, 0x10, Width::B2).unwrap();
    assert_eq!(m.items(0x4_8ffc, 2, 2), [NEXT, 0x3000]);
    assert_eq!((s.rip, s.seg[1].base, rsp(&s)), (0x10, 0x1_0000, 0xabcd_8ffc));
    far_return(&mut s, &mut m, Width::B2, 4).unwrap();
    assert_eq!((s.rip, s.seg[1].base, rsp(&s)), (NEXT, 0x3_0000, 0xabcd_9004));
    let outcome = fails(&mut s, &mut m, |s, m| jump(s, m, 0, 0x1_0000, Width::B4));
    assert_eq!(outcome, (Vector::GP, 0), "beyond the limit");
}

#[test]
fn virtual_8086_mode_jumps_like_an_8086() {
    let (mut s, mut m) = virtual_8086();
    call(&mut s, &mut m, 0x3000, 0x5678, Width::B2).unwrap();
    assert_eq!(m.items(0x5_901c, 2, 2), [NEXT, 0x5001]);
    assert_eq!((s.seg[1].base, s.seg[1].access, s.cpl), (0x3_0000, 0xf3, 3));
    far_return(&mut s, &mut m, Width::B2, 0).unwrap();
    assert_eq!((s.rip, s.seg[1].base), (NEXT, 0x5_0010));
}

#[test]
fn direct_transfers() {
    let (mut s, mut m) = kernel32();
    jump(&mut s, &mut m, CODE16, 0x1234_5678, Width::B2).unwrap();
    assert_eq!((s.rip, s.mode(), s.seg[1].base), (0x5678, Mode::Protected16, 0x5_0000));
    assert_eq!(m.descriptor(CODE16) >> 40 & 1, 1, "accessed");
    call(&mut s, &mut m, CODE0, 0x1234_5678, Width::B4).unwrap();
    assert_eq!(m.items(STACK - 8, 4, 2), [NEXT, CODE16.into()]);
    assert_eq!((s.rip, rsp(&s), selector(&s, Seg::Cs)), (0x1234_5678, STACK - 8, CODE0));
    far_return(&mut s, &mut m, Width::B4, 0x10).unwrap();
    assert_eq!((s.rip, rsp(&s), selector(&s, Seg::Cs)), (NEXT, STACK + 0x10, CODE16));
}

#[test]
fn conforming_code_keeps_the_level() {
    let (mut s, mut m) = user32();
    jump(&mut s, &mut m, CONFORMING0, 0x4000, Width::B4).unwrap();
    assert_eq!((s.cpl, selector(&s, Seg::Cs)), (3, CONFORMING0 | 3));
}

#[test]
fn direct_refusals() {
    for (user, selector, vector) in [
        (false, 0, Vector::GP),
        (false, GDT_LIMIT + 1, Vector::GP),
        (false, DATA0, Vector::GP),
        (false, CODE3 & !3, Vector::GP), // nonconforming: DPL must equal CPL
        (true, CODE0, Vector::GP),
        (false, CODE0 | 3, Vector::GP), // and RPL not exceed it
        (false, CODE0_ABSENT, Vector::NP),
        (false, LDT_SELECTOR, Vector::GP),
    ] {
        for transfer in [jump, call] {
            let (mut s, mut m) = if user { user32() } else { kernel32() };
            let outcome = fails(&mut s, &mut m, |s, m| transfer(s, m, selector, 0, Width::B4));
            assert_eq!(outcome, (vector, u32::from(selector & !3)), "{selector:#x}");
        }
    }
    let (mut s, mut m) = kernel32();
    m.set_descriptor(CONFORMING0, descriptor(0, 0xf_ffff, 0xfe, 0xc));
    let outcome = fails(&mut s, &mut m, |s, m| jump(s, m, CONFORMING0, 0, Width::B4));
    assert_eq!(outcome, (Vector::GP, CONFORMING0.into()), "conforming code of an outer level");
    let outcome = fails(&mut s, &mut m, |s, m| jump(s, m, SMALL_CODE0, 0x1000, Width::B4));
    assert_eq!(outcome, (Vector::GP, 0), "beyond the limit");
    s.seg[Seg::Ss as usize].limit = STACK as u32 - 6;
    let outcome = fails(&mut s, &mut m, |s, m| call(s, m, CODE0, 0, Width::B4));
    assert_eq!(outcome, (Vector::SS, 0), "no room to push");
}

#[test]
fn a_call_gate_to_the_inner_level_copies_parameters() {
    let (mut s, mut m) = user32();
    m.set_descriptor(GATE, gate(CODE0, 0x7654_3210, 0xec, 2));
    m.lay(STACK, 4, &[0xaaaa, 0xbbbb, 0xcccc]);
    call(&mut s, &mut m, GATE | 3, 0xdead, Width::B4).unwrap();
    let frame = [NEXT, CODE3.into(), 0xaaaa, 0xbbbb, STACK, DATA3.into()];
    assert_eq!(m.items(STACK0 - 24, 4, 6), frame);
    assert_eq!((s.cpl, s.rip, rsp(&s)), (0, 0x7654_3210, STACK0 - 24));
    assert_eq!((selector(&s, Seg::Cs), selector(&s, Seg::Ss)), (CODE0, DATA0));

    far_return(&mut s, &mut m, Width::B4, 8).unwrap();
    assert_eq!((s.cpl, s.rip, rsp(&s)), (3, NEXT, STACK + 8), "parameters leave both stacks");
    assert_eq!((selector(&s, Seg::Cs), selector(&s, Seg::Ss)), (CODE3, DATA3));
}

#[test]
fn a_16_bit_call_gate_uses_words() {
    let (mut s, mut m) = user32();
    m.set_descriptor(GATE, gate(CODE0, 0x7654_3210, 0xe4, 1));
    m.lay(STACK, 2, &[0xaaaa]);
    call(&mut s, &mut m, GATE | 3, 0, Width::B4).unwrap();
    let frame = [NEXT, CODE3.into(), 0xaaaa, STACK, DATA3.into()];
    assert_eq!(m.items(STACK0 - 10, 2, 5), frame);
    assert_eq!(s.rip, 0x3210);
}

#[test]
fn a_call_gate_at_the_same_level_pushes_the_return_address_only() {
    let (mut s, mut m) = kernel32();
    m.set_descriptor(GATE, gate(CODE0, 0x4444, 0x8c, 3));
    call(&mut s, &mut m, GATE, 0, Width::B2).unwrap();
    assert_eq!((rsp(&s), s.rip), (STACK - 8, 0x4444));
    jump(&mut s, &mut m, GATE, 0, Width::B2).unwrap();
    assert_eq!((rsp(&s), s.rip), (STACK - 8, 0x4444));
}

#[test]
fn call_gate_refusals() {
    let try_gate = |raw, selector, transfer: fn(&mut _, &mut _, _, _, _) -> _| {
        let (mut s, mut m) = user32();
        m.set_descriptor(GATE, raw);
        fails(&mut s, &mut m, |s, m| transfer(s, m, selector, 0, Width::B4))
    };
    let gate_code = u32::from(GATE);
    assert_eq!(
        try_gate(gate(CODE0, 0, 0x8c, 0), GATE, call),
        (Vector::GP, gate_code),
        "gate DPL < CPL"
    );
    assert_eq!(
        try_gate(gate(CODE1, 0, 0xac, 0), GATE | 3, call),
        (Vector::GP, gate_code),
        "DPL < RPL"
    );
    assert_eq!(try_gate(gate(CODE0, 0, 0x6c, 0), GATE, call), (Vector::NP, gate_code));
    assert_eq!(try_gate(gate(0, 0, 0xec, 0), GATE, call), (Vector::GP, 0));
    assert_eq!(try_gate(gate(DATA0, 0, 0xec, 0), GATE, call), (Vector::GP, DATA0.into()));
    assert_eq!(
        try_gate(gate(CODE0_ABSENT, 0, 0xec, 0), GATE, call),
        (Vector::NP, CODE0_ABSENT.into())
    );
    assert_eq!(
        try_gate(gate(CODE0, 0, 0xec, 0), GATE, jump),
        (Vector::GP, CODE0.into()),
        "JMP inward"
    );
    let (mut s, mut m) = user32();
    m.set_descriptor(GATE, gate(CODE0, 0, 0xec, 0));
    m.put(TSS + 8, 2, DATA3.into());
    let outcome = fails(&mut s, &mut m, |s, m| call(s, m, GATE, 0, Width::B4));
    assert_eq!(outcome, (Vector::TS, u32::from(DATA3 & !3)));
    m.put(TSS + 8, 2, EXPAND_DOWN0.into());
    m.put(TSS + 4, 4, 0x1008);
    let outcome = fails(&mut s, &mut m, |s, m| call(s, m, GATE, 0, Width::B4));
    assert_eq!(outcome, (Vector::SS, EXPAND_DOWN0.into()), "no room on the new stack");
    let (mut s, mut m) = kernel32();
    m.set_descriptor(GATE, gate(CODE0, 0, 0x8c, 0));
    let outcome = fails(&mut s, &mut m, |s, m| call(s, m, GATE | 3, 0, Width::B4));
    assert_eq!(outcome, (Vector::GP, gate_code), "RPL, at level 0");
    m.set_descriptor(GATE, gate(CODE3, 0, 0xec, 0));
    let outcome = fails(&mut s, &mut m, |s, m| call(s, m, GATE, 0, Width::B4));
    assert_eq!(outcome, (Vector::GP, u32::from(CODE3 & !3)), "outward");
}

#[test]
fn far_return_refusals() {
    let (mut s, mut m) = user32();
    m.lay(STACK, 4, &[0x1000, CODE0.into()]);
    let outcome = fails(&mut s, &mut m, |s, m| far_return(s, m, Width::B4, 0));
    assert_eq!(outcome, (Vector::GP, CODE0.into()), "inward");
    let (mut s, mut m) = kernel32();
    m.lay(STACK, 4, &[0x1000, CODE3.into(), STACK, DATA0.into()]);
    let outcome = fails(&mut s, &mut m, |s, m| far_return(s, m, Width::B4, 0));
    assert_eq!(outcome, (Vector::GP, DATA0.into()), "SS of the wrong level");
    m.lay(STACK, 4, &[0x1000, SMALL_CODE0.into()]);
    let outcome = fails(&mut s, &mut m, |s, m| far_return(s, m, Width::B4, 0));
    assert_eq!(outcome, (Vector::GP, 0), "beyond the limit");
}

#[test]
fn an_outer_return_drops_privileged_segments() {
    let (mut s, mut m) = kernel32();
    m.lay(STACK, 4, &[0x1000, CODE3.into(), 0, 0x7000, DATA3.into()]);
    far_return(&mut s, &mut m, Width::B4, 4).unwrap();
    assert_eq!((rsp(&s), selector(&s, Seg::Ds), s.cpl), (0x7004, 0, 3));
}

mod long_mode {
    use super::*;

    fn set_gate(m: &Machine, selector: u16, offset: u64, access: u64) {
        m.set_descriptor(GATE, gate(selector, offset, access, 0));
        m.put(GDT + u64::from(GATE) + 8, 8, offset >> 32);
    }

    #[test]
    fn to_compatibility_mode_and_back() {
        let (mut s, mut m) = kernel64();
        call(&mut s, &mut m, CODE0, 0x4000, Width::B8).unwrap();
        assert_eq!((s.mode(), s.rip, rsp(&s)), (Mode::Protected32, 0x4000, STACK - 16));
        assert_eq!(m.items(STACK - 16, 8, 2), [NEXT, LONG0.into()]);
        jump(&mut s, &mut m, LONG0, 0x5000, Width::B4).unwrap();
        assert_eq!(s.mode(), Mode::Long64);
        far_return(&mut s, &mut m, Width::B8, 0).unwrap();
        assert_eq!((s.rip, rsp(&s)), (NEXT, STACK));
    }

    #[test]
    fn a_64_bit_call_gate() {
        let (mut s, mut m) = user64();
        set_gate(&m, LONG0, 0xffff_8000_1234_5678, 0xec);
        call(&mut s, &mut m, GATE, 0, Width::B4).unwrap();
        let frame = [NEXT, LONG3.into(), STACK, DATA3.into()];
        assert_eq!(m.items(STACK0 - 32, 8, 4), frame);
        assert_eq!((s.cpl, s.rip, selector(&s, Seg::Ss)), (0, 0xffff_8000_1234_5678, 0));
        far_return(&mut s, &mut m, Width::B8, 0).unwrap();
        assert_eq!((s.cpl, s.rip, rsp(&s)), (3, NEXT, STACK));
    }

    #[test]
    fn refusals() {
        let gp = |selector: u16| (Vector::GP, u32::from(selector));
        let (mut s, mut m) = kernel64();
        s.seg[Seg::Ss as usize] = Segment::null(0);
        let mut outcome =
            |selector| fails(&mut s, &mut m, |s, m| call(s, m, selector, 0, Width::B8));
        assert_eq!(outcome(LONG_AND_BIG0), gp(LONG_AND_BIG0));
        assert_eq!(outcome(TSS_SELECTOR), gp(TSS_SELECTOR), "no task switch in IA-32e mode");
        set_gate(&m, CODE0, 0, 0x8c);
        let outcome = fails(&mut s, &mut m, |s, m| call(s, m, GATE, 0, Width::B8));
        assert_eq!(outcome, gp(CODE0), "a gate leads to 64-bit code");
        set_gate(&m, LONG0, 0, 0x84);
        assert_eq!(
            fails(&mut s, &mut m, |s, m| call(s, m, GATE, 0, Width::B8)),
            gp(GATE),
            "16-bit gate"
        );
        set_gate(&m, LONG0, 0, 0x8c);
        m.put(GDT + u64::from(GATE) + 8, 8, 1 << 40);
        let outcome = fails(&mut s, &mut m, |s, m| call(s, m, GATE, 0, Width::B8));
        assert_eq!(outcome, gp(GATE), "the upper half's type field");
        set_gate(&m, LONG0, 0x8000_0000_0000, 0x8c);
        assert_eq!(
            fails(&mut s, &mut m, |s, m| call(s, m, GATE, 0, Width::B8)),
            gp(0),
            "not canonical"
        );
        let outcome = fails(&mut s, &mut m, |s, m| jump(s, m, LONG0, 0x8000_0000_0000, Width::B8));
        assert_eq!(outcome, gp(0));
    }

    #[test]
    fn a_return_below_level_3_may_have_a_null_stack() {
        let (mut s, mut m) = kernel64();
        m.set_descriptor(CODE1, descriptor(0, 0xf_ffff, 0xba, 0xa));
        m.lay(STACK, 8, &[0x1000, CODE1.into(), 0x7000, 1]);
        far_return(&mut s, &mut m, Width::B8, 0).unwrap();
        assert_eq!((s.cpl, selector(&s, Seg::Ss), s.gpr[gpr::RSP]), (1, 1, 0x7000));
        let (mut s, mut m) = kernel64();
        m.lay(STACK, 8, &[0x1000, LONG3.into(), 0x7000, 3]);
        let outcome = fails(&mut s, &mut m, |s, m| far_return(s, m, Width::B8, 0));
        assert_eq!(outcome, (Vector::GP, 0));
    }
}
