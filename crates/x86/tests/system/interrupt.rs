//! Delivery of events (SDM vol. 3, chapter 6, 17.3.1.1, 20.3).

use crate::machine::*;
use x86::addr::{La, Vector};
use x86::descriptor::{GateKind, Selector};
use x86::exception::Exception;
use x86::interrupt::{Event, TableEntry, deliver, peek};
use x86::regs::{Cr4, Rflags};
use x86::state::{Activity, Blocking, CpuState, Flags, Mode, Seg, Segment, gpr};

const HANDLER: u64 = 0x7654_3210;
const IDT_BIT: u32 = 2;

fn set_gate(m: &Machine, vector: u64, raw: u64) {
    m.put(IDT + 8 * vector, 8, raw);
}

fn set_gate64(m: &Machine, vector: u64, selector: u16, offset: u64, access: u64, ist: u64) {
    m.put(IDT + 16 * vector, 8, gate(selector, offset, access, ist));
    m.put(IDT + 16 * vector + 8, 8, offset >> 32);
}

fn software(vector: u8) -> Event {
    Event::SoftwareInt { vector: Vector(vector), next_rip: CODE_IP + 2 }
}

fn flags(s: &CpuState) -> u64 {
    s.flags.bits()
}

mod real_mode {
    use super::*;

    #[test]
    fn pushes_six_bytes_and_masks() {
        let (mut s, mut m) = real();
        s.flags = Flags::from_bits(0x4_0f02 | 0x95); // AC, OF, DF, IF, TF
        m.put(4 * 0x21, 4, 0x3000_5678);
        deliver(&mut s, &mut m, Event::External(Vector(0x21))).unwrap();
        assert_eq!(m.items(0x4_8ffa, 2, 3), [CODE_IP, 0x2000, 0x0f97]);
        assert_eq!(rsp(&s), 0xabcd_8ffa, "a 16-bit stack leaves the upper half alone");
        assert_eq!((selector(&s, Seg::Cs), s.seg[1].base, s.rip), (0x3000, 0x3_0000, 0x5678));
        assert_eq!(flags(&s), 0x0c97, "IF, TF and AC are cleared");
    }

    #[test]
    fn no_error_code_is_pushed() {
        let (mut s, mut m) = real();
        deliver(&mut s, &mut m, Event::Exception(Exception::gp(0))).unwrap();
        assert_eq!(rsp(&s) as u16, 0x8ffa);
        assert_eq!(m.items(0x4_8ffa, 2, 1), [CODE_IP]);
    }

    #[test]
    fn int_n_returns_to_the_next_instruction() {
        let (mut s, mut m) = real();
        deliver(&mut s, &mut m, software(0x10)).unwrap();
        assert_eq!(m.items(0x4_8ffa, 2, 1), [CODE_IP + 2]);
    }

    #[test]
    fn the_handler_must_lie_in_the_segment() {
        let (mut s, mut m) = real();
        m.put(4 * 0x21, 4, 0x3000_5678);
        s.seg[Seg::Cs as usize].limit = 0x5677;
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, Event::External(Vector(0x21))));
        assert_eq!(outcome, (Vector::GP, 1));
    }

    #[test]
    fn the_idt_limit_counts() {
        let (mut s, mut m) = real();
        s.idtr.limit = 4 * 0x20 + 2;
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x20)));
        assert_eq!(outcome, (Vector::GP, 0x20 << 3 | IDT_BIT));
        deliver(&mut s, &mut m, software(0x1f)).unwrap();
    }
}

mod protected_mode {
    use super::*;

    #[test]
    fn same_level_interrupt_gate() {
        let (mut s, mut m) = kernel32();
        s.flags = Flags::from_bits(0x4302); // NT, IF, TF
        s.gpr[gpr::RSP] = STACK;
        set_gate(&m, 0x20, gate(CODE0, HANDLER, 0x8e, 0));
        deliver(&mut s, &mut m, Event::External(Vector(0x20))).unwrap();
        assert_eq!(m.items(STACK - 12, 4, 3), [CODE_IP, CODE0.into(), 0x4302]);
        assert_eq!((rsp(&s), s.rip, selector(&s, Seg::Cs)), (STACK - 12, HANDLER, CODE0));
        assert_eq!(flags(&s), 2, "IF, TF and NT are cleared");
    }

