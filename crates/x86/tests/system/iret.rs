//! IRET in every mode (SDM vol. 2, IRET; vol. 3, 20.2.6, 20.3).

use crate::machine::*;
use x86::addr::{Vector, Width};
use x86::exception::Exception;
use x86::iret::iret;
use x86::regs::{Cr4, Rflags};
use x86::state::{CpuState, Flags, Mode, Seg, Segment, gpr};

const NEXT: u64 = CODE_IP + 1;
const ALL: u64 = 0xffff_ffff;

fn go(s: &mut CpuState, m: &mut Machine, size: Width) -> Result<(), Exception> {
    iret(s, m, size, NEXT)
}

fn flags(s: &CpuState) -> u64 {
    s.flags.bits()
}

mod real_mode {
    use super::*;

    #[test]
    fn pops_words() {
        let (mut s, mut m) = real();
        m.lay(0x4_9000, 2, &[0x5678, 0x3000, 0xffff]);
        go(&mut s, &mut m, Width::B2).unwrap();
        assert_eq!((s.rip, s.seg[1].base, rsp(&s)), (0x5678, 0x3_0000, 0xabcd_9006));
        assert_eq!(flags(&s), 0x7fd7);
    }

    /// The manual's mask 257FD5H; VM, VIF and VIP stay.
    #[test]
    fn a_32_bit_one_spares_the_virtual_flags() {
        let (mut s, mut m) = real();
        m.lay(0x4_9000, 4, &[0x5678, 0x3000, ALL]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!((flags(&s), rsp(&s) as u16), (0x25_7fd7, 0x900c));
    }

    #[test]
    fn ip_must_lie_in_the_segment() {
        let (mut s, mut m) = real();
        m.lay(0x4_9000, 4, &[0x1_0000, 0x3000, 0]);
        assert_eq!(fails(&mut s, &mut m, |s, m| go(s, m, Width::B4)), (Vector::GP, 0));
    }
}

mod protected_mode {
    use super::*;

