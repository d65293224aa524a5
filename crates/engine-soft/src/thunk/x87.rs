//! The x87 unit's bookkeeping that no thunk does: last-instruction pointers, and the way between
//! x87 and MMX.
//!
//! Some processors save FIP, FDP and FOP only with a pending exception, so thunks leave those
//! fields of the guest's state alone and the interpreter keeps them: it calls [`record`] after an
//! x87 instruction has run (SDM vol. 1, 8.1.8 and 8.1.9).

use iced_x86::{Instruction, Mnemonic};
use x86::state::X87;

/// What an x87 instruction does to FIP, FDP and FOP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointers {
    /// Control instructions and everything that is not x87: nothing.
    Keep,
    /// FNINIT (and FNSAVE after it has stored): cleared.
    Clear,
    /// Non-control instructions: FIP is set, and after an unmasked exception FOP, and FDP if there
    /// is a memory operand.
    Set,
}

/// How `instruction` moves the pointers. (FLDENV and FRSTOR load them; the interpreter performs
/// those.)
pub fn pointers(instruction: &Instruction) -> Pointers {
    use Mnemonic::*;
    let info = instruction.op_code();
    let first = info.op_code() >> (8 * info.op_code_len().saturating_sub(1));
    if info.encoding() != iced_x86::EncodingKind::Legacy
        || info.table() != iced_x86::OpCodeTableKind::Normal
        || !(0xd8..=0xdf).contains(&first)
    {
        return Pointers::Keep;
    }
    match instruction.mnemonic() {
        Fninit | Finit | Fnsave | Fsave => Pointers::Clear,
        Fnclex | Fclex | Fldcw | Fnstcw | Fstcw | Fnstsw | Fstsw | Fnstenv | Fstenv | Fldenv
        | Frstor => Pointers::Keep,
        _ => Pointers::Set,
    }
}

/// FOP of the x87 instruction encoded in `bytes`: the low three bits of the first opcode byte, then
/// the second byte. `None` if it is not one.
pub fn opcode(bytes: &[u8]) -> Option<u16> {
    const PREFIXES: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];
    let mut rest = bytes.iter().skip_while(|b| PREFIXES.contains(b) || (0x40..=0x4f).contains(*b));
    match (rest.next()?, rest.next()) {
        (first @ 0xd8..=0xdf, Some(second)) => Some(u16::from(first & 7) << 8 | u16::from(*second)),
        _ => None,
    }
}

/// An address as the pointers keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FarPointer {
    /// Selector; 0 in 64-bit mode and where FCS and FDS are deprecated.
    pub selector: u16,
    /// Offset within the segment.
    pub offset: u64,
}

/// Notes that an instruction has run: `update` from [`pointers`], `fop` from [`opcode`], where it
/// is, and its memory operand.
///
/// FDP and FOP change on unmasked exceptions only. CPUID.(7,0):EBX bit 6 says so of FDP; for FOP,
/// fopcode compatibility mode, which would set it always, cannot be switched on (SDM vol. 1, 8.1.8
/// and 8.1.9.1).
pub fn record(
    x87: &mut X87,
    update: Pointers,
    fop: u16,
    instruction: FarPointer,
    data: Option<FarPointer>,
) {
    match update {
        Pointers::Keep => {}
        Pointers::Clear => {
            (x87.fop, x87.fip, x87.fdp, x87.fcs, x87.fds) = (0, 0, 0, 0, 0);
        }
        Pointers::Set => {
            (x87.fcs, x87.fip) = (instruction.selector, instruction.offset);
            // No exception was pending before: instructions that wait would not have run, and the
            // others keep the pointers.
            if error_pending(x87) {
                x87.fop = fop & 0x7ff;
                if let Some(data) = data {
                    (x87.fds, x87.fdp) = (data.selector, data.offset);
                }
            }
        }
    }
}

/// Whether an unmasked exception is pending: the next waiting x87 or MMX instruction raises #MF.
pub const fn error_pending(x87: &X87) -> bool {
    x87.fsw & !x87.fcw & 0x3f != 0
}

/// Where MM`n` lives in [`X87::st`], which is ordered from the top of the stack.
pub const fn mmx_slot(x87: &X87, n: usize) -> usize {
    n.wrapping_sub((x87.fsw >> 11) as usize & 7) & 7
}

/// Enters MMX state, as every MMX instruction but EMMS does: TOP becomes 0, all registers valid
/// (SDM vol. 1, 9.5.1).
pub fn enter_mmx(x87: &mut X87) {
    let top = (x87.fsw >> 11) as usize & 7;
    if top != 0 {
        x87.st.rotate_right(top);
        x87.fsw &= !(7 << 11);
    }
    x87.ftw = 0xff;
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::new(64, bytes, DecoderOptions::NONE).decode()
    }

    #[test]
    fn pointers_follow_the_manual() {
        assert_eq!(pointers(&decode(&[0xd9, 0xe8])), Pointers::Set); // fld1
        assert_eq!(pointers(&decode(&[0xd9, 0xd0])), Pointers::Set); // fnop
        assert_eq!(pointers(&decode(&[0xd9, 0x2b])), Pointers::Keep); // fldcw
        assert_eq!(pointers(&decode(&[0xdf, 0xe0])), Pointers::Keep); // fnstsw ax
        assert_eq!(pointers(&decode(&[0x9b])), Pointers::Keep); // wait
        assert_eq!(pointers(&decode(&[0xdb, 0xe3])), Pointers::Clear); // fninit
        assert_eq!(pointers(&decode(&[0x0f, 0x58, 0xc1])), Pointers::Keep); // addps
        assert_eq!(opcode(&[0x66, 0x41, 0xdd, 0x43, 8]), Some(0x543));
        assert_eq!(opcode(&[0xd9]), None);
        assert_eq!(opcode(&[0x90, 0xd9]), None);
    }

    #[test]
    fn only_an_unmasked_exception_sets_fop_and_fdp() {
        let place = |offset| FarPointer { selector: 0, offset };
        let mut x87 = X87 { fcw: 0x37f, fsw: 4, ..X87::default() };
        let run = |x87: &mut X87, ip| {
            record(x87, Pointers::Set, 0x543, place(ip), Some(place(0x2000)));
            (x87.fip, x87.fop, x87.fdp)
        };
        assert_eq!(run(&mut x87, 0x1000), (0x1000, 0, 0), "a masked exception");
        x87.fcw &= !4;
        assert_eq!(run(&mut x87, 0x1002), (0x1002, 0x543, 0x2000));
        // What comes later leaves them.
        (x87.fsw, x87.fdp) = (0, 0x3000);
        assert_eq!(run(&mut x87, 0x1004), (0x1004, 0x543, 0x3000));
    }

    #[test]
    fn mmx_registers_are_physical() {
        let mut x87 = X87 { fsw: 6 << 11, ..X87::default() };
        for (i, st) in x87.st.iter_mut().enumerate() {
            st[0] = ((i + 6) % 8) as u8; // the physical number
        }
        assert!((0..8).all(|n| usize::from(x87.st[mmx_slot(&x87, n)][0]) == n));
        enter_mmx(&mut x87);
        assert!((0..8).all(|n| usize::from(x87.st[n][0]) == n));
    }
}