    #[test]
    fn a_trap_gate_leaves_if() {
        let (mut s, mut m) = kernel32();
        set_gate(&m, 0x20, gate(CODE0, HANDLER, 0x8f, 0));
        deliver(&mut s, &mut m, Event::External(Vector(0x20))).unwrap();
        assert_eq!(flags(&s), 0x202);
    }

    #[test]
    fn a_16_bit_gate_pushes_words_and_jumps_to_a_word() {
        let (mut s, mut m) = kernel32();
        set_gate(&m, 0x20, gate(CODE0, HANDLER, 0x86, 0));
        deliver(&mut s, &mut m, Event::Exception(Exception::gp(0x18))).unwrap_err();
        set_gate(&m, 13, gate(CODE0, HANDLER, 0x86, 0));
        deliver(&mut s, &mut m, Event::Exception(Exception::gp(0x18))).unwrap();
        assert_eq!(m.items(STACK - 8, 2, 4), [0x18, CODE_IP, CODE0.into(), 0x202]);
        assert_eq!(s.rip, HANDLER & 0xffff);
    }

    #[test]
    fn to_the_inner_level_through_the_tss() {
        let (mut s, mut m) = user32();
        set_gate(&m, 14, gate(CODE0, HANDLER, 0x8e, 0));
        deliver(&mut s, &mut m, Event::Exception(Exception::pf(La(0xdead_b000), 7))).unwrap();
        let rf = 0x1_0202; // a fault
        let frame = [7, CODE_IP, CODE3.into(), rf, STACK, DATA3.into()];
        assert_eq!(m.items(STACK0 - 24, 4, 6), frame);
        assert_eq!((s.cpl, selector(&s, Seg::Cs), selector(&s, Seg::Ss)), (0, CODE0, DATA0));
        assert_eq!((rsp(&s), s.cr2), (STACK0 - 24, 0xdead_b000));
        assert_eq!(flags(&s), 2, "RF and IF are cleared");
        assert_eq!(selector(&s, Seg::Ds), DATA3, "other segments stay");
    }

    #[test]
    fn to_level_1() {
        let (mut s, mut m) = user32();
        set_gate(&m, 0x30, gate(CODE1, HANDLER, 0xee, 0));
        deliver(&mut s, &mut m, software(0x30)).unwrap();
        assert_eq!((s.cpl, selector(&s, Seg::Ss), rsp(&s)), (1, DATA1, STACK1 - 20));
    }

    #[test]
    fn a_conforming_handler_keeps_the_level() {
        let (mut s, mut m) = user32();
        set_gate(&m, 0x20, gate(CONFORMING0, HANDLER, 0x8e, 0));
        deliver(&mut s, &mut m, Event::External(Vector(0x20))).unwrap();
        assert_eq!((s.cpl, selector(&s, Seg::Cs), rsp(&s)), (3, CONFORMING0 | 3, STACK - 12));
    }

    #[test]
    fn a_16_bit_tss_holds_words() {
        let (mut s, mut m) = user32();
        s.tr.access = 0x83;
        m.lay(TSS + 2, 2, &[0x7000, DATA0.into()]);
        set_gate(&m, 0x20, gate(CODE0, HANDLER, 0x8e, 0));
        deliver(&mut s, &mut m, Event::External(Vector(0x20))).unwrap();
        assert_eq!((rsp(&s), selector(&s, Seg::Ss)), (0x7000 - 20, DATA0));
    }

    #[test]
    fn software_interrupts_need_the_gates_dpl() {
        let (mut s, mut m) = user32();
        for vector in 0..=0x40 {
            set_gate(&m, vector, gate(CODE0, HANDLER, 0x8e, 0));
        }
        let mut outcome = |event| fails(&mut s, &mut m, |s, m| deliver(s, m, event));
        assert_eq!(outcome(software(0x40)), (Vector::GP, 0x40 << 3 | IDT_BIT), "no EXT");
        let next_rip = CODE_IP + 1;
        assert_eq!(outcome(Event::Int3 { next_rip }), (Vector::GP, 3 << 3 | IDT_BIT));
        assert_eq!(outcome(Event::Into { next_rip }), (Vector::GP, 4 << 3 | IDT_BIT));
        deliver(&mut s, &mut m, Event::Icebp { next_rip }).expect("INT1 is not checked");
        assert_eq!(m.items(STACK0 - 20, 4, 1), [next_rip]);
    }

