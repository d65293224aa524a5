//! PUSH, POP, LEAVE and PUSHF in place: an address check on the stack, a move, and RSP.

use super::address::{Access, Expression, expression_of};
use super::asm::RSP;
use super::emit::{Emitter, Need};
use super::flow::Class;
use super::gate;
use super::offsets::{SCRATCH, spill_slot};
use super::scratch::Held;

const RBP: u8 = 5;

impl Emitter<'_> {
    pub(super) fn stack(displacement: i32, write: bool) -> Access {
        Access::word(Expression::STACK, displacement, write)
    }

    pub(super) fn push(&mut self, n: usize) -> Option<()> {
        let region = self.region;
        let g = &region.insns[n];
        let place = self.reach(n, Self::stack(-8, true), self.live(n))?;
        if matches!(g.class, Class::PushImmediate) {
            self.asm.store_immediate(&place, g.i.immediate(0) as i32);
        } else {
            let r = self.value(g.i.op0_register().number() as u8)?;
            self.asm.store_place(&place, r);
        }
        self.asm.lea(RSP, RSP, -8);
        Some(())
    }

    pub(super) fn push_memory(&mut self, n: usize) -> Option<()> {
        let region = self.region;
        let g = &region.insns[n];
        let (at, displacement) = expression_of(&g.i, true)?;
        let from = Access::word(at, displacement, false);
        let place = self.reach(n, from, self.live(n))?;
        let value = self.scratch.take()?;
        self.asm.load_place(value, &place);
        self.asm.store(SCRATCH, value);
        self.scratch.unpin();
        let place = self.reach(n, Self::stack(-8, true), self.live(n))?;
        let value = self.scratch.take()?;
        self.asm.load(value, SCRATCH);
        self.asm.store_place(&place, value);
        self.asm.lea(RSP, RSP, -8);
        Some(())
    }

    /// PUSHFQ: the image is put together from where the parts are (`x86::state::Flags`).
    pub(super) fn push_flags(&mut self, n: usize) -> Option<()> {
        let place = self.reach(n, Self::stack(-8, true), Need::Flags)?;
        let value = self.scratch.take()?;
        let other = self.scratch.take()?;
        self.save_flags(value);
        gate::flags_image(&mut self.asm, value, other);
        self.asm.store_place(&place, value);
        self.asm.lea(RSP, RSP, -8);
        Some(())
    }

    pub(super) fn pop(&mut self, n: usize) -> Option<()> {
        let region = self.region;
        let to = region.insns[n].i.op0_register().number() as u8;
        let place = self.reach(n, Self::stack(0, false), self.live(n))?;
        if self.spilled & 1 << to == 0 {
            self.asm.load_place(to, &place);
        } else {
            let host = self.scratch.take()?;
            self.asm.load_place(host, &place);
            self.asm.store(spill_slot(to), host);
            self.scratch.stale_guest(to, None);
            self.scratch.hold(host, Held::Guest(to));
        }
        if to != RSP {
            self.asm.lea(RSP, RSP, 8);
        }
        Some(())
    }

    pub(super) fn leave(&mut self, n: usize) -> Option<()> {
        let at = Expression { base: RBP, ..Expression::STACK };
        let access = Access::word(at, 0, false);
        let place = self.reach(n, access, self.live(n))?;
        let value = self.scratch.take()?;
        self.asm.load_place(value, &place);
        let frame = self.value(RBP)?;
        self.asm.lea(RSP, frame, 8);
        self.set_value(RBP, value);
        Some(())
    }

    /// Stores host register `from` to guest register `r`.
    pub(super) fn set_value(&mut self, r: u8, from: u8) {
        if self.spilled & 1 << r == 0 {
            self.asm.mov(r, from);
        } else {
            self.asm.store(spill_slot(r), from);
            self.scratch.stale_guest(r, None);
        }
    }
}
