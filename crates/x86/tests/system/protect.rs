//! LAR, LSL, VERR, VERW, ARPL (SDM vol. 2).

use crate::machine::*;
use x86::exception::Exception;
use x86::protect::{arpl, lar, lsl, verr, verw};

#[test]
fn lar_gives_the_rights_of_what_level_and_type_allow() {
    let (s, mut m) = user32();
    assert_eq!(lar(&s, &mut m, CODE3), Ok(Some(0x00cf_fa00)));
    assert_eq!(lar(&s, &mut m, CONFORMING0), Ok(Some(0x00cf_9e00)));
    for hidden in [0, 3, CODE0, DATA0, TSS_SELECTOR, GDT_LIMIT + 1, 4] {
        assert_eq!(lar(&s, &mut m, hidden), Ok(None), "{hidden:#x}");
    }
    let (s, mut m) = kernel32();
    assert_eq!(lar(&s, &mut m, TSS_SELECTOR), Ok(Some(0x8b00)));
    assert_eq!(lar(&s, &mut m, CODE0 | 3), Ok(None), "RPL counts");
    assert_eq!(lar(&s, &mut m, DATA0_ABSENT), Ok(Some(0x00cf_1200)), "presence does not matter");
}

/// Which system types each accepts (SDM vol. 2, LAR's and LSL's tables).
#[test]
fn system_types() {
    let accepted = |long_mode: bool| {
        let (s, mut m) = if long_mode { kernel64() } else { kernel32() };
        let mut types = (vec![], vec![]);
        for kind in 0..16 {
            m.set_descriptor(GATE, descriptor(0, 0x123, 0x80 | kind, 0));
            types.0.extend(lar(&s, &mut m, GATE).unwrap().map(|_| kind));
            types.1.extend(lsl(&s, &mut m, GATE).unwrap().map(|_| kind));
        }
        types
    };
    assert_eq!(accepted(false), (vec![1, 2, 3, 4, 5, 9, 11, 12], vec![1, 2, 3, 9, 11]));
    assert_eq!(accepted(true), (vec![2, 9, 11, 12], vec![2, 9, 11]));
}

#[test]
fn lsl_gives_the_limit_in_bytes() {
    let (s, mut m) = kernel32();
    assert_eq!(lsl(&s, &mut m, DATA0), Ok(Some(u32::MAX)));
    assert_eq!(lsl(&s, &mut m, SMALL_CODE0), Ok(Some(0xfff)));
    assert_eq!(lsl(&s, &mut m, TSS_SELECTOR), Ok(Some(0x67)));
}

#[test]
fn verr_and_verw() {
    let (s, mut m) = kernel32();
    for (selector, readable, writable) in [
        (DATA0, true, true),
        (READ_ONLY0, true, false),
        (CODE0, true, false),
        (EXECUTE_ONLY0, false, false),
        (DATA0 | 3, false, false),
        (TSS_SELECTOR, false, false),
        (0, false, false),
    ] {
        assert_eq!(verr(&s, &mut m, selector), Ok(readable), "{selector:#x}");
        assert_eq!(verw(&s, &mut m, selector), Ok(writable), "{selector:#x}");
    }
}

#[test]
fn not_recognized_in_real_and_virtual_8086_mode() {
    for (s, mut m) in [real(), virtual_8086()] {
        assert_eq!(lar(&s, &mut m, CODE0), Err(Exception::ud()));
        assert_eq!(lsl(&s, &mut m, CODE0), Err(Exception::ud()));
        assert_eq!(verr(&s, &mut m, CODE0), Err(Exception::ud()));
        assert_eq!(verw(&s, &mut m, CODE0), Err(Exception::ud()));
    }
}

#[test]
fn arpl_raises_only() {
    assert_eq!(arpl(0x10, 0x1b), Some(0x13));
    assert_eq!(arpl(0x12, 0x01), None);
    assert_eq!(arpl(0x13, 0x03), None);
}