    #[test]
    fn external_interrupts_ignore_the_gates_dpl() {
        let (mut s, mut m) = user32();
        set_gate(&m, 0x40, gate(CODE0, HANDLER, 0x8e, 0));
        deliver(&mut s, &mut m, Event::External(Vector(0x40))).unwrap();
    }

    /// SDM vol. 3, 6.13: IDT and EXT bits.
    #[test]
    fn a_bad_gate_is_named_by_its_vector() {
        let code = |ext: u32| 0x40 << 3 | IDT_BIT | ext;
        for (raw, vector) in [
            (gate(CODE0, HANDLER, 0x0e, 0), Vector::NP),
            (gate(CODE0, HANDLER, 0x8c, 0), Vector::GP), // a call gate
            (gate(CODE0, HANDLER, 0x9e, 0), Vector::GP), // S is set
            (0, Vector::GP),
        ] {
            let (mut s, mut m) = kernel32();
            set_gate(&m, 0x40, raw);
            let mut outcome = |event| fails(&mut s, &mut m, |s, m| deliver(s, m, event));
            assert_eq!(outcome(software(0x40)), (vector, code(0)));
            assert_eq!(outcome(Event::External(Vector(0x40))), (vector, code(1)));
        }
        let (mut s, mut m) = kernel32();
        s.idtr.limit = 0x40 * 8 + 6;
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, Event::External(Vector(0x40))));
        assert_eq!(outcome, (Vector::GP, code(1)));
    }

    #[test]
    fn a_bad_handler_segment_is_named_by_its_selector() {
        for (target, user, vector, code) in [
            (0, false, Vector::GP, 0),
            (DATA0, false, Vector::GP, DATA0),
            (CODE0_ABSENT, false, Vector::NP, CODE0_ABSENT),
            (CODE3, false, Vector::GP, CODE3 & !3), // an outer level
            (GDT_LIMIT + 1, true, Vector::GP, GDT_LIMIT + 1),
        ] {
            let (mut s, mut m) = if user { user32() } else { kernel32() };
            set_gate(&m, 0x40, gate(target, HANDLER, 0xee, 0));
            let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x40)));
            assert_eq!(outcome, (vector, code.into()));
            let outcome =
                fails(&mut s, &mut m, |s, m| deliver(s, m, Event::External(Vector(0x40))));
            assert_eq!(outcome, (vector, u32::from(code) | 1));
        }
    }

    #[test]
    fn the_handler_must_lie_in_its_segment() {
        let (mut s, mut m) = kernel32();
        set_gate(&m, 0x40, gate(SMALL_CODE0, 0x1000, 0x8e, 0));
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, Event::External(Vector(0x40))));
        assert_eq!(outcome, (Vector::GP, 1));
        set_gate(&m, 0x40, gate(SMALL_CODE0, 0xfff, 0x8e, 0));
        deliver(&mut s, &mut m, Event::External(Vector(0x40))).unwrap();
    }

    #[test]
    fn a_bad_inner_stack_is_an_invalid_tss() {
        for (ss, vector, code) in [
            (0, Vector::TS, 0),
            (DATA3, Vector::TS, DATA3 & !3),
            (DATA0 | 1, Vector::TS, DATA0),
            (CODE0, Vector::TS, CODE0),
            (READ_ONLY0, Vector::TS, READ_ONLY0),
            (GDT_LIMIT + 1, Vector::TS, GDT_LIMIT + 1),
            (DATA0_ABSENT, Vector::SS, DATA0_ABSENT),
        ] {
            let (mut s, mut m) = user32();
            set_gate(&m, 0x40, gate(CODE0, HANDLER, 0x8e, 0));
            m.put(TSS + 8, 2, ss.into());
            let outcome =
                fails(&mut s, &mut m, |s, m| deliver(s, m, Event::External(Vector(0x40))));
            assert_eq!(outcome, (vector, u32::from(code) | 1), "{ss:#x}");
        }
    }

    #[test]
    fn the_tss_must_hold_the_stack() {
        let (mut s, mut m) = user32();
        set_gate(&m, 0x40, gate(CODE0, HANDLER, 0xee, 0));
        s.tr.limit = 8;
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x40)));
        assert_eq!(outcome, (Vector::TS, TSS_SELECTOR.into()));
        s.tr.limit = 9;
        deliver(&mut s, &mut m, software(0x40)).unwrap();
    }

    #[test]
    fn a_full_stack_is_a_stack_fault() {
        let (mut s, mut m) = kernel32();
        set_gate(&m, 0x40, gate(CODE0, HANDLER, 0x8e, 0));
        s.seg[Seg::Ss as usize].limit = (STACK - 13) as u32 + 2;
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x40)));
        assert_eq!(outcome, (Vector::SS, 0), "the current one: code 0");
        let (mut s, mut m) = user32();
        set_gate(&m, 0x40, gate(CODE0, HANDLER, 0xee, 0));
        m.put(TSS + 8, 2, EXPAND_DOWN0.into());
        m.put(TSS + 4, 4, 0x1010);
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x40)));
        assert_eq!(outcome, (Vector::SS, EXPAND_DOWN0.into()), "the new one: its selector");
    }

    /// SDM vol. 3, 17.3.1.1: faults push RF set; traps, interrupts and instruction breakpoints as
    /// it is.
    #[test]
    fn rf_in_the_pushed_image() {
        let next_rip = CODE_IP + 1;
        let exception = |v| Event::Exception(Exception::plain(v));
        for (event, vector, rf) in [
            (exception(Vector::UD), 6, true),
            (exception(Vector::DE), 0, true),
            (exception(Vector::MF), 16, true),
            (Event::Exception(Exception::db(1 << 14)), 1, false),
            (Event::Exception(Exception::db(1)), 1, false),
            (Event::Exception(Exception::db(1 << 13)), 1, true),
            (Event::External(Vector(0x20)), 0x20, false),
            (Event::Nmi, 2, false),
            (Event::Int3 { next_rip }, 3, false),
        ] {
            let (mut s, mut m) = kernel32();
            set_gate(&m, vector, gate(CODE0, HANDLER, 0x8e, 0));
            deliver(&mut s, &mut m, event).unwrap();
            let image = m.get(rsp(&s) + 8, 4);
            assert_eq!(image, 0x202 | u64::from(rf) << 16, "{event:?}");
        }
    }

    #[test]
    fn a_debug_exception_sets_dr6_and_disarms_general_detect() {
        let (mut s, mut m) = kernel32();
        set_gate(&m, 1, gate(CODE0, HANDLER, 0x8e, 0));
        s.dr.dr6 = 0xffff_0ff0 | 0x8 | 0x8000;
        s.dr.dr7 = 0x2400;
        deliver(&mut s, &mut m, Event::Exception(Exception::db(0x4001))).unwrap();
        assert_eq!((s.dr.dr6, s.dr.dr7), (0xffff_0ff0 | 0xc001, 0x400));
    }

    #[test]
    fn delivery_ends_shadows_and_halt_and_an_nmi_blocks_the_next() {
        let (mut s, mut m) = kernel32();
        set_gate(&m, 2, gate(CODE0, HANDLER, 0x8e, 0));
        s.blocking = Blocking { sti: true, mov_ss: true, nmi: false };
        s.activity = Activity::Halted;
        deliver(&mut s, &mut m, Event::Nmi).unwrap();
        assert_eq!(s.blocking, Blocking { sti: false, mov_ss: false, nmi: true });
        assert_eq!(s.activity, Activity::Running);
    }
}

