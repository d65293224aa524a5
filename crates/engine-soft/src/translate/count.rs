//! Counting: instructions, at each block's head, and what `--stats` shows of translations.
//!
//! No flags are touched, since it is not known there whether they are needed.

use super::emit::Emitter;
use super::offsets::LEFT;

impl Emitter<'_> {
    /// Counts the `n` instructions of the block that begins here. Where the translation is bounded
    /// it stops here if fewer are left.
    pub(super) fn count(&mut self, n: usize) -> Option<()> {
        let register = self.scratch.take()?;
        self.add(LEFT, -(n as i32), register);
        if self.options.wanted.bounded {
            // The sign byte, moved to where it makes the address canonical or not: below zero this
            // faults on purpose, and the fault is at the block's first instruction.
            self.asm.load_byte(register, LEFT + 7);
            self.asm.swap_bytes(register);
            self.asm.load_gs_at(register, register, LEFT as i32);
        }
        self.scratch.unpin();
        Some(())
    }

    /// Adds `n` to a counter by way of `register`; flags untouched.
    fn add(&mut self, counter: usize, n: i32, register: u8) {
        self.asm.load(register, counter);
        self.asm.lea(register, register, n);
        self.asm.store(counter, register);
    }

    /// Counts one more, if translations count, by way of `register`; flags untouched.
    pub(super) fn tally(&mut self, counter: usize, register: u8) {
        if self.options.wanted.counting {
            self.add(counter, 1, register);
        }
    }
}
