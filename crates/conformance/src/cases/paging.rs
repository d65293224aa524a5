//! Paging (SDM vol. 3, chapter 4): formats, rights, error codes, accessed and dirty bits.

use super::case;
use crate::Case;
use crate::guest::Guest;
use crate::layout::{CODE, DATA, FRAME, PLAY, USER_CODE, sel};
use crate::paging::{Format, pte};
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Cr0, Cr4, Efer, Rflags};
use x86::state::gpr::{RAX, RCX, RDI, RSI};

/// Reads a doubleword of the play page into EAX.
fn read(g: &mut Guest) -> u64 {
    g.emit(|a| a.mov(eax, dword_ptr(PLAY)))
}

/// Writes to the play page.
fn write(g: &mut Guest) -> u64 {
    g.emit(|a| a.mov(dword_ptr(PLAY), 0x1234_5678u32))
}

/// Jumps to the play page, which holds HLT.
fn fetch(g: &mut Guest) -> u64 {
    g.write(FRAME, &[0xf4]);
    g.emit(|a| {
        a.mov(eax, PLAY as u32)?;
        a.jmp(rax)
    });
    PLAY
}

/// Whether the entry at `level` for the play page has `bits` at the end.
fn want_entry(g: &mut Guest, level: u32, bits: u64, set: bool) {
    let at = g.paged().entry(PLAY, level);
    g.want("entry's A/D bits", move |e| e.mem(at, 4) & bits, if set { bits } else { 0 });
}

/// A push with the stack at `stack`, which is no address, raises #SS(0).
fn push_is_ss(g: &mut Guest, stack: u64) {
    g.long();
    // The handler needs a stack of its own.
    g.set_gate(12, sel::CODE64, Guest::stub(12), crate::guest::INTERRUPT_GATE, 1);
    g.emit(|a| a.mov(rsp, stack));
    let at = g.emit(|a| a.push(rax));
    g.faults(Vector::SS, 0, at);
    g.want("pushed RSP", |e| e.pushed().rsp, stack);
}

/// Compares 2800H elements at `from` in the data with those at `to` in the play area; where the
/// instruction is.
fn compares(
    g: &mut Guest,
    from: u64,
    to: u64,
    how: fn(&mut CodeAssembler) -> Result<(), IcedError>,
) -> u64 {
    g.emit(|a| {
        a.mov(esi, (DATA + from) as u32)?;
        a.mov(edi, (PLAY + to) as u32)?;
        a.mov(ecx, 0x2800)
    });
    g.emit(how)
}

