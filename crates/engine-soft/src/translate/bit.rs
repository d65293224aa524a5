//! BT, BTS, BTR and BTC with a memory operand and a bit number in a register.
//!
//! The number may select any word of memory (SDM vol. 2, 3.1.1.9). It nearly always stays within
//! the word that the operand names; then the instruction is translated like others. Otherwise the
//! interpreter performs it.

use super::address::Access;
use super::emit::Emitter;

impl Emitter<'_> {
    pub(super) fn bit(&mut self, n: usize, access: Access) -> Option<()> {
        let region = self.region;
        self.flags_aside(n)?;
        let number = self.value(region.insns[n].i.op1_register().number() as u8)?;
        let last = 8 * access.size as i32 - 1;
        if access.size == 8 {
            self.asm.cmp_imm(number, last);
        } else {
            self.asm.cmp32(number, last);
        }
        let elsewhere = self.asm.jcc(7);
        self.interpret_from(elsewhere, n);
        self.memory(n, access)
    }
}