    #[test]
    fn to_the_same_level() {
        let (mut s, mut m) = kernel32();
        m.lay(STACK, 4, &[0x1111_2222, CODE0.into(), ALL & !Rflags::VM.bits()]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!((s.rip, rsp(&s), s.cpl), (0x1111_2222, STACK + 12, 0));
        assert_eq!(flags(&s), 0x3d_7fd7, "everything but VM at level 0");
        assert_eq!(selector(&s, Seg::Ss), DATA0);
    }

    #[test]
    fn a_16_bit_one_leaves_the_upper_flags() {
        let (mut s, mut m) = kernel32();
        s.flags = Flags::from_bits(0x21_0202);
        m.lay(STACK, 2, &[0x2222, CODE0.into(), 0x0002]);
        go(&mut s, &mut m, Width::B2).unwrap();
        assert_eq!((s.rip, flags(&s), rsp(&s)), (0x2222, 0x21_0002, STACK + 6));
    }

    #[test]
    fn to_the_outer_level() {
        let (mut s, mut m) = kernel32();
        s.seg[Seg::Es as usize] = cached(&m, DATA3);
        s.seg[Seg::Fs as usize] = cached(&m, CONFORMING0);
        s.seg[Seg::Gs as usize] = Segment { base: 0x77, ..Segment::null(3) };
        m.lay(STACK, 4, &[0x4000, CODE3.into(), 0x202, 0xffff_0000, DATA3.into()]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!((s.cpl, s.rip, rsp(&s)), (3, 0x4000, 0xffff_0000));
        assert_eq!((selector(&s, Seg::Cs), selector(&s, Seg::Ss)), (CODE3, DATA3));
        assert_eq!((selector(&s, Seg::Ds), s.seg[Seg::Ds as usize].present()), (0, false));
        assert_eq!(selector(&s, Seg::Es), DATA3, "level 3 may use it");
        assert_eq!(selector(&s, Seg::Fs), CONFORMING0, "so it may conforming code");
        let gs = s.seg[Seg::Gs as usize];
        assert_eq!((gs.base, gs.selector), (0x77, 0), "null becomes 0, the base stays");
    }

    #[test]
    fn a_16_bit_outer_stack_takes_sp_only() {
        let (mut s, mut m) = kernel32();
        m.set_descriptor(DATA3, descriptor(0, 0xffff, 0xf2, 0));
        s.gpr[gpr::RSP] = STACK;
        m.lay(STACK, 4, &[0x4000, CODE3.into(), 0x202, 0x1234_5678, DATA3.into()]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!(rsp(&s), 0x5678, "the upper half is the old ESP's");
    }

    /// IF needs CPL <= IOPL, IOPL and the virtual flags level 0.
    #[test]
    fn user_code_cannot_raise_itself() {
        let (mut s, mut m) = user32();
        s.flags = Flags::from_bits(2);
        m.lay(STACK, 4, &[0x4000, CODE3.into(), ALL & !Rflags::NT.bits()]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!(flags(&s), 0x25_0dd7, "no IF, no IOPL, no VM, VIF or VIP");
        let (mut s, mut m) = user32();
        s.flags = Flags::from_bits(0x3002);
        m.lay(STACK, 4, &[0x4000, CODE3.into(), 0x0202]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!(flags(&s), 0x3202, "at IOPL 3 IF is the program's");
    }

    #[test]
    fn bad_code_selectors() {
        for (user, cs, vector, code) in [
            (false, 0, Vector::GP, 0),
            (false, GDT_LIMIT + 1, Vector::GP, GDT_LIMIT + 1),
            (false, DATA0, Vector::GP, DATA0),
            (false, CODE0 | 3, Vector::GP, CODE0), // DPL != RPL
            (false, CODE3 & !3, Vector::GP, CODE3 & !3), // likewise
            (true, CODE0, Vector::GP, CODE0),      // inward
            (false, CODE0_ABSENT, Vector::NP, CODE0_ABSENT),
        ] {
            let (mut s, mut m) = if user { user32() } else { kernel32() };
            m.lay(STACK, 4, &[0x4000, cs.into(), 0x202, STACK, DATA3.into()]);
            let outcome = fails(&mut s, &mut m, |s, m| go(s, m, Width::B4));
            assert_eq!(outcome, (vector, code.into()), "{cs:#x}");
        }
    }

    #[test]
    fn bad_stack_selectors() {
        for (ss, vector) in [
            (0, Vector::GP),
            (3, Vector::GP),
            (DATA0, Vector::GP),
            (DATA3 & !3, Vector::GP),
            (CODE3, Vector::GP),
            (READ_ONLY0 | 3, Vector::GP),
        ] {
            let (mut s, mut m) = kernel32();
            m.lay(STACK, 4, &[0x4000, CODE3.into(), 0x202, STACK, ss.into()]);
            let outcome = fails(&mut s, &mut m, |s, m| go(s, m, Width::B4));
            assert_eq!(outcome, (vector, u32::from(ss & !3)), "{ss:#x}");
        }
        let (mut s, mut m) = kernel32();
        m.set_descriptor(DATA3, descriptor(0, 0xf_ffff, 0x72, 0xc));
        m.lay(STACK, 4, &[0x4000, CODE3.into(), 0x202, STACK, DATA3.into()]);
        let outcome = fails(&mut s, &mut m, |s, m| go(s, m, Width::B4));
        assert_eq!(outcome, (Vector::SS, u32::from(DATA3 & !3)));
    }

    #[test]
    fn the_frame_must_lie_in_the_stack_and_eip_in_the_segment() {
        let (mut s, mut m) = kernel32();
        s.seg[Seg::Ss as usize].limit = STACK as u32 + 10;
        assert_eq!(fails(&mut s, &mut m, |s, m| go(s, m, Width::B4)), (Vector::SS, 0));
        let (mut s, mut m) = kernel32();
        m.lay(STACK, 4, &[0x1000, SMALL_CODE0.into(), 0x202]);
        assert_eq!(fails(&mut s, &mut m, |s, m| go(s, m, Width::B4)), (Vector::GP, 0));
    }

    /// SDM vol. 3, 6.7.1: even an IRET that faults ends NMI blocking.
    #[test]
    fn nmi_blocking_ends_in_any_case() {
        let (mut s, mut m) = kernel32();
        s.blocking.nmi = true;
        m.lay(STACK, 4, &[0x4000, 0, 0x202]);
        go(&mut s, &mut m, Width::B4).unwrap_err();
        assert!(!s.blocking.nmi);
        assert_eq!(rsp(&s), STACK);
    }
}

mod virtual_8086_mode {
    use super::*;

    #[test]
    fn entered_from_level_0() {
        let (mut s, mut m) = kernel32();
        let image = 0x2_3202;
        m.lay(STACK, 4, &[0x5678, 0x3000, image, 0x9_8000, 0x4000, 1, 2, 3, 4]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!((s.cpl, s.mode(), s.rip, rsp(&s)), (3, Mode::Virtual8086, 0x5678, 0x9_8000));
        assert_eq!(flags(&s), image);
        let selectors = s.seg.map(|segment| segment.selector);
        assert_eq!(selectors, [1, 0x3000, 0x4000, 2, 3, 4], "ES CS SS DS FS GS");
        let cs = Segment { base: 0x3_0000, limit: 0xffff, selector: 0x3000, access: 0xf3 };
        assert_eq!(s.seg[1], cs);
    }

    #[test]
    fn not_entered_from_level_3_or_with_16_bits() {
        let (mut s, mut m) = user32();
        m.lay(STACK, 4, &[0x5678, CODE3.into(), 0x2_0202]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!((s.mode(), flags(&s)), (Mode::Protected32, 0x202));
    }

    #[test]
    fn eip_must_be_16_bits() {
        let (mut s, mut m) = kernel32();
        m.lay(STACK, 4, &[0x1_0000, 0x3000, 0x2_0202, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fails(&mut s, &mut m, |s, m| go(s, m, Width::B4)), (Vector::GP, 0));
    }

    #[test]
    fn within_it_iopl_3_is_needed() {
        let (mut s, mut m) = virtual_8086();
        m.lay(0x5_9020, 2, &[0x5678, 0x3000, 0x0ed7]);
        assert_eq!(fails(&mut s, &mut m, |s, m| go(s, m, Width::B2)), (Vector::GP, 0));
        s.flags.set(Rflags::IOPL, true);
        go(&mut s, &mut m, Width::B2).unwrap();
        assert_eq!((s.rip, s.seg[1].base, rsp(&s)), (0x5678, 0x3_0000, STACK + 6));
        assert_eq!(flags(&s), 0x2_3ed7, "IOPL and VM stay");
    }

    #[test]
    fn with_vme_if_is_virtual() {
        let (mut s, mut m) = virtual_8086();
        s.paging.cr4 = Cr4::VME;
        m.lay(0x5_9020, 2, &[0x5678, 0x3000, 0x3202]);
        assert_eq!(
            fails(&mut s, &mut m, |s, m| go(s, m, Width::B4)),
            (Vector::GP, 0),
            "16 bits only"
        );
        let mut pending = s.clone();
        pending.flags.set(Rflags::VIP, true);
        assert_eq!(fails(&mut pending, &mut m, |s, m| go(s, m, Width::B2)), (Vector::GP, 0));
        go(&mut s, &mut m, Width::B2).unwrap();
        assert_eq!(flags(&s), 0xa_0202, "VIF set, IF and IOPL untouched");
        let (mut s, mut m) = virtual_8086();
        s.paging.cr4 = Cr4::VME;
        m.lay(0x5_9020, 2, &[0x5678, 0x3000, 0x0102]);
        assert_eq!(fails(&mut s, &mut m, |s, m| go(s, m, Width::B2)), (Vector::GP, 0), "TF");
    }
}

mod long_mode {
    use super::*;

    const USER_IP: u64 = 0x7fff_0000_1000;

    #[test]
    fn to_user_mode() {
        let (mut s, mut m) = kernel64();
        s.seg[Seg::Fs as usize] = Segment { base: 0x7fff_1234_0000, ..Segment::null(0) };
        s.seg[Seg::Ds as usize] = cached(&m, DATA0);
        m.lay(STACK, 8, &[USER_IP, LONG3.into(), 0x1_0202, 0x7fff_ffff_0008, DATA3.into()]);
        go(&mut s, &mut m, Width::B8).unwrap();
        assert_eq!((s.rip, rsp(&s), s.cpl), (USER_IP, 0x7fff_ffff_0008, 3));
        assert_eq!((s.mode(), flags(&s)), (Mode::Long64, 0x1_0202));
        assert_eq!(s.seg[Seg::Fs as usize].base, 0x7fff_1234_0000);
        assert_eq!(selector(&s, Seg::Ds), 0);
    }

    #[test]
    fn the_same_level_pops_the_stack_too_and_ss_may_be_null() {
        let (mut s, mut m) = kernel64();
        m.lay(STACK, 8, &[0xffff_8000_0000_0000, LONG0.into(), 0x202, 0xffff_8000_0000_9999, 0]);
        go(&mut s, &mut m, Width::B8).unwrap();
        assert_eq!((rsp(&s), selector(&s, Seg::Ss)), (0xffff_8000_0000_9999, 0));
        let (mut s, mut m) = kernel64();
        m.lay(STACK, 8, &[0x1000, LONG0.into(), 0x202, 0x9999, DATA0.into()]);
        go(&mut s, &mut m, Width::B8).unwrap();
        assert_eq!(s.seg[Seg::Ss as usize], cached(&m, DATA0));
    }

    #[test]
    fn to_compatibility_mode() {
        let (mut s, mut m) = kernel64();
        m.lay(STACK, 4, &[0x4000, CODE3.into(), 0x202, 0xffff_fff0, DATA3.into()]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!((s.mode(), s.cpl, rsp(&s)), (Mode::Protected32, 3, 0xffff_fff0));
    }

    #[test]
    fn compatibility_mode_pops_no_stack_at_the_same_level() {
        let (mut s, mut m) = long(CODE3, DATA3);
        m.lay(STACK, 4, &[0x4000, CODE3.into(), 0x202]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!((s.rip, rsp(&s)), (0x4000, STACK + 12));
    }

    #[test]
    fn vm_in_the_image_is_ignored() {
        let (mut s, mut m) = kernel64();
        m.lay(STACK, 8, &[0x1000, LONG0.into(), 0x2_0202, 0x9999, 0]);
        go(&mut s, &mut m, Width::B8).unwrap();
        assert_eq!(flags(&s), 0x202);
        let (mut s, mut m) = long(CODE0, DATA0);
        m.lay(STACK, 4, &[0x1000, CODE0.into(), 0x2_0202]);
        go(&mut s, &mut m, Width::B4).unwrap();
        assert_eq!((flags(&s), s.mode()), (0x202, Mode::Protected32), "compatibility mode");
    }

    #[test]
    fn refusals() {
        let gp0 = (Vector::GP, 0);
        for (frame, outcome) in [
            ([0x8000_0000_0000, LONG0.into(), 0x202, STACK, 0], gp0), // not canonical
            ([USER_IP, LONG3.into(), 0x202, STACK, 3], gp0),          // null SS for level 3
            ([USER_IP, LONG3.into(), 0x202, STACK, 0], gp0),
            ([0x1000, LONG0.into(), 0x202, STACK, 1], gp0), // its RPL
            ([0x1000, CODE0.into(), 0x202, STACK, 0], gp0), // null SS for compatibility mode
            ([0x1_0000_0000, CODE3.into(), 0x202, STACK, DATA3.into()], gp0), // beyond the limit
            ([0x1000, LONG_AND_BIG0.into(), 0x202, STACK, 0], (Vector::GP, LONG_AND_BIG0.into())),
        ] {
            let (mut s, mut m) = kernel64();
            m.lay(STACK, 8, &frame);
            assert_eq!(fails(&mut s, &mut m, |s, m| go(s, m, Width::B8)), outcome, "{frame:x?}");
        }
    }

    #[test]
    fn nested_tasks_do_not_exist() {
        let (mut s, mut m) = kernel64();
        s.flags.set(Rflags::NT, true);
        m.lay(STACK, 8, &[0x1000, LONG0.into(), 0x202, 0x9999, 0]);
        assert_eq!(fails(&mut s, &mut m, |s, m| go(s, m, Width::B8)), (Vector::GP, 0));
    }

    #[test]
    fn a_stack_that_is_not_canonical_is_a_stack_fault() {
        let (mut s, mut m) = kernel64();
        s.gpr[gpr::RSP] = 0x7fff_ffff_fffc;
        assert_eq!(fails(&mut s, &mut m, |s, m| go(s, m, Width::B8)), (Vector::SS, 0));
    }
}