mod virtual_8086_mode {
    use super::*;

    /// SDM vol. 3, 20.3.1.1.
    #[test]
    fn to_the_protected_mode_handler() {
        let (mut s, mut m) = virtual_8086();
        set_gate(&m, 0x20, gate(CODE0, HANDLER, 0x8e, 0));
        deliver(&mut s, &mut m, Event::External(Vector(0x20))).unwrap();
        let segs = [0x5002, 0x5000, 0x5003, 0x5004, 0x5005]; // SS, ES, DS, FS, GS
        let frame = m.items(STACK0 - 36, 4, 9);
        assert_eq!(frame[..4], [CODE_IP, 0x5001, 0x2_0202, STACK]);
        // ESP came before SS
        assert_eq!(frame[4..], segs);
        assert_eq!((s.cpl, s.mode(), flags(&s)), (0, Mode::Protected32, 2));
        for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            assert_eq!(s.seg[seg as usize], Segment::null(0));
        }
    }

    #[test]
    fn the_handler_must_run_at_level_0() {
        for target in [CODE1, CODE3, CONFORMING0] {
            let (mut s, mut m) = virtual_8086();
            set_gate(&m, 0x20, gate(target, HANDLER, 0x8e, 0));
            let outcome =
                fails(&mut s, &mut m, |s, m| deliver(s, m, Event::External(Vector(0x20))));
            assert_eq!(outcome, (Vector::GP, u32::from(target & !3) | 1));
        }
    }

    #[test]
    fn int_n_needs_iopl_3_but_int3_does_not() {
        let (mut s, mut m) = virtual_8086();
        set_gate(&m, 0x20, gate(CODE0, HANDLER, 0xee, 0));
        set_gate(&m, 3, gate(CODE0, HANDLER, 0xee, 0));
        assert_eq!(fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x20))), (Vector::GP, 0));
        deliver(&mut s.clone(), &mut m, Event::Int3 { next_rip: CODE_IP + 1 }).unwrap();
        s.flags.set(Rflags::IOPL, true);
        deliver(&mut s, &mut m, software(0x20)).unwrap();
        assert_eq!(s.cpl, 0);
    }

    /// Bits 20H to 27H of the redirection bitmap: vector 21H goes to the program.
    const REDIRECTED: u8 = 0;
    /// Vector 21H goes to the system.
    const INTERCEPTED: u8 = 1 << (0x21 % 8);

    /// With VME: I/O map at 0x88, so the redirection bitmap fills 0x68 to 0x87. `iopl`: IOPL 3, or
    /// nothing for 0.
    fn with_vme(iopl: Rflags, redirection: u8) -> (CpuState, Machine) {
        let (mut s, mut m) = virtual_8086();
        s.paging.cr4 = Cr4::VME;
        s.flags.set(iopl, true);
        s.tr.limit = 0x88;
        m.put(TSS + 0x66, 2, 0x88);
        m.put(TSS + 0x68 + 0x21 / 8, 1, u64::from(redirection));
        m.put(4 * 0x21, 4, 0x3000_5678);
        set_gate(&m, 0x21, gate(CODE0, HANDLER, 0xee, 0));
        m.paging = s.paging;
        (s, m)
    }

    /// SDM vol. 3, table 20-2, method 5.
    #[test]
    fn vme_redirects_to_the_program_at_iopl_3() {
        let (mut s, mut m) = with_vme(Rflags::IOPL, REDIRECTED);
        deliver(&mut s, &mut m, software(0x21)).unwrap();
        assert_eq!(m.items(0x5_901a, 2, 3), [CODE_IP + 2, 0x5001, 0x3202]);
        assert_eq!((s.cpl, s.rip, s.seg[1].base), (3, 0x5678, 0x3_0000));
        assert_eq!(flags(&s), 0x2_3002);
    }

    /// Method 6: IF is virtual.
    #[test]
    fn vme_redirects_with_the_virtual_interrupt_flag_below_iopl_3() {
        let (mut s, mut m) = with_vme(Rflags::empty(), REDIRECTED);
        s.flags.set(Rflags::VIF, true);
        deliver(&mut s, &mut m, software(0x21)).unwrap();
        assert_eq!(m.items(0x5_901a, 2, 3), [CODE_IP + 2, 0x5001, 0x3202], "IOPL 3, IF = VIF");
        assert_eq!(flags(&s), 0x2_0202, "VIF cleared, IF untouched");
        let (mut s, mut m) = with_vme(Rflags::empty(), REDIRECTED);
        deliver(&mut s, &mut m, software(0x21)).unwrap();
        assert_eq!(m.items(0x5_901e, 2, 1), [0x3002]);
    }

    /// Methods 1 (IOPL 3) and 4 (#GP).
    #[test]
    fn vme_leaves_intercepted_vectors_to_the_system() {
        let (mut s, mut m) = with_vme(Rflags::IOPL, INTERCEPTED);
        deliver(&mut s, &mut m, software(0x21)).unwrap();
        assert_eq!(s.cpl, 0);
        let (mut s, mut m) = with_vme(Rflags::empty(), INTERCEPTED);
        assert_eq!(fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x21))), (Vector::GP, 0));
    }
}

