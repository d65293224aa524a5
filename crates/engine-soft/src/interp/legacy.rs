//! Instructions that exist only outside 64-bit mode: decimal adjustment, BOUND, SALC (SDM vol. 2).

use crate::alu::{CF, PF, SF, ZF};
use crate::core::Core;
use crate::core::Op;
use crate::op::{Fallible, Step, step};
use crate::word::HIGH_BYTE;
use x86::addr::Vector;
use x86::bus::AccessKind;
use x86::exception::Exception;

/// AF in `Flags::arith`.
const AF: u16 = 0x1000;
const AL: u8 = 0;
const AH: u8 = HIGH_BYTE;

/// SF, ZF and PF of `value`.
fn szp(value: u8) -> u16 {
    let mut f = 0;
    if value == 0 {
        f |= ZF;
    }
    if value & 0x80 != 0 {
        f |= SF;
    }
    if value.count_ones().is_multiple_of(2) {
        f |= PF;
    }
    f
}

/// Replaces the six flags but keeps OF as it is (undefined after decimal adjustment).
fn set_flags(core: &mut Core, f: u16) {
    core.state.flags.arith = f | 0x0200 | core.state.flags.arith & 1;
}

/// AAA (`SUBTRACT` false), AAS.
pub(crate) fn aaa_aas<const SUBTRACT: bool>(core: &mut Core, _: &Op) -> Step {
    let (al, ax) = (core.reg::<u8>(AL), core.reg::<u16>(0));
    let adjust = al & 15 > 9 || core.state.flags.arith & AF != 0;
    let ax = match (adjust, SUBTRACT) {
        (false, _) => ax,
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(0x106),
    };
    core.set_reg::<u16>(0, ax & 0xff0f);
    let carry = if adjust { AF | CF } else { 0 };
    set_flags(core, szp(ax as u8 & 15) | carry);
    Step::Next
}

/// DAA (`SUBTRACT` false), DAS.
pub(crate) fn daa_das<const SUBTRACT: bool>(core: &mut Core, _: &Op) -> Step {
    let before = core.reg::<u8>(AL);
    let flags = core.state.flags.arith;
    let adjust = |al: u8, by: u8| if SUBTRACT { al.wrapping_sub(by) } else { al.wrapping_add(by) };
    let (mut al, mut f) = (before, 0);
    if before & 15 > 9 || flags & AF != 0 {
        al = adjust(al, 6);
        f |= AF;
        // DAS also reports the borrow of this step (SDM vol. 2, DAS).
        if flags & CF != 0 || (SUBTRACT && before < 6) {
            f |= CF;
        }
    }
    if before > 0x99 || flags & CF != 0 {
        al = adjust(al, 0x60);
        f |= CF;
    }
    core.set_reg::<u8>(AL, al);
    set_flags(core, szp(al) | f);
    Step::Next
}

/// AAM imm8: #DE for zero.
pub(crate) fn aam(core: &mut Core, op: &Op) -> Step {
    let (al, base) = (core.reg::<u8>(AL), op.imm as u8);
    if base == 0 {
        return step(core.raise(Exception::plain(Vector::DE)));
    }
    core.set_reg::<u8>(AH, al / base);
    core.set_reg::<u8>(AL, al % base);
    set_flags(core, szp(al % base));
    Step::Next
}

/// AAD imm8.
pub(crate) fn aad(core: &mut Core, op: &Op) -> Step {
    let (al, ah) = (core.reg::<u8>(AL), core.reg::<u8>(AH));
    let al = al.wrapping_add(ah.wrapping_mul(op.imm as u8));
    core.set_reg::<u16>(0, u16::from(al));
    set_flags(core, szp(al));
    Step::Next
}

/// SALC: AL = CF ? FFH : 0.
pub(crate) fn salc(core: &mut Core, _: &Op) -> Step {
    let value = if core.state.flags.arith & CF != 0 { 0xff } else { 0 };
    core.set_reg::<u8>(AL, value);
    Step::Next
}

/// BOUND: #BR unless lower ≤ index ≤ upper, signed.
pub(crate) fn bound(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let size = u64::from(op.size);
        let mut bounds = [0; 2];
        for (bound, at) in bounds.iter_mut().zip([0, size]) {
            let la = core.part(op, at, size, AccessKind::Read)?;
            *bound = if op.size == 2 {
                i32::from(core.load::<u16>(la)? as i16)
            } else {
                core.load::<u32>(la)? as i32
            };
        }
        let [lower, upper] = bounds;
        let index = if op.size == 2 {
            i32::from(core.reg::<u16>(op.dst) as i16)
        } else {
            core.reg::<u32>(op.dst) as i32
        };
        if index < lower || index > upper {
            return core.raise(Exception::plain(Vector::BR));
        }
        Ok(())
    };
    step(body(core))
}
