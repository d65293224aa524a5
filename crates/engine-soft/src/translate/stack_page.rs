//! The address check of accesses through RSP: a cache of one entry in front of the TLB.
//!
//! A stack hardly ever changes its page, and pushes, pops, calls and returns all begin with its
//! address. [`Context::stack_page`] keeps that page, so the check needs no index, one register
//! less, and half the time. Only a writable page is kept, one for user code and one for the
//! kernel's. An address on another page goes through the TLB, and its page is kept instead. The
//! page is dropped when the TLB may have lost it ([`revalidate`]); that happens in Rust only.
//!
//! [`Context::stack_page`]: super::context::Context::stack_page

use super::address::{Access, Expression, Group};
use super::context::Context;
use super::context::Source;
use super::context::StackPage;
use super::emit::Elsewhere;
use super::emit::{Cold, Emitter, Need};
use super::insn::PAGE_BYTES;
use super::offsets::JIT;
use super::scratch::bits;
use super::site::StubTarget;
use crate::block::USER;
use crate::cpu::Cpu;
use crate::tlb::Entry;
use std::mem::{offset_of, size_of};

const STACK_SCRATCH: usize = JIT + offset_of!(Context, stack_scratch);

/// Drops the pages at hand if they may not be what the TLB says. To be called before translated
/// code runs.
#[inline(always)]
pub(super) fn revalidate(cpu: &mut Cpu) {
    let level = usize::from(cpu.core.mode_key & USER != 0);
    revalidate_in(cpu, level, cpu.core.view);
    if let Some(view) = cpu.jit.gates.view(1 - level) {
        revalidate_in(cpu, 1 - level, view);
    }
}

#[inline(always)]
fn revalidate_in(cpu: &mut Cpu, level: usize, view: *const Entry) {
    let source: Source = (view, cpu.core.mmu.tlb.losses);
    if cpu.stack_sources[level] != source {
        cpu.stack_sources[level] = source;
        cpu.jit.stack_page[level] = StackPage::NONE;
    }
}

impl Emitter<'_> {
    /// As [`Emitter::check`], for a group around RSP.
    pub(super) fn check_stack(
        &mut self,
        n: usize,
        group: &Group,
        access: &Access,
        need: Need,
    ) -> Option<u8> {
        let address = self.scratch.take()?;
        if need == Need::Flags && !self.saved {
            let spare = self.scratch.take()?;
            self.save_flags(spare);
            self.scratch.give(spare);
        }
        let retry = self.asm.here();
        let check = group.check(access)?;
        self.expression(address, None, &Expression::STACK, check.low)?;
        self.asm.sub_gs(address, self.stack_page(offset_of!(StackPage, page)));
        self.asm.cmp_imm(address, PAGE_BYTES - check.length);
        let from = self.asm.jcc(7);
        self.asm.add_gs(address, self.stack_page(offset_of!(StackPage, host)));
        let done = self.asm.here();
        let site = self.check_site(n, check, retry);
        let elsewhere = Elsewhere { from, retry, done, site, address, check };
        self.cold.push(Cold::StackElsewhere(elsewhere));
        Some(address)
    }

    /// In the cold part: asks the TLB, with a register that holds something else.
    pub(super) fn stack_elsewhere(&mut self, e: &Elsewhere) -> Option<()> {
        self.asm.resolve_here(e.from);
        let address = e.address;
        let entry = bits(self.spilled).find(|&r| r != address)?;
        self.asm.store(STACK_SCRATCH, entry);
        self.expression(address, None, &Expression::STACK, e.check.low)?;
        self.entry_for(entry, address);
        let length = e.check.length;
        let not_writable = self.another_page(address, entry, offset_of!(Entry, wtag), length);
        self.asm.load_at(address, entry, offset_of!(Entry, wtag) as i32);
        self.asm.store(self.stack_page(offset_of!(StackPage, page)), address);
        self.asm.load_at(address, entry, Entry::HOST as i32);
        self.asm.store(self.stack_page(offset_of!(StackPage, host)), address);
        self.asm.load(entry, STACK_SCRATCH);
        let again = self.asm.jmp();
        self.asm.resolve(again, e.retry);
        self.asm.resolve_here(not_writable);
        if !e.check.write {
            self.expression(address, None, &Expression::STACK, e.check.low)?;
            let miss = self.another_page(address, entry, offset_of!(Entry, rtag), length);
            self.asm.add_at(address, entry, Entry::HOST as i32);
            self.asm.load(entry, STACK_SCRATCH);
            let on = self.asm.jmp();
            self.asm.resolve(on, e.done);
            self.asm.resolve_here(miss);
        }
        self.asm.load(entry, STACK_SCRATCH);
        let from = self.asm.jmp();
        self.cold.push(Cold::Exit { from, site: e.site, out: StubTarget::Fill(address) });
        Some(())
    }

    /// Where `field` of the page at hand is.
    fn stack_page(&self, field: usize) -> usize {
        let level = usize::from(self.region.blocks[0].key.is_user());
        JIT + offset_of!(Context, stack_page) + level * size_of::<StackPage>() + field
    }
}