mod long_mode {
    use super::*;

    const HIGH: u64 = 0xffff_8000_1234_5678;

    #[test]
    fn from_user_mode() {
        let (mut s, mut m) = user64();
        set_gate64(&m, 14, LONG0, HIGH, 0x8e, 0);
        m.put(TSS + 4, 8, STACK0 + 8);
        s.gpr[gpr::RSP] = 0x7fff_1234_5679;
        deliver(&mut s, &mut m, Event::Exception(Exception::pf(La(0x7ff8_dead_0000), 6))).unwrap();
        let frame = [6, CODE_IP, LONG3.into(), 0x1_0202, 0x7fff_1234_5679, DATA3.into()];
        assert_eq!(m.items(STACK0 - 48, 8, 6), frame, "RSP0 is aligned down to 16");
        assert_eq!((s.rip, rsp(&s), s.cpl, s.cr2), (HIGH, STACK0 - 48, 0, 0x7ff8_dead_0000));
        assert_eq!((selector(&s, Seg::Cs), selector(&s, Seg::Ss)), (LONG0, 0));
        assert_eq!(flags(&s), 2);
    }

    #[test]
    fn the_same_level_keeps_and_aligns_the_stack() {
        let (mut s, mut m) = kernel64();
        set_gate64(&m, 0x20, LONG0, HIGH, 0x8f, 0);
        s.gpr[gpr::RSP] = STACK + 13;
        deliver(&mut s, &mut m, Event::External(Vector(0x20))).unwrap();
        assert_eq!(m.items(STACK - 40, 8, 5), [CODE_IP, LONG0.into(), 0x202, STACK + 13, 0]);
        assert_eq!((rsp(&s), flags(&s)), (STACK - 40, 0x202));

        let (mut s, mut m) = kernel64();
        s.seg[Seg::Ss as usize] = cached(&m, DATA0);
        set_gate64(&m, 0x20, LONG0, HIGH, 0x8f, 0);
        deliver(&mut s, &mut m, Event::External(Vector(0x20))).unwrap();
        assert_eq!(selector(&s, Seg::Ss), DATA0, "and SS");
    }

