//! Expectations from SDM vol. 1, 8.1, 10.5 and 13, worked out by hand; the x87 words also as a
//! processor gave them.

use super::layout::bits;
use super::*;
use crate::addr::{La, Width};
use crate::bus::{Privilege, TlbEffect};
use crate::cpuid::CpuModel;
use crate::regs::{Efer, Rflags};
use crate::segment::Operand;
use crate::state::{Flags, Seg, Segment};
use crate::test_bus::FlatBus;

const SAVE: u64 = bits::X87 | bits::SSE | bits::AVX | bits::PKRU;

fn model() -> CpuModel {
    CpuModel::parse("gemello-v3,+pku").unwrap()
}

/// 64-bit mode, everything enabled, distinct bytes in every register.
fn busy() -> CpuState {
    let mut s = CpuState::reset();
    s.paging.cr0 |= Cr0::PE | Cr0::PG | Cr0::NE;
    s.paging.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXSAVE | Cr4::PKE;
    s.paging.efer = Efer::LME | Efer::LMA;
    s.seg[Seg::Cs as usize].access |= Segment::L;
    s.xcr0 = SAVE;
    s.paging.pkru = 0x5555_5554;
    for (n, ymm) in s.ymm.iter_mut().enumerate() {
        for (i, byte) in ymm.0.iter_mut().enumerate() {
            *byte = (n * 16 + i % 16) as u8 ^ if i < 16 { 0 } else { 0xff };
        }
    }
    s.x87.fcw = 0x37f;
    s.x87.fsw = 0x3800;
    s.x87.ftw = 0x80;
    s.x87.fop = 0x1eb;
    s.x87.fip = 0x1122_3344_5566_7788;
    s.x87.fdp = 0x99aa_bbcc_ddee_ff00;
    s.x87.mxcsr = 0x1fa0;
    for (n, st) in s.x87.st.iter_mut().enumerate() {
        st[..10].fill(0x80 + n as u8);
    }
    s
}

fn protected32(mut s: CpuState) -> CpuState {
    s.paging.efer = Efer::empty();
    s.seg[Seg::Cs as usize].access = 0xc09b;
    s
}

/// A state of the same mode with initial registers.
fn blank(like: &CpuState) -> CpuState {
    let mut s = like.clone();
    s.x87 = X87::default();
    s.ymm = CpuState::reset().ymm;
    s.paging.pkru = 0;
    s
}

fn bus() -> FlatBus {
    let mut bus = FlatBus::new(4096);
    bus.memory.fill(0xcc);
    bus
}

fn clean() -> FlatBus {
    FlatBus::new(4096)
}

mod fx {
    use super::*;

    #[test]
    fn layout_of_the_wide_form() {
        let (s, mut bus) = (busy(), bus());
        fxsave(&s, &mut bus, Operand::flat(La(64)), Width::B8).unwrap();
        assert_eq!(
            (bus.u16(64), bus.u16(66), bus.u16(68), bus.u16(70)),
            (0x37f, 0x3800, 0x80, 0x1eb)
        );
        assert_eq!((bus.u64(72), bus.u64(80)), (s.x87.fip, s.x87.fdp));
        assert_eq!((bus.u32(88), bus.u32(92)), (0x1fa0, 0xffff));
        // ST(1): ten bytes, six reserved ones zero.
        assert_eq!((bus.u64(64 + 48), bus.u64(64 + 56)), (0x8181_8181_8181_8181, 0x8181));
        // XMM15 ends at 416; what follows is software's.
        assert_eq!(bus.memory[64 + 415], 0xff);
        assert!(bus.memory[64 + 416..].iter().all(|&b| b == 0xcc));
        assert_eq!(bus.privilege, Some(Privilege::Supervisor));
    }

