//! Segment loads and accesses (SDM vol. 3, 5.3–5.7; vol. 2, MOV, LLDT, LTR).

use crate::machine::*;
use x86::addr::{La, Vector};
use x86::bus::AccessKind::{Execute, Read, Write};
use x86::exception::Exception;
use x86::segment::{check_access, lldt, load_data_segment, ltr};
use x86::state::{Seg, Segment};

#[test]
fn a_data_segment_is_loaded_and_marked_accessed() {
    let (mut s, mut m) = kernel32();
    m.set_descriptor(DATA0, descriptor(0x12_3456, 0x2_1fff, 0x92, 4));
    load_data_segment(&mut s, &mut m, Seg::Ds, DATA0).unwrap();
    let expected = Segment { base: 0x12_3456, limit: 0x2_1fff, selector: DATA0, access: 0x4093 };
    assert_eq!(s.seg[Seg::Ds as usize], expected);
    assert_eq!(m.descriptor(DATA0) >> 40 & 0xff, 0x93, "A is set in memory");
}

#[test]
fn granularity_scales_the_limit() {
    let (mut s, mut m) = kernel32();
    m.set_descriptor(DATA0, descriptor(0, 0x12, 0x93, 0xc));
    load_data_segment(&mut s, &mut m, Seg::Es, DATA0).unwrap();
    assert_eq!(s.seg[Seg::Es as usize].limit, 0x1_2fff);
}

#[test]
fn null_is_fine_for_data_until_used() {
    let (mut s, mut m) = user32();
    load_data_segment(&mut s, &mut m, Seg::Ds, 3).unwrap();
    assert_eq!(selector(&s, Seg::Ds), 3);
    assert_eq!(check_access(&s, Seg::Ds, 0, 1, Read), Err(Exception::gp(0)));
}

#[test]
fn null_ss_faults_outside_64_bit_mode() {
    let (mut s, mut m) = kernel32();
    assert_eq!(fails(&mut s, &mut m, |s, m| load_data_segment(s, m, Seg::Ss, 0)), (Vector::GP, 0));
}

#[test]
fn null_ss_in_64_bit_mode_needs_cpl_below_3_and_equal_rpl() {
    let (mut s, mut m) = kernel64();
    load_data_segment(&mut s, &mut m, Seg::Ss, 0).unwrap();
    assert_eq!(fails(&mut s, &mut m, |s, m| load_data_segment(s, m, Seg::Ss, 1)), (Vector::GP, 0));
    let (mut s, mut m) = user64();
    assert_eq!(fails(&mut s, &mut m, |s, m| load_data_segment(s, m, Seg::Ss, 3)), (Vector::GP, 0));
}

#[test]
fn loads_are_refused_with_the_selector() {
    // at level, register, selector, outcome
    for (user, seg, selector, vector) in [
        (false, Seg::Ds, GDT_LIMIT + 1, Vector::GP), // beyond the table
        (false, Seg::Ds, 0x0c, Vector::GP),          // LDT, which is null
        (false, Seg::Ds, EXECUTE_ONLY0, Vector::GP), // code that cannot be read
        (false, Seg::Ds, TSS_SELECTOR, Vector::GP),  // a system descriptor
        (false, Seg::Ds, DATA0_ABSENT, Vector::NP),  // not present
        (false, Seg::Ds, DATA0 | 3, Vector::GP),     // RPL 3 > DPL 0
        (true, Seg::Fs, DATA0, Vector::GP),          // CPL 3 > DPL 0
        (false, Seg::Ss, READ_ONLY0, Vector::GP),    // a stack must be writable
        (false, Seg::Ss, CODE0, Vector::GP),         // and data
        (false, Seg::Ss, DATA0 | 1, Vector::GP),     // RPL != CPL
        (false, Seg::Ss, DATA3 & !3, Vector::GP),    // DPL != CPL
        (false, Seg::Ss, DATA0_ABSENT, Vector::SS),  // not present: #SS
        (true, Seg::Ss, DATA0 | 3, Vector::GP),
    ] {
        let (mut s, mut m) = if user { user32() } else { kernel32() };
        let outcome = fails(&mut s, &mut m, |s, m| load_data_segment(s, m, seg, selector));
        assert_eq!(outcome, (vector, u32::from(selector & !3)), "{seg:?} {selector:#x}");
    }
}

#[test]
fn readable_conforming_code_may_be_read_from_any_level() {
    let (mut s, mut m) = user32();
    load_data_segment(&mut s, &mut m, Seg::Ds, CONFORMING0 | 3).unwrap();
    assert!(check_access(&s, Seg::Ds, 0, 4, Read).is_ok());
    assert_eq!(check_access(&s, Seg::Ds, 0, 4, Write), Err(Exception::gp(0)));
}