    #[test]
    fn an_ist_stack_is_taken_at_any_level() {
        let (mut s, mut m) = kernel64();
        set_gate64(&m, 2, LONG0, HIGH, 0x8e, 7);
        m.put(TSS + 0x24 + 8 * 6, 8, 0x7000);
        s.gpr[gpr::RSP] = 0xdead_0000_0000_0000;
        deliver(&mut s, &mut m, Event::Nmi).unwrap();
        assert_eq!(rsp(&s), 0x7000 - 40);
    }

    #[test]
    fn from_compatibility_mode() {
        let (mut s, mut m) = long(CODE3, DATA3);
        assert_eq!(s.mode(), Mode::Protected32);
        set_gate64(&m, 0x80, LONG0, HIGH, 0xee, 0);
        deliver(&mut s, &mut m, software(0x80)).unwrap();
        let frame = [CODE_IP + 2, CODE3.into(), 0x202, STACK, DATA3.into()];
        assert_eq!(m.items(STACK0 - 40, 8, 5), frame);
        assert_eq!(s.mode(), Mode::Long64);
    }

    #[test]
    fn gates_are_16_bytes_of_64_bit_type() {
        let idt = |vector: u32| vector << 3 | IDT_BIT;
        let (mut s, mut m) = user64();
        for access in [0x86, 0x87, 0x85, 0x8c] {
            set_gate64(&m, 0x20, LONG0, HIGH, access | 0x60, 0);
            let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x20)));
            assert_eq!(outcome, (Vector::GP, idt(0x20)), "{access:#x}");
        }
        set_gate64(&m, 0x20, LONG0, HIGH, 0x8e, 0);
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x20)));
        assert_eq!(outcome, (Vector::GP, idt(0x20)), "DPL");
        set_gate64(&m, 0x20, LONG0, HIGH, 0x6e, 0);
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, Event::External(Vector(0x20))));
        assert_eq!(outcome, (Vector::NP, idt(0x20) | 1));
        s.idtr.limit = 0x20 * 16 + 14;
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, Event::External(Vector(0x20))));
        assert_eq!(outcome, (Vector::GP, idt(0x20) | 1));
    }

    #[test]
    fn handlers_are_64_bit_code_at_a_canonical_address() {
        let (mut s, mut m) = user64();
        for target in [CODE0, LONG_AND_BIG0] {
            set_gate64(&m, 0x20, target, 0x1000, 0xee, 0);
            let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x20)));
            assert_eq!(outcome, (Vector::GP, target.into()));
        }
        set_gate64(&m, 0x20, LONG0, 0x8000_0000_0000, 0xee, 0);
        assert_eq!(fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x20))), (Vector::GP, 0));
    }

    #[test]
    fn stacks_are_canonical_and_in_the_tss() {
        let (mut s, mut m) = user64();
        set_gate64(&m, 0x20, LONG0, HIGH, 0xee, 0);
        m.put(TSS + 4, 8, 0x8000_0000_0000);
        assert_eq!(fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x20))), (Vector::SS, 0));
        set_gate64(&m, 0x20, LONG0, HIGH, 0xee, 5);
        s.tr.limit = 0x24 + 8 * 4 + 6;
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x20)));
        assert_eq!(outcome, (Vector::TS, TSS_SELECTOR.into()));
    }

    #[test]
    fn the_frame_is_written_with_the_new_level_and_a_hole_is_a_page_fault() {
        let (mut s, mut m) = user64();
        set_gate64(&m, 0x20, LONG0, HIGH, 0xee, 0);
        m.holes.push(STACK0 - 0x1000);
        m.put(TSS + 4, 8, STACK0 - 0x10);
        assert_eq!(fails(&mut s, &mut m, |s, m| deliver(s, m, software(0x20))), (Vector::PF, 2));
        let outcome = fails(&mut s, &mut m, |s, m| deliver(s, m, Event::External(Vector(0x20))));
        assert_eq!(outcome, (Vector::PF, 2), "its code has no EXT");
    }
}

#[test]
fn peeking_decodes_the_table_of_the_mode() {
    let (s, mut m) = real();
    m.put(4 * 0x21, 4, 0x3000_5678);
    let pointer = TableEntry::Pointer { segment: 0x3000, offset: 0x5678 };
    assert_eq!(peek(&s, &mut m, Vector(0x21)), Ok(pointer));

    let (mut s, mut m) = kernel64();
    set_gate64(&m, 0x21, LONG0, 0xffff_8000_1234_5678, 0x6f, 3);
    let Ok(TableEntry::Gate(gate)) = peek(&s, &mut m, Vector(0x21)) else { panic!("a gate") };
    assert_eq!((gate.kind, gate.selector), (GateKind::Trap, Selector(LONG0)));
    assert_eq!((gate.offset, gate.dpl, gate.ist), (0xffff_8000_1234_5678, 3, 3));
    assert!(!gate.present);
    assert_eq!(peek(&s, &mut m, Vector(0x22)), Ok(TableEntry::Invalid(0, 0)));
    s.idtr.limit = 0x21 * 16 + 14;
    assert_eq!(peek(&s, &mut m, Vector(0x21)), Ok(TableEntry::Beyond));
}