    #[test]
    fn the_narrow_form_has_32_bit_pointers_and_no_selectors() {
        let (mut s, mut bus) = (busy(), bus());
        (s.x87.fcs, s.x87.fds) = (0x33, 0x2b);
        fxsave(&s, &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
        assert_eq!((bus.u64(8), bus.u64(16)), (0x5566_7788, 0xddee_ff00));
    }

    #[test]
    fn eight_registers_outside_64_bit_mode() {
        let (s, mut bus) = (protected32(busy()), bus());
        fxsave(&s, &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
        assert_eq!(bus.memory[160 + 127], 0x7f);
        assert!(bus.memory[160 + 128..].iter().all(|&b| b == 0xcc));
        let mut other = blank(&s);
        fxrstor(&mut other, &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
        assert_eq!(other.ymm[7].0[..16], s.ymm[7].0[..16]);
        assert_eq!(other.ymm[8].0, [0; 32]);
    }

    #[test]
    fn there_and_back() {
        let (s, mut bus) = (busy(), bus());
        fxsave(&s, &mut bus, Operand::flat(La(0)), Width::B8).unwrap();
        let mut other = blank(&s);
        fxrstor(&mut other, &mut bus, Operand::flat(La(0)), Width::B8).unwrap();
        assert_eq!(other.x87, s.x87);
        for (a, b) in other.ymm.iter().zip(&s.ymm) {
            assert_eq!(a.0[..16], b.0[..16]);
            assert_eq!(a.0[16..], [0; 16]);
        }
    }

    #[test]
    fn control_and_status_are_made_consistent() {
        let mut bus = clean();
        let mut s = busy();
        let mut load = |fcw: u16, fsw: u16| {
            bus.put(0, &fcw.to_le_bytes());
            bus.put(2, &fsw.to_le_bytes());
            bus.put(6, &[0xff, 0xff]);
            fxrstor(&mut s, &mut bus, Operand::flat(La(0)), Width::B8).unwrap();
            assert_eq!(s.x87.fop, 0x7ff);
            (s.x87.fcw, s.x87.fsw)
        };
        assert_eq!(load(0xffff, 0), (0x1f7f, 0));
        // An unmasked flag raises the summary, a masked one clears it.
        assert_eq!(load(0, 1), (0x40, 0x8081));
        assert_eq!(load(0x37f, 0x8080), (0x37f, 0));
    }

    #[test]
    fn refusals() {
        let mut s = busy();
        let mut bus = clean();
        assert_eq!(fxsave(&s, &mut bus, Operand::flat(La(8)), Width::B8), Err(GP));
        assert_eq!(fxrstor(&mut s, &mut bus, Operand::flat(La(8)), Width::B8), Err(GP));
        bus.put(24, &0x1_0000u32.to_le_bytes());
        let before = s.clone();
        assert_eq!(fxrstor(&mut s, &mut bus, Operand::flat(La(0)), Width::B8), Err(GP));
        assert_eq!(s, before);
        // All 512 bytes must be there, the last of which is asked for first; nothing is written.
        bus.memory.fill(0xcc);
        assert_eq!(
            fxsave(&s, &mut bus, Operand::flat(La(4096 - 400)), Width::B8),
            Err(Exception::pf(La(4096 + 111), 2))
        );
        assert!(bus.memory.iter().all(|&b| b == 0xcc));
        assert_eq!(
            fxrstor(&mut s, &mut bus, Operand::flat(La(4096 - 400)), Width::B8),
            Err(Exception::pf(La(4096 + 111), 0))
        );
        assert_eq!(s, before);
        for bit in [Cr0::TS, Cr0::EM] {
            let mut s = s.clone();
            s.paging.cr0 |= bit;
            assert_eq!(fxsave(&s, &mut bus, Operand::flat(La(0)), Width::B8), Err(NM));
            assert_eq!(fxrstor(&mut s, &mut bus, Operand::flat(La(0)), Width::B8), Err(NM));
        }
    }

    #[test]
    fn user_code_accesses_as_user() {
        let mut s = busy();
        s.cpl = 3;
        let mut bus = clean();
        fxsave(&s, &mut bus, Operand::flat(La(0)), Width::B8).unwrap();
        assert_eq!(bus.privilege, Some(Privilege::User));
    }
}

mod extended {
    use super::*;

    fn save(s: &CpuState, bus: &mut FlatBus, form: SaveForm, mask: u64) {
        xsave(&model(), s, bus, form, Operand::flat(La(0)), mask, Width::B8).unwrap();
    }

    fn restore(s: &mut CpuState, bus: &mut FlatBus, form: RestoreForm, mask: u64) -> bool {
        let before = s.clone();
        let result = xrstor(&model(), s, bus, form, Operand::flat(La(0)), mask, Width::B8);
        assert!(result.is_ok() || (result == Err(GP) && *s == before && bus.effects.is_empty()));
        result.is_ok()
    }

    #[test]
    fn standard_form() {
        let (s, mut bus) = (busy(), clean());
        save(&s, &mut bus, SaveForm::Xsave, u64::MAX);
        assert_eq!((bus.u64(512), bus.u64(520)), (SAVE, 0));
        assert_eq!(bus.memory[576], s.ymm[0].0[16]);
        assert_eq!(bus.memory[831], s.ymm[15].0[31]);
        assert_eq!(bus.u64(2688), 0x5555_5554);
        let mut other = blank(&s);
        assert!(restore(&mut other, &mut bus, RestoreForm::Xrstor, u64::MAX));
        assert_eq!(other, s);
        assert_eq!(bus.effect(), TlbEffect::None);
    }

    #[test]
    fn xsave_keeps_the_bits_it_was_not_asked_for() {
        let (s, mut bus) = (busy(), bus());
        bus.put(512, &(bits::AVX | 1 << 40).to_le_bytes());
        save(&s, &mut bus, SaveForm::Xsave, bits::X87);
        assert_eq!(bus.u64(512), bits::AVX | 1 << 40 | bits::X87);
        // The rest of the header, MXCSR and the other components stay.
        assert_eq!((bus.memory[520], bus.memory[24], bus.memory[160]), (0xcc, 0xcc, 0xcc));
        assert_eq!((bus.memory[32], bus.memory[576]), (0x80, 0xcc));
    }

    #[test]
    fn mxcsr_goes_with_sse_and_avx() {
        let (s, mut bus) = (busy(), bus());
        save(&s, &mut bus, SaveForm::Xsave, bits::AVX);
        assert_eq!((bus.u32(24), bus.memory[160]), (0x1fa0, 0xcc));
        let mut other = blank(&s);
        bus.put(512, &[0; 64]);
        // Standard form: MXCSR is loaded even where SSE and AVX are initialized.
        assert!(restore(&mut other, &mut bus, RestoreForm::Xrstor, bits::AVX));
        assert_eq!(other.x87.mxcsr, 0x1fa0);
        bus.put(24, &u32::MAX.to_le_bytes());
        assert!(!restore(&mut other, &mut bus, RestoreForm::Xrstor, bits::SSE));
        assert!(restore(&mut other, &mut bus, RestoreForm::Xrstor, bits::X87));
    }

    #[test]
    fn initial_components() {
        let s = blank(&busy());
        let mut bus = bus();
        bus.put(512, &[0; 64]);
        save(&s, &mut bus, SaveForm::Xsaveopt, u64::MAX);
        // Nothing in use: nothing but MXCSR and the header is written.
        assert_eq!((bus.u64(512), bus.memory[0], bus.memory[160]), (0, 0xcc, 0xcc));
        assert_eq!(bus.u32(24), 0x1f80);
        save(&s, &mut bus, SaveForm::Xsave, u64::MAX);
        // XSAVE writes them, and still says they are initial.
        assert_eq!((bus.u64(512), bus.u16(0), bus.memory[160], bus.memory[576]), (0, 0x37f, 0, 0));
        let mut other = busy();
        assert!(restore(&mut other, &mut bus, RestoreForm::Xrstor, u64::MAX));
        assert_eq!(other, s);
    }

    #[test]
    fn compacted_form() {
        let (mut s, mut bus) = (busy(), bus());
        save(&s, &mut bus, SaveForm::Xsavec, bits::PKRU | bits::SSE);
        assert_eq!(bus.u64(512), bits::PKRU | bits::SSE);
        assert_eq!(bus.u64(520), bits::PKRU | bits::SSE | 1 << 63);
        // PKRU follows the header at once; reserved header bytes are not written.
        assert_eq!((bus.u64(576), bus.memory[528]), (0x5555_5554, 0xcc));
        save(&s, &mut bus, SaveForm::Xsavec, bits::PKRU | bits::AVX);
        assert_eq!(bus.u64(832), 0x5555_5554);
        // MXCSR alone keeps SSE from being initial.
        s.ymm = blank(&s).ymm;
        save(&s, &mut bus, SaveForm::Xsaves, bits::SSE | bits::AVX);
        assert_eq!(bus.u64(512), bits::SSE);
        s.x87.mxcsr = 0x1f80;
        save(&s, &mut bus, SaveForm::Xsaves, bits::SSE | bits::AVX);
        assert_eq!(bus.u64(512), 0);
        assert_eq!(bus.u64(520), bits::SSE | bits::AVX | 1 << 63);
    }

    #[test]
    fn compacted_there_and_back() {
        for (save_form, form) in [
            (SaveForm::Xsavec, RestoreForm::Xrstor),
            (SaveForm::Xsavec, RestoreForm::Xrstors),
            (SaveForm::Xsaves, RestoreForm::Xrstors),
        ] {
            let (s, mut bus) = (busy(), clean());
            save(&s, &mut bus, save_form, u64::MAX);
            let mut other = blank(&s);
            assert!(restore(&mut other, &mut bus, form, u64::MAX));
            assert_eq!(other, s);
        }
    }

    #[test]
    fn compacted_restore_initializes_mxcsr_with_sse() {
        let mut bus = clean();
        bus.put(520, &(bits::SSE | 1 << 63).to_le_bytes());
        bus.put(24, &u32::MAX.to_le_bytes());
        let mut s = busy();
        // AVX alone does not touch MXCSR here.
        assert!(restore(&mut s, &mut bus, RestoreForm::Xrstor, bits::AVX));
        assert_eq!((s.x87.mxcsr, s.ymm[3].0[16..32].iter().all(|&b| b == 0)), (0x1fa0, true));
        assert!(restore(&mut s, &mut bus, RestoreForm::Xrstor, bits::SSE));
        assert_eq!((s.x87.mxcsr, s.ymm[3].0), (0x1f80, [0; 32]));
    }

    #[test]
    fn headers_refused() {
        let compacted = 1u64 << 63;
        // XSTATE_BV, XCOMP_BV, a third word, and who accepts it.
        let cases: [(u64, u64, u64, bool, bool); 9] = [
            (3, 0, 0, true, false),
            (1 << 3, 0, 0, false, false),
            (3, 3, 0, false, false),
            (3, 0, 1, false, false),
            (3, 7 | compacted, 0, true, true),
            (4, 3 | compacted, 0, false, false),
            (3, 3 | compacted, 1, false, false),
            (3, 0xb | compacted, 0, false, false),
            (0, compacted, 0, true, true),
        ];
        for (xstate, xcomp, third, by_xrstor, by_xrstors) in cases {
            let mut bus = clean();
            bus.put(24, &[0x80, 0x1f]);
            bus.put(512, &xstate.to_le_bytes());
            bus.put(520, &xcomp.to_le_bytes());
            bus.put(528, &third.to_le_bytes());
            let mut s = busy();
            let done = restore(&mut s.clone(), &mut bus, RestoreForm::Xrstor, 7);
            assert_eq!(done, by_xrstor, "{xstate:#x} {xcomp:#x} {third}");
            bus.effects.clear();
            let done = restore(&mut s, &mut bus, RestoreForm::Xrstors, 7);
            assert_eq!(done, by_xrstors, "{xstate:#x} {xcomp:#x} {third}");
        }
        // The standard form leaves bytes 24 to 63 of the header alone, the compacted one does not.
        let mut bus = clean();
        bus.put(24, &[0x80, 0x1f]);
        bus.memory[575] = 1;
        assert!(restore(&mut busy(), &mut bus, RestoreForm::Xrstor, 7));
        bus.effects.clear();
        bus.put(520, &compacted.to_le_bytes());
        assert!(!restore(&mut busy(), &mut bus, RestoreForm::Xrstor, 7));
    }

    #[test]
    fn a_component_switched_off_in_xcr0_is_refused_and_not_saved() {
        let (mut s, mut bus) = (busy(), clean());
        save(&s, &mut bus, SaveForm::Xsave, u64::MAX);
        s.xcr0 = 3;
        assert!(!restore(&mut s, &mut bus, RestoreForm::Xrstor, 3));
        let mut bus = clean();
        save(&s, &mut bus, SaveForm::Xsave, u64::MAX);
        assert_eq!(bus.u64(512), 3);
    }

    #[test]
    fn outside_64_bit_mode_the_upper_eight_registers_stay() {
        let (s, mut bus) = (protected32(busy()), bus());
        bus.put(512, &[0; 64]);
        xsave(&model(), &s, &mut bus, SaveForm::Xsave, Operand::flat(La(0)), 7, Width::B4).unwrap();
        assert_eq!((bus.memory[576 + 127], bus.memory[576 + 128]), (s.ymm[7].0[31], 0xcc));
        let mut other = s.clone();
        bus.put(512, &[0; 64]);
        xrstor(
            &model(),
            &mut other,
            &mut bus,
            RestoreForm::Xrstor,
            Operand::flat(La(0)),
            7,
            Width::B4,
        )
        .unwrap();
        assert_eq!((other.ymm[7].0, other.ymm[8]), ([0; 32], s.ymm[8]));
    }

    #[test]
    fn who_may() {
        let m = model();
        let mut bus = clean();
        let mut s = busy();
        let mut ask = |m: &CpuModel, s: &mut CpuState, form, la| {
            let saved = xsave(m, s, &mut bus, form, Operand::flat(la), 0, Width::B8);
            let other = match form {
                SaveForm::Xsaves => RestoreForm::Xrstors,
                _ => RestoreForm::Xrstor,
            };
            (saved, xrstor(m, s, &mut bus, other, Operand::flat(la), 0, Width::B8))
        };
        let (ud, ok) = (Err(Exception::ud()), Ok(()));
        assert_eq!(ask(&m, &mut s, SaveForm::Xsave, La(32)), (Err(GP), Err(GP)));
        assert_eq!(ask(&m, &mut s, SaveForm::Xsaves, La(0)), (ok, ok));
        s.cpl = 3;
        assert_eq!(ask(&m, &mut s, SaveForm::Xsavec, La(64)), (ok, ok));
        assert_eq!(ask(&m, &mut s, SaveForm::Xsaves, La(0)), (Err(GP), Err(GP)));
        // CR0.EM does not matter, TS does.
        s.paging.cr0 |= Cr0::EM;
        assert_eq!(ask(&m, &mut s, SaveForm::Xsave, La(128)), (ok, ok));
        s.paging.cr0 |= Cr0::TS;
        assert_eq!(ask(&m, &mut s, SaveForm::Xsave, La(32)), (Err(NM), Err(NM)));
        s.paging.cr4 -= Cr4::OSXSAVE;
        assert_eq!(ask(&m, &mut s, SaveForm::Xsave, La(0)), (ud, ud));
        let mut s = busy();
        let poor = CpuModel::parse("gemello-v2,-xsaveopt,-xsavec").unwrap();
        assert_eq!(ask(&poor, &mut s, SaveForm::Xsaveopt, La(0)).0, ud);
        assert_eq!(ask(&poor, &mut s, SaveForm::Xsavec, La(0)).0, ud);
        assert_eq!(ask(&poor, &mut s, SaveForm::Xsaves, La(0)), (ud, ud));
        assert_eq!(ask(&poor, &mut s, SaveForm::Xsave, La(192)), (ok, ok));
    }

    #[test]
    fn a_save_that_would_fault_writes_nothing() {
        let s = busy();
        let mut bus = FlatBus::new(640);
        let result =
            xsave(&model(), &s, &mut bus, SaveForm::Xsave, Operand::flat(La(0)), 7, Width::B8);
        assert_eq!(result, Err(Exception::pf(La(640), 2)));
        assert!(bus.memory.iter().all(|&b| b == 0));
    }

    #[test]
    fn offsets_of_the_compacted_form() {
        assert_eq!(layout::compacted_offset(0x207 | 1 << 63, 9), 832);
        assert_eq!(layout::compacted_offset(0x203, 9), 576);
        assert_eq!((layout::standard_size(7), layout::standard_size(0x203)), (832, 2696));
        assert_eq!((layout::compacted_size(7), layout::compacted_size(0x207)), (832, 840));
    }
}

mod environment {
    use super::*;

    /// TOP is 5: ST(0) 1.0, ST(1) +0, ST(2) a NaN, in physical registers 5, 6, 7.
    fn loaded() -> CpuState {
        let mut s = protected32(busy());
        s.x87 = X87 { fsw: 5 << 11, ftw: 0xe0, fop: 0x1eb, ..X87::default() };
        s.x87.fip = 0x000a_bcde;
        s.x87.fdp = 0x1234_5678;
        s.x87.st[0][7..10].copy_from_slice(&[0x80, 0xff, 0x3f]);
        s.x87.st[2][6..10].copy_from_slice(&[1, 0xc0, 0xff, 0x7f]);
        s
    }

    /// Physical 5 valid, 6 zero, 7 special, the others empty.
    const TAGS: u32 = 0x93ff;

    fn real(mut s: CpuState) -> CpuState {
        s.paging.cr0 -= Cr0::PE | Cr0::PG;
        s
    }

    fn words(bus: &FlatBus) -> [u16; 7] {
        core::array::from_fn(|i| bus.u16(2 * i))
    }

    fn dwords(bus: &FlatBus) -> [u32; 7] {
        core::array::from_fn(|i| bus.u32(4 * i))
    }

    #[test]
    fn four_layouts() {
        let mut bus = bus();
        fnstenv(&mut loaded(), &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
        let head = [0xffff_037f, 0xffff_2800, 0xffff_0000 | TAGS];
        let [a, b, c] = head;
        assert_eq!(dwords(&bus), [a, b, c, 0xa_bcde, 0x1eb_0000, 0x1234_5678, 0xffff_0000]);
        assert_eq!(bus.memory[28], 0xcc);
        fnstenv(&mut real(loaded()), &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
        let pointers = [0xffff_bcde, 0xa1eb, 0xffff_5678, 0x0123_4000];
        assert_eq!(dwords(&bus)[..3], head);
        assert_eq!(dwords(&bus)[3..], pointers);
        bus.memory.fill(0xcc);
        fnstenv(&mut loaded(), &mut bus, Operand::flat(La(0)), Width::B2).unwrap();
        assert_eq!(words(&bus), [0x37f, 0x2800, 0x93ff, 0xbcde, 0, 0x5678, 0]);
        assert_eq!(bus.memory[14], 0xcc);
        let mut v86 = loaded();
        v86.flags = Flags::from_bits(Rflags::VM.bits());
        fnstenv(&mut v86, &mut bus, Operand::flat(La(0)), Width::B2).unwrap();
        assert_eq!(words(&bus), [0x37f, 0x2800, 0x93ff, 0xbcde, 0xa1eb, 0x5678, 0x4000]);
    }

    #[test]
    fn storing_masks_all_exceptions() {
        let mut s = loaded();
        s.x87.fcw = 0x340;
        s.x87.fsw |= 0x8081;
        let mut bus = bus();
        // A pending exception is no reason for FNSTENV to fault.
        fnstenv(&mut s, &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
        assert_eq!((s.x87.fcw, s.x87.fsw), (0x37f, 0x2801));
        assert_eq!(dwords(&bus)[..2], [0xffff_0340, 0xffff_a881]);
    }

    #[test]
    fn environment_there_and_back() {
        for before in [loaded(), real(loaded())] {
            let mut bus = bus();
            fnstenv(&mut before.clone(), &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
            let mut after = before.clone();
            after.x87.fip = 0;
            after.x87.ftw = 0;
            after.x87.fcw = 0x77f;
            fldenv(&mut after, &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
            assert_eq!(after, before);
        }
        // 16 bits lose the upper parts, and the opcode in protected mode.
        for (before, fip, fdp, fop) in
            [(loaded(), 0xbcde, 0x5678, 0), (real(loaded()), 0xa_bcde, 0x4_5678, 0x1eb)]
        {
            let mut bus = bus();
            fnstenv(&mut before.clone(), &mut bus, Operand::flat(La(0)), Width::B2).unwrap();
            let mut after = before.clone();
            fldenv(&mut after, &mut bus, Operand::flat(La(0)), Width::B2).unwrap();
            assert_eq!((after.x87.fip, after.x87.fdp, after.x87.fop), (fip, fdp, fop));
        }
    }

    #[test]
    fn a_new_top_renames_the_registers() {
        let mut s = loaded();
        let mut bus = bus();
        fnstenv(&mut s, &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
        // TOP 7: what was ST(2) is ST(0), what was ST(0) is ST(6).
        bus.put(4, &0x3800u16.to_le_bytes());
        let old = s.x87.st;
        fldenv(&mut s, &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
        assert_eq!((s.x87.st[0], s.x87.st[6], s.x87.st[7]), (old[2], old[0], old[1]));
        assert_eq!(s.x87.ftw, 0xe0);
        fninit(&mut s).unwrap();
        assert_eq!((s.x87.fcw, s.x87.fsw, s.x87.ftw), (0x37f, 0, 0));
        // Physical register 5 still holds 1.0.
        assert_eq!(s.x87.st[5], old[0]);
    }

    #[test]
    fn tags_of_every_class() {
        let mut s = loaded();
        s.x87.fsw = 0;
        s.x87.ftw = 0xff;
        let class = |exponent: u16, significand: u64| {
            let mut st = [0; 16];
            st[..8].copy_from_slice(&significand.to_le_bytes());
            st[8..10].copy_from_slice(&exponent.to_le_bytes());
            st
        };
        s.x87.st = [
            class(0x3fff, 1 << 63),  // 1.0: valid
            class(0x8000, 0),        // -0: zero
            class(0, 1),             // denormal: special
            class(0, 1 << 63),       // pseudo-denormal: special
            class(0x7fff, 1 << 63),  // infinity: special
            class(0x7fff, 0),        // pseudo-infinity: special
            class(0x3fff, 1),        // unnormal: special
            class(0xfffe, u64::MAX), // largest: valid
        ];
        let mut bus = bus();
        fnstenv(&mut s, &mut bus, Operand::flat(La(0)), Width::B2).unwrap();
        assert_eq!(bus.u16(4), 0b00_10_10_10_10_10_01_00);
    }

    #[test]
    fn an_unmasked_flag_loaded_is_pending() {
        let mut s = loaded();
        let mut bus = clean();
        bus.put(0, &[0x7e, 3, 0, 0, 1, 0, 0, 0, 0xff, 0xff]);
        fldenv(&mut s, &mut bus, Operand::flat(La(0)), Width::B4).unwrap();
        assert_eq!((s.x87.fsw, s.x87.ftw), (0x8081, 0));
        let mf = Err(Exception::plain(Vector::MF));
        assert_eq!(x87_pending(&s), mf);
        assert_eq!(fldenv(&mut s, &mut bus, Operand::flat(La(0)), Width::B4), mf);
        assert_eq!(frstor(&mut s, &mut bus, Operand::flat(La(0)), Width::B4), mf);
        s.paging.cr0 -= Cr0::NE;
        assert_eq!(x87_pending(&s), Ok(()));
    }

    #[test]
    fn save_and_restore() {
        for (size, len) in [(Width::B4, 108), (Width::B2, 94)] {
            let before = loaded();
            let mut s = before.clone();
            let mut bus = bus();
            fnsave(&mut s, &mut bus, Operand::flat(La(0)), size).unwrap();
            assert_eq!((bus.memory[len - 1], bus.memory[len]), (0, 0xcc));
            assert_eq!(bus.memory[len - 80 + 7..len - 80 + 10], [0x80, 0xff, 0x3f]);
            assert_eq!((s.x87.fcw, s.x87.fsw, s.x87.ftw, s.x87.fip), (0x37f, 0, 0, 0));
            s.x87.st = [[0; 16]; 8];
            frstor(&mut s, &mut bus, Operand::flat(La(0)), size).unwrap();
            assert_eq!((s.x87.st, s.x87.fsw, s.x87.ftw), (before.x87.st, 5 << 11, 0xe0));
        }
    }

    #[test]
    fn faults_change_nothing() {
        let before = loaded();
        let mut s = before.clone();
        let mut bus = bus();
        let (write, read) = (Err(Exception::pf(La(4096), 2)), Err(Exception::pf(La(4096), 0)));
        assert_eq!(fnstenv(&mut s, &mut bus, Operand::flat(La(4080)), Width::B4), write);
        assert_eq!(fnsave(&mut s, &mut bus, Operand::flat(La(4040)), Width::B4), write);
        assert_eq!(fldenv(&mut s, &mut bus, Operand::flat(La(4080)), Width::B4), read);
        assert_eq!(frstor(&mut s, &mut bus, Operand::flat(La(4040)), Width::B4), read);
        assert_eq!(s, before);
        assert!(bus.memory.iter().all(|&b| b == 0xcc));
        for bit in [Cr0::TS, Cr0::EM] {
            let mut s = before.clone();
            s.paging.cr0 |= bit;
            assert_eq!(fnstenv(&mut s, &mut bus, Operand::flat(La(0)), Width::B4), Err(NM));
            assert_eq!(fldenv(&mut s, &mut bus, Operand::flat(La(0)), Width::B4), Err(NM));
            assert_eq!(fnsave(&mut s, &mut bus, Operand::flat(La(0)), Width::B4), Err(NM));
            assert_eq!(frstor(&mut s, &mut bus, Operand::flat(La(0)), Width::B4), Err(NM));
            assert_eq!(fninit(&mut s), Err(NM));
        }
    }
}

#[test]
fn mxcsr() {
    let mut s = busy();
    assert_eq!(stmxcsr(&s), Ok(0x1fa0));
    ldmxcsr(&mut s, 0xffff).unwrap();
    assert_eq!(stmxcsr(&s), Ok(0xffff));
    assert_eq!(ldmxcsr(&mut s, 0x1_0000), Err(GP));
    s.paging.cr0 |= Cr0::TS;
    assert_eq!(ldmxcsr(&mut s, 0), Err(NM));
    s.paging.cr0 |= Cr0::EM;
    assert_eq!(stmxcsr(&s), Err(Exception::ud()));
    let mut off = busy();
    off.paging.cr4 -= Cr4::OSFXSR;
    assert_eq!(ldmxcsr(&mut off, 0), Err(Exception::ud()));
}