#[test]
fn the_ldt_is_searched_when_ti_is_set() {
    let (mut s, mut m) = kernel32();
    lldt(&mut s, &mut m, LDT_SELECTOR).unwrap();
    assert_eq!((s.ldtr.base, s.ldtr.limit), (LDT, 0x1f));
    m.put(LDT + 0x18, 8, descriptor(0x7777, 0xff, 0x93, 0));
    load_data_segment(&mut s, &mut m, Seg::Gs, 0x1c).unwrap();
    assert_eq!(s.seg[Seg::Gs as usize].base, 0x7777);
    let outcome = fails(&mut s, &mut m, |s, m| load_data_segment(s, m, Seg::Gs, 0x24));
    assert_eq!(outcome, (Vector::GP, 0x24), "beyond its limit");
}

#[test]
fn real_mode_keeps_a_big_limit() {
    let (mut s, mut m) = real();
    s.seg[Seg::Ds as usize].limit = u32::MAX;
    load_data_segment(&mut s, &mut m, Seg::Ds, 0x1234).unwrap();
    let ds = s.seg[Seg::Ds as usize];
    assert_eq!((ds.base, ds.limit, ds.selector), (0x1_2340, u32::MAX, 0x1234));
    assert_eq!(check_access(&s, Seg::Ds, 0x10_0000, 4, Write), Ok(La(0x11_2340)));
}

#[test]
fn virtual_8086_mode_loads_a_64_kib_segment() {
    let (mut s, mut m) = virtual_8086();
    load_data_segment(&mut s, &mut m, Seg::Ss, 0x6001).unwrap();
    let expected = Segment { base: 0x6_0010, limit: 0xffff, selector: 0x6001, access: 0xf3 };
    assert_eq!(s.seg[Seg::Ss as usize], expected);
}

#[test]
fn a_page_fault_in_the_gdt_is_passed_on() {
    let (mut s, mut m) = kernel32();
    m.holes.push(GDT);
    let outcome = fails(&mut s, &mut m, |s, m| load_data_segment(s, m, Seg::Ds, DATA0));
    assert_eq!(outcome, (Vector::PF, 0));
}

#[test]
fn ltr_wants_an_available_tss_and_makes_it_busy() {
    let (mut s, mut m) = kernel32();
    ltr(&mut s, &mut m, TSS_B_SELECTOR).unwrap();
    assert_eq!((s.tr.base, s.tr.kind()), (TSS_B, 11));
    assert_eq!(m.descriptor(TSS_B_SELECTOR) >> 40 & 0xff, 0x8b);
    let gp = |selector: u16| (Vector::GP, u32::from(selector & !3));
    for selector in [TSS_B_SELECTOR, DATA0, LDT_SELECTOR, 4, 0] {
        assert_eq!(fails(&mut s, &mut m, |s, m| ltr(s, m, selector)), gp(selector));
    }
    m.set_descriptor(TSS_B_SELECTOR, descriptor(TSS_B, 0x67, 0x09, 0));
    let absent = fails(&mut s, &mut m, |s, m| ltr(s, m, TSS_B_SELECTOR));
    assert_eq!(absent, (Vector::NP, TSS_B_SELECTOR.into()));
}

#[test]
fn ltr_and_lldt_take_16_bytes_in_long_mode_and_want_a_canonical_base() {
    let (mut s, mut m) = kernel64();
    m.set_descriptor(TSS_B_SELECTOR, descriptor(TSS_B, 0x67, 0x89, 0));
    m.put(GDT + u64::from(TSS_B_SELECTOR) + 8, 8, 0xffff_8000);
    ltr(&mut s, &mut m, TSS_B_SELECTOR).unwrap();
    assert_eq!(s.tr.base, 0xffff_8000_0000_0000 | TSS_B);
    m.put(GDT + u64::from(LDT_SELECTOR) + 8, 8, 0x8000);
    let outcome = fails(&mut s, &mut m, |s, m| lldt(s, m, LDT_SELECTOR));
    assert_eq!(outcome, (Vector::GP, LDT_SELECTOR.into()));
    s.gdtr.limit = LDT_SELECTOR + 14;
    m.put(GDT + u64::from(LDT_SELECTOR) + 8, 8, 0);
    let outcome = fails(&mut s, &mut m, |s, m| lldt(s, m, LDT_SELECTOR));
    assert_eq!(outcome, (Vector::GP, LDT_SELECTOR.into()), "only half of it in the table");
}

#[test]
fn system_instructions_need_level_0_and_protected_mode() {
    let (mut s, mut m) = user32();
    assert_eq!(fails(&mut s, &mut m, |s, m| ltr(s, m, TSS_B_SELECTOR)), (Vector::GP, 0));
    assert_eq!(fails(&mut s, &mut m, |s, m| lldt(s, m, 0)), (Vector::GP, 0));
    let (mut s, mut m) = real();
    assert_eq!(fails(&mut s, &mut m, |s, m| lldt(s, m, 0)), (Vector::UD, u32::MAX));
    let (mut s, mut m) = virtual_8086();
    assert_eq!(fails(&mut s, &mut m, |s, m| ltr(s, m, 0)), (Vector::UD, u32::MAX));
}