pub(super) const CASES: &[Case] = &[
    case("paging/read-sets-accessed-not-dirty", "SDM 3A 4.8", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        g.poke(FRAME, 0xfeed);
        read(g);
        g.want_reg(RAX, 0xfeed);
        (1..=4).for_each(|level| want_entry(g, level, pte::A, true));
        want_entry(g, 1, pte::D, false);
    }),
    case("paging/write-sets-dirty-in-the-leaf", "SDM 3A 4.8", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        write(g);
        g.want_mem(FRAME, 4, 0x1234_5678);
        want_entry(g, 1, pte::A | pte::D, true);
        want_entry(g, 2, pte::D, false);
    }),
    case("paging/write-after-read-sets-dirty", "SDM 3A 4.8", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        read(g);
        write(g);
        want_entry(g, 1, pte::A | pte::D, true);
    }),
    case("paging/failed-write-leaves-dirty-clear", "SDM 3A 4.8", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::P);
        let at = write(g);
        g.page_faults(3, PLAY, at);
        want_entry(g, 1, pte::D, false);
    }),
    case("paging/2m-page", "SDM 3A 4.5.4", |g| {
        g.long();
        g.paged().map_large(PLAY, 0x40_0000, pte::KERNEL);
        g.emit(|a| a.mov(dword_ptr(PLAY + 0x12_3454), 7));
        g.want_mem(0x52_3454, 4, 7);
        want_entry(g, 2, pte::A | pte::D, true);
    }),
    case("paging/not-present-read", "SDM 3A 4.7", |g| {
        g.long();
        let at = read(g);
        g.page_faults(0, PLAY, at);
    }),
    case("paging/not-present-write", "SDM 3A 4.7", |g| {
        g.long();
        let at = write(g);
        g.page_faults(2, PLAY, at);
    }),
    case("paging/read-modify-write-is-a-write", "SDM 3A 4.7", |g| {
        g.long();
        let at = g.emit(|a| a.add(dword_ptr(PLAY), 1));
        g.page_faults(2, PLAY, at);
    }),
    case("paging/not-present-at-each-level", "SDM 3A 4.5.4", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        let top = g.paged().entry(PLAY, 3);
        g.paged().set(top, 0);
        let at = read(g);
        g.page_faults(0, PLAY, at);
    }),
    case("paging/user-reads-supervisor-page", "SDM 3A 4.6.1", |g| {
        g.user();
        g.map(PLAY, FRAME, pte::KERNEL);
        let at = read(g);
        g.page_faults(5, PLAY, at);
    }),
    case("paging/user-writes-read-only-page", "SDM 3A 4.6.1", |g| {
        g.user();
        g.map(PLAY, FRAME, pte::P | pte::US);
        let at = write(g);
        g.page_faults(7, PLAY, at);
    }),
    case("paging/user-fetches-absent-page", "SDM 3A 4.7", |g| {
        g.user();
        let at = fetch(g);
        g.page_faults(0x14, PLAY, at);
    }),
    case("paging/rights-are-the-and-of-all-levels", "SDM 3A 4.6.1", |g| {
        g.user();
        g.map(PLAY, FRAME, pte::USER);
        let middle = g.paged().entry(PLAY, 2);
        let table = g.paged().entry(PLAY, 1) & !0xfff;
        g.paged().set(middle, table | pte::P | pte::US);
        let at = write(g);
        g.page_faults(7, PLAY, at);
    }),
    case("paging/wp-clear-lets-the-supervisor-write", "SDM 3A 4.6.1", |g| {
        g.long();
        g.state.paging.cr0 &= !Cr0::WP;
        g.map(PLAY, FRAME, pte::P);
        write(g);
        g.want_mem(FRAME, 4, 0x1234_5678);
    }),
    case("paging/no-execute", "SDM 3A 4.6.1", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL | pte::NX);
        let at = fetch(g);
        g.page_faults(0x11, PLAY, at);
    }),
    case("paging/nx-is-reserved-without-nxe", "SDM 3A 4.5.4", |g| {
        g.long();
        g.state.paging.efer &= !Efer::NXE;
        g.map(PLAY, FRAME, pte::KERNEL | pte::NX);
        let at = read(g);
        g.page_faults(9, PLAY, at);
    }),
    case("paging/reserved-address-bit", "SDM 3A 4.5.4", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL | pte::RESERVED);
        let at = write(g);
        g.page_faults(0xb, PLAY, at);
    }),
    case("paging/page-size-bit-is-reserved-in-pml4e", "SDM 3A 4.5.4", |g| {
        g.long();
        let far = 0x80_0000_0000;
        g.map(far, FRAME, pte::KERNEL);
        let top = g.paged().entry(far, 4);
        let table = g.paged().entry(far, 3) & !0xfff;
        g.paged().set(top, table | pte::USER | pte::PS);
        g.emit(|a| a.mov(rcx, far));
        let at = g.emit(|a| a.mov(eax, dword_ptr(rcx)));
        g.page_faults(9, far, at);
    }),
    case("paging/misaligned-2m-page-is-reserved", "SDM 3A 4.5.4", |g| {
        g.long();
        g.paged().map_large(PLAY, FRAME + 0x2000, pte::KERNEL);
        let at = read(g);
        g.page_faults(9, PLAY, at);
    }),
    case("paging/smep", "SDM 3A 4.6.1", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::SMEP;
        g.map(PLAY, FRAME, pte::USER);
        let at = fetch(g);
        g.page_faults(0x11, PLAY, at);
    }),
    case("paging/smap-forbids-user-data", "SDM 3A 4.6.1", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::SMAP;
        g.map(PLAY, FRAME, pte::USER);
        let at = read(g);
        g.page_faults(1, PLAY, at);
    }),
    case("paging/smap-is-lifted-by-ac", "SDM 3A 4.6.1", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::SMAP;
        g.flags(Rflags::AC);
        g.map(PLAY, FRAME, pte::USER);
        write(g);
        g.want_mem(FRAME, 4, 0x1234_5678);
    }),
    case("paging/smap-covers-implicit-accesses-despite-ac", "SDM 3A 4.6.1", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::SMAP;
        g.flags(Rflags::AC);
        g.map(PLAY, crate::layout::GDT, pte::USER);
        g.state.gdtr.base = PLAY;
        // Delivery of the fault has to load CS from the same page.
        g.emit(|a| a.mov(eax, u32::from(sel::FRESH)));
        g.emit(|a| a.mov(es, eax));
        g.shuts_down();
    }),
    case("paging/protection-key-access-disable", "SDM 3A 4.6.2", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::PKE;
        g.state.paging.pkru = 0b01 << 2;
        g.map(PLAY, FRAME, pte::USER | 1 << 59);
        let at = read(g);
        g.page_faults(0x25, PLAY, at);
    }),
    case("paging/protection-key-write-disable", "SDM 3A 4.6.2", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::PKE;
        g.state.paging.pkru = 0b10 << 2;
        g.map(PLAY, FRAME, pte::USER | 1 << 59);
        read(g);
        let at = write(g);
        g.page_faults(0x27, PLAY, at);
    }),
    case("paging/protection-keys-spare-supervisor-pages", "SDM 3A 4.6.2", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::PKE;
        g.state.paging.pkru = 0xffff_fffc;
        g.map(PLAY, FRAME, pte::KERNEL | 1 << 59);
        write(g);
        g.want_mem(FRAME, 4, 0x1234_5678);
    }),
    case("paging/split-write-faults-before-writing", "SDM 3A 4.7; 6.15 #PF", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        let at = g.emit(|a| a.mov(dword_ptr(PLAY + 0xffe), 0x1234_5678u32));
        g.page_faults(2, PLAY + 0x1000, at);
        g.want_mem(FRAME + 0xffe, 2, 0);
    }),
    case("paging/fetch-faults-on-its-second-page", "SDM 3A 4.7", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        g.write(FRAME + 0xffe, &[0xb8, 0x11]); // the first bytes of MOV EAX, imm32
        g.emit(|a| {
            a.mov(ecx, (PLAY + 0xffe) as u32)?;
            a.jmp(rcx)
        });
        g.page_faults(0x10, PLAY + 0x1000, PLAY + 0xffe);
    }),
    case("paging/rep-movs-stops-where-it-faults", "SDM 2B REP; 3A 6.5", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        let at = g.emit(|a| {
            a.mov(esi, DATA as u32)?;
            a.mov(edi, (PLAY + 0xff0) as u32)?;
            a.mov(ecx, 100)
        });
        let _ = at;
        g.write(DATA, &[0x5a; 100]);
        let at = g.emit(|a| a.rep().movsb());
        g.page_faults(2, PLAY + 0x1000, at);
        g.want_reg(RCX, 84);
        g.want_mem(FRAME + 0xff8, 8, 0x5a5a_5a5a_5a5a_5a5a);
    }),
    case("paging/repe-cmps-goes-on-across-pages", "SDM 2A CMPS; 2B REP", |g| {
        g.long();
        (0..3).for_each(|n| g.map(PLAY + 0x1000 * n, FRAME + 0x1000 * n, pte::KERNEL));
        let text: Vec<u8> = (0..0x2800).map(|n| (n * 7) as u8).collect();
        g.write(DATA + 0x123, &text);
        g.write(FRAME + 0x7f, &text);
        // The pair at 2003H: 1 less than what it is compared with.
        g.write(DATA + 0x123 + 0x2003, &[text[0x2003] - 1]);
        compares(g, 0x123, 0x7f, |a| a.repe().cmpsb());
        g.want_reg(RCX, 0x2800 - 0x2004);
        g.want_reg(RSI, DATA + 0x123 + 0x2004);
        g.want_reg(RDI, PLAY + 0x7f + 0x2004);
        g.want_flag(Rflags::CF, true);
        g.want_flag(Rflags::ZF, false);
    }),
    case("paging/repne-cmps-of-words-halfway-on-two-pages", "SDM 2A CMPS; 2B REP", |g| {
        g.long();
        (0..3).for_each(|n| g.map(PLAY + 0x1000 * n, FRAME + 0x1000 * n, pte::KERNEL));
        g.write(DATA, &[1; 0x2800]);
        // What lies halfway on two pages is the first that is equal.
        g.write(FRAME + 0xffe, &[1; 4]);
        compares(g, 0, 2, |a| a.repne().cmpsd());
        g.want_reg(RCX, 0x2800 - 0x400);
        g.want_reg(RSI, DATA + 0x1000);
        g.want_reg(RDI, PLAY + 0x1002);
        g.want_flag(Rflags::ZF, true);
    }),
    case("paging/repne-scas-goes-on-across-pages", "SDM 2B REP, SCAS", |g| {
        g.long();
        (0..3).for_each(|n| g.map(PLAY + 0x1000 * n, FRAME + 0x1000 * n, pte::KERNEL));
        g.write(FRAME, &[7; 0x2900]);
        g.write(FRAME + 0x2801, &[5, 0]);
        g.emit(|a| a.mov(eax, 0x1234_0005));
        compares(g, 0, 1, |a| a.repne().scasw());
        g.want_reg(RCX, 0x2800 - 0x1401);
        g.want_reg(RDI, PLAY + 0x2803);
        g.want_flag(Rflags::ZF, true);
    }),
    case("paging/repe-scas-takes-no-more-than-it-is-to", "SDM 2B REP, SCAS", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        g.write(FRAME, &[0; 0x1000]);
        g.emit(|a| a.mov(eax, 0));
        g.emit(|a| {
            a.mov(edi, PLAY as u32)?;
            a.mov(ecx, 0x200)?;
            a.repe().scasq()
        });
        g.want_reg(RCX, 0);
        g.want_reg(RDI, PLAY + 0x1000);
        g.want_flag(Rflags::ZF, true);
    }),
    case("paging/repe-cmps-stops-where-it-faults", "SDM 2A CMPS; 3A 6.5", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        let at = compares(g, 0, 0xf00, |a| a.repe().cmpsb());
        g.page_faults(0, PLAY + 0x1000, at);
        g.want_reg(RCX, 0x2800 - 0x100);
        g.want_reg(RSI, DATA + 0x100);
    }),
    case("paging/32-bit-4k-page", "SDM 3A 4.3", |g| {
        g.protected_paged(Format::Legacy);
        g.map(PLAY, FRAME, pte::KERNEL);
        write(g);
        g.want_mem(FRAME, 4, 0x1234_5678);
        want_entry(g, 1, pte::A | pte::D, true);
        want_entry(g, 2, pte::A, true);
    }),
    case("paging/32-bit-4m-page", "SDM 3A 4.3", |g| {
        g.protected_paged(Format::Legacy);
        g.paged().map_large(PLAY, 0x80_0000, pte::KERNEL);
        g.emit(|a| a.mov(dword_ptr(PLAY + 0x34_5678), 9));
        g.want_mem(0xb4_5678, 4, 9);
    }),
    case("paging/32-bit-fault", "SDM 3A 4.7", |g| {
        g.protected_paged(Format::Legacy);
        g.map(PLAY, FRAME, pte::P);
        let at = write(g);
        g.page_faults(3, PLAY, at);
    }),
    case("paging/32-bit-linear-addresses-wrap", "SDM 3A 3.4", |g| {
        g.protected();
        g.emit(|a| {
            a.mov(ebx, 0xffff_fff0u32)?;
            a.mov(dword_ptr(ebx + DATA + 0x10), 0x77)
        });
        g.want_mem(DATA, 4, 0x77);
    }),
    case("paging/pae-4k-page", "SDM 3A 4.4", |g| {
        g.protected_paged(Format::Pae);
        // A PDPTE other than the first has to be in the registers when the case starts.
        g.paged().map(0xa0_0000, FRAME, pte::KERNEL);
        g.emit(|a| a.mov(dword_ptr(0xa0_0008u64), 5));
        g.want_mem(FRAME + 8, 4, 5);
    }),
    case("paging/pae-no-execute", "SDM 3A 4.4.2", |g| {
        g.protected_paged(Format::Pae);
        g.state.paging.efer = Efer::NXE;
        g.map(0xa0_0000, FRAME, pte::KERNEL | pte::NX);
        g.emit(|a| {
            a.mov(ecx, 0xa0_0000)?;
            a.jmp(ecx)
        });
        g.page_faults(0x11, 0xa0_0000, 0xa0_0000);
    }),
    case("paging/pae-pdptes-are-loaded-with-cr3", "SDM 3A 4.4.1", |g| {
        g.protected_paged(Format::Pae);
        g.map(PLAY, FRAME, pte::KERNEL); // makes PDPTE 1 in memory, not in the register
        g.emit(|a| a.mov(eax, dword_ptr(DATA)));
        g.handler(Vector::PF, |a| {
            a.mov(eax, cr3)?;
            a.mov(cr3, eax)?;
            a.inc(ecx)?;
            a.add(esp, 4)?;
            a.iretd()
        });
        write(g);
        g.want_mem(FRAME, 4, 0x1234_5678);
        g.want_reg(RCX, 1);
    }),
    case("paging/pae-reserved-pdpte-bit-faults-the-load", "SDM 3A 4.4.1", |g| {
        g.protected_paged(Format::Pae);
        let at = g.paged().entry(PLAY, 3);
        g.paged().set(at, FRAME | pte::P | pte::RW); // bit 1 is reserved here
        g.emit(|a| a.mov(eax, cr3));
        let at = g.emit(|a| a.mov(cr3, eax));
        g.faults(Vector::GP, 0, at);
    }),
    case("paging/non-canonical-data-is-gp", "SDM 1 3.3.7.1", |g| {
        g.long();
        g.emit(|a| a.mov(rcx, 0x0000_8000_0000_0000u64));
        let at = g.emit(|a| a.mov(eax, dword_ptr(rcx)));
        g.faults(Vector::GP, 0, at);
    }),
    case("paging/non-canonical-stack-is-ss", "SDM 1 3.3.7.1", |g| {
        push_is_ss(g, 0xffff_7fff_ffff_ffff);
    }),
    case("paging/stack-halfway-round-is-ss", "SDM 1 3.3.7.1", |g| {
        push_is_ss(g, 0x8000_0000_0000_0808);
    }),
    case("paging/non-canonical-operand-by-way-of-rsp-is-ss", "SDM 1 3.3.7.1", |g| {
        g.long();
        g.set_gate(12, sel::CODE64, Guest::stub(12), crate::guest::INTERRUPT_GATE, 1);
        g.emit(|a| a.mov(rsp, 0x0000_8000_0000_0000u64));
        let at = g.emit(|a| a.mov(eax, dword_ptr(rsp + 8)));
        g.faults(Vector::SS, 0, at);
    }),
    case("paging/misalignment-goes-before-a-non-canonical-stack", "SDM 2B MOVAPS", |g| {
        g.long();
        g.set_gate(13, sel::CODE64, Guest::stub(13), crate::guest::INTERRUPT_GATE, 1);
        g.emit(|a| a.mov(rsp, 0x0000_8000_0000_0000u64));
        let at = g.emit(|a| a.movaps(xmm0, xmmword_ptr(rsp + 8)));
        g.faults(Vector::GP, 0, at);
    }),
    case("paging/non-canonical-jump-is-gp", "SDM 2A JMP", |g| {
        g.long();
        g.emit(|a| a.mov(rcx, 0x0000_8000_0000_0000u64));
        let at = g.emit(|a| a.jmp(rcx));
        g.faults(Vector::GP, 0, at);
    }),
    case("paging/non-canonical-call-is-gp", "SDM 2A CALL", |g| {
        g.long();
        g.emit(|a| a.mov(rcx, 0x0000_8000_0000_0000u64));
        let at = g.emit(|a| a.call(rcx));
        g.faults(Vector::GP, 0, at);
        g.want("pushed RSP", |e| e.pushed().rsp, crate::layout::STACK);
    }),
    case("paging/write-through-an-alias-changes-code", "SDM 3A 11.6", |g| {
        g.long();
        g.map(PLAY, CODE, pte::KERNEL);
        g.emit(|a| {
            a.mov(eax, 1)?;
            a.mov(byte_ptr(PLAY + 0x10), 2) // the immediate below, through the other mapping
        });
        while g.here() < CODE + 0xf {
            g.emit(|a| a.nop());
        }
        g.emit(|a| a.mov(ebx, 1));
        g.want_reg(x86::state::gpr::RBX, 2);
    }),
    case("paging/code-that-rewrites-itself", "SDM 3A 11.6", |g| {
        g.long();
        g.emit(|a| {
            let mut again = a.create_label();
            a.xor(edx, edx)?;
            a.set_label(&mut again)?;
            a.mov(ebx, 0x11)?; // at CODE + 2; its immediate is rewritten
            a.inc(edx)?;
            a.mov(byte_ptr(CODE + 3), 0x22)?;
            a.cmp(edx, 2)?;
            a.jb(again)
        });
        g.want_reg(x86::state::gpr::RBX, 0x22);
    }),
    case("paging/rewritten-code-of-another-page-finds-the-flags", "SDM 3A 11.6", |g| {
        g.long();
        // xor eax, eax; nop; ret, and later setc al; ret. And another ret, so that there is code on
        // the page all the time.
        g.write(DATA, &[0x31, 0xc0, 0x90, 0xc3]);
        g.write(DATA + 0x80, &[0xc3]);
        g.emit(|a| {
            let mut again = a.create_label();
            a.mov(ecx, DATA as u32)?;
            a.mov(edx, DATA as u32 + 0x80)?;
            a.call(rdx)?;
            a.xor(esi, esi)?;
            a.xor(ebx, ebx)?;
            a.set_label(&mut again)?;
            a.stc()?;
            a.call(rcx)?;
            a.add(ebx, eax)?;
            a.inc(esi)?;
            a.mov(dword_ptr(rcx), 0xc3c0_920f_u32)?;
            a.cmp(esi, 3)?;
            a.jb(again)
        });
        g.want_reg(x86::state::gpr::RBX, 2);
    }),
    case("paging/rewritten-code-reads-flags-that-nobody-read", "SDM 3A 11.6", |g| {
        g.long();
        // add esi, edi; mov eax, [rsp]; jmp to xor edx, edx, which makes flags of its own, and
        // later to setc dl, which does not.
        g.write(DATA, &[0x01, 0xfe, 0x8b, 0x04, 0x24, 0xeb, 0x79]);
        g.write(DATA + 0x80, &[0x31, 0xd2, 0x90, 0xc3]);
        g.emit(|a| {
            a.mov(ecx, DATA as u32)?;
            a.mov(edi, u32::MAX)?;
            a.mov(esi, 1)?;
            a.call(rcx)?;
            a.mov(esi, 1)?;
            a.call(rcx)?;
            a.mov(dword_ptr(rcx + 0x80), 0xc3c2_920f_u32)?;
            a.mov(esi, 1)?;
            a.call(rcx)
        });
        g.want_reg(x86::state::gpr::RDX, 1);
    }),
    case("paging/prefetch-never-faults", "SDM 2B PREFETCHh", |g| {
        g.user();
        g.emit(|a| a.prefetcht0(byte_ptr(PLAY)));
        g.emit(|a| a.mov(eax, USER_CODE as u32));
        g.want_reg(RAX, USER_CODE);
    }),
    case("paging/cmpxchg-writes-even-if-unequal", "SDM 2A CMPXCHG", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::P);
        g.poke(FRAME, 5);
        g.emit(|a| a.mov(eax, 1));
        let at = g.emit(|a| a.cmpxchg(dword_ptr(PLAY), ecx));
        g.page_faults(3, PLAY, at);
        g.want_reg(RAX, 1);
    }),
    case("paging/failed-push-leaves-the-stack-pointer", "SDM 3A 6.5", |g| {
        g.user();
        g.emit(|a| a.mov(esp, PLAY as u32));
        let at = g.emit(|a| a.push(rax));
        g.page_faults_on(PLAY - 0x1000, 6, at);
        g.want("pushed RSP", |e| e.pushed().rsp, PLAY);
    }),
    case("paging/table-outside-ram-reads-all-ones", "SDM 3A 4.5.4", |g| {
        g.long();
        let top = g.paged().entry(PLAY, 3);
        g.paged().set(top, 0x8000_0000 | pte::USER);
        let at = read(g);
        g.page_faults(9, PLAY, at);
    }),
    case("paging/device-page", "SDM 1 19.3; nothing there reads all-ones", |g| {
        g.long();
        g.map(PLAY, 0x8000_0000, pte::KERNEL);
        read(g);
        g.want_reg(RAX, 0xffff_ffff);
    }),
    case("paging/code-in-a-device-page", "SDM 2A opcode map FF /7", |g| {
        g.long();
        g.map(PLAY, 0x8000_0000, pte::KERNEL);
        g.emit(|a| {
            a.mov(eax, PLAY as u32)?;
            a.jmp(rax)
        });
        g.traps(Vector::UD, PLAY);
    }),
];
