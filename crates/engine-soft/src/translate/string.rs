//! REP STOS and REP MOVS in place, where each operand lies on one page: address checks, and the
//! host's own instruction.
//!
//! The interpreter performs longer ones page by page, and those that go downwards or meet a page
//! that the check refuses.

use super::address::{Access, Expression};
use super::asm::RCX;
use super::emit::{Emitter, Need};
use super::forms::Repeat;
use super::insn::PAGE_BYTES;
use super::offsets::{SYSTEM_FLAGS, spill_slot};

const RSI: u8 = 6;
const RDI: u8 = 7;
/// DF in the second byte of RFLAGS.
const DF: i32 = 4;

impl Emitter<'_> {
    /// Translates instruction `n`. `None`: a register it needs is spilled.
    pub(super) fn repeat(&mut self, n: usize, repeat: Repeat) -> Option<()> {
        let pointers: &[u8] = if repeat.moves { &[RSI, RDI] } else { &[RDI] };
        if pointers.iter().chain([&RCX]).any(|r| self.spilled & 1 << r != 0) {
            return None;
        }
        self.flags_aside(n)?;
        self.within_pages(n, repeat, pointers)?;
        let mut places = [None; 2];
        for (pointer, place) in pointers.iter().zip(&mut places) {
            let at = Expression { base: *pointer, ..Expression::STACK };
            let (size, write) = (1 << repeat.scale, *pointer == RDI);
            let access = Access { at, displacement: 0, size, write, alignment: 1 };
            *place = Some(self.reach(n, access, Need::Nothing)?);
        }
        // Where the pointers will be, to their homes; nothing leaves before they are back.
        let end = self.scratch.take()?;
        for pointer in pointers {
            self.asm.lea_scaled(end, Some(*pointer), RCX, repeat.scale, 0);
            self.asm.store(spill_slot(*pointer), end);
        }
        for (pointer, place) in pointers.iter().zip(places) {
            self.asm.lea_place(*pointer, &place?);
        }
        self.asm.repeat(repeat.scale, repeat.moves);
        for pointer in pointers {
            self.asm.load(*pointer, spill_slot(*pointer));
        }
        self.scratch.unpin();
        // A stop does not step through the elements, so poll here. If the instruction begins anew,
        // nothing is left for it to do.
        self.poll_now()
    }

    /// Leaves to the interpreter unless each of `pointers` stays on its page, upwards. Changes
    /// RFLAGS.
    fn within_pages(&mut self, n: usize, repeat: Repeat, pointers: &[u8]) -> Option<()> {
        let spare = self.scratch.take()?;
        self.asm.cmp_imm(RCX, PAGE_BYTES >> repeat.scale);
        let long = self.asm.jcc(7);
        self.interpret_from(long, n);
        self.asm.load_byte(spare, SYSTEM_FLAGS + 1);
        self.asm.test_imm(spare, DF);
        let down = self.asm.jcc(5);
        self.interpret_from(down, n);
        for pointer in pointers {
            self.asm.lea_scaled(spare, Some(*pointer), RCX, repeat.scale, -1);
            self.asm.xor(spare, *pointer);
            self.asm.test_imm(spare, -PAGE_BYTES);
            let crosses = self.asm.jcc(5);
            self.interpret_from(crosses, n);
        }
        self.scratch.give(spare);
        Some(())
    }
}