#[test]
fn a_null_ldt_holds_no_descriptor() {
    let (mut s, mut m) = kernel32();
    lldt(&mut s, &mut m, 3).unwrap();
    assert_eq!(s.ldtr, Segment::null(3));
    assert_eq!(fails(&mut s, &mut m, |s, m| load_data_segment(s, m, Seg::Ds, 4)), (Vector::GP, 4));
}

#[test]
fn limits_count_the_last_byte() {
    let (mut s, _) = kernel32();
    s.seg[Seg::Ds as usize] = Segment { base: 0x1_0000, limit: 0xfff, selector: 8, access: 0x93 };
    assert_eq!(check_access(&s, Seg::Ds, 0xffc, 4, Write), Ok(La(0x1_0ffc)));
    assert_eq!(check_access(&s, Seg::Ds, 0xffd, 4, Write), Err(Exception::gp(0)));
    assert_eq!(check_access(&s, Seg::Ds, 0xffff_ffff, 4, Write), Err(Exception::gp(0)));
    s.seg[Seg::Ss as usize] = s.seg[Seg::Ds as usize];
    let ss = Exception::with_code(Vector::SS, 0);
    assert_eq!(check_access(&s, Seg::Ss, 0x1000, 1, Read), Err(ss));
}

#[test]
fn expand_down_limits_are_the_lower_end() {
    let (mut s, mut m) = kernel32();
    load_data_segment(&mut s, &mut m, Seg::Ds, EXPAND_DOWN0).unwrap();
    assert_eq!(check_access(&s, Seg::Ds, 0x1000, 4, Write), Ok(La(0x1000)));
    assert_eq!(check_access(&s, Seg::Ds, 0xfff, 1, Write), Err(Exception::gp(0)));
    assert_eq!(check_access(&s, Seg::Ds, 0xffff_fffc, 4, Write), Ok(La(0xffff_fffc)));
    assert_eq!(check_access(&s, Seg::Ds, 0xffff_fffd, 4, Write), Err(Exception::gp(0)));
    s.seg[Seg::Ds as usize].access &= !Segment::DB;
    assert_eq!(check_access(&s, Seg::Ds, 0xfffe, 2, Write), Ok(La(0xfffe)));
    assert_eq!(check_access(&s, Seg::Ds, 0xffff, 2, Write), Err(Exception::gp(0)));
}

#[test]
fn types_are_checked_in_protected_mode_only() {
    let (s, _) = kernel32();
    assert_eq!(check_access(&s, Seg::Cs, 0, 1, Write), Err(Exception::gp(0)));
    assert!(check_access(&s, Seg::Cs, 0, 1, Read).is_ok());
    assert!(check_access(&s, Seg::Cs, 0, 1, Execute).is_ok());
    let (s, _) = real();
    assert_eq!(check_access(&s, Seg::Cs, 5, 1, Write), Ok(La(0x2_0005)));
    assert_eq!(check_access(&s, Seg::Cs, 0xffff, 2, Write), Err(Exception::gp(0)));
}

#[test]
fn linear_addresses_wrap_at_four_gigabytes_outside_64_bit_mode() {
    let (mut s, _) = kernel32();
    s.seg[Seg::Ds as usize].base = 0xffff_f000;
    assert_eq!(check_access(&s, Seg::Ds, 0x2000, 4, Write), Ok(La(0x1000)));
}

#[test]
fn in_64_bit_mode_only_fs_and_gs_have_a_base_and_addresses_are_canonical() {
    let (mut s, _) = kernel64();
    s.seg[Seg::Ds as usize] = Segment::null(0);
    s.seg[Seg::Gs as usize].base = 0xffff_8000_0000_0000;
    assert_eq!(check_access(&s, Seg::Ds, 0x10, 8, Write), Ok(La(0x10)));
    assert_eq!(check_access(&s, Seg::Gs, 0x10, 8, Write), Ok(La(0xffff_8000_0000_0010)));
    assert_eq!(check_access(&s, Seg::Ds, 0x7fff_ffff_fff8, 8, Read), Ok(La(0x7fff_ffff_fff8)));
    assert_eq!(check_access(&s, Seg::Ds, 0x7fff_ffff_fff9, 8, Read), Err(Exception::gp(0)));
    let ss = Exception::with_code(Vector::SS, 0);
    assert_eq!(check_access(&s, Seg::Ss, 0x8000_0000_0000, 8, Read), Err(ss));
}
