//! What an implementation may cache, and what must be noticed all the same: rights are checked at
//! every access with the registers of the moment (SDM vol. 3, 4.6 and 4.10.2), and code is what
//! memory holds (11.6).

use super::case;
use crate::Case;
use crate::guest::Guest;
use crate::layout::*;
use crate::paging::pte;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Cr0, Cr4, Rflags};
use x86::state::gpr::{RAX, RBX, RCX};

/// MOV EAX, `value`; RET.
fn returning(value: u8) -> [u8; 6] {
    [0xb8, value, 0, 0, 0, 0xc3]
}

/// A read that caches a translation, then a write that must fault with `code` after `change`.
fn write_faults_after(
    g: &mut Guest,
    code: u32,
    change: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
) {
    g.emit(|a| a.mov(dword_ptr(PLAY), 1));
    g.emit(change);
    let at = g.emit(|a| a.mov(dword_ptr(PLAY), 2));
    g.page_faults(code, PLAY, at);
    g.want_mem(FRAME, 4, 1);
}

pub(super) const CASES: &[Case] = &[
    case("caches/user-after-supervisor", "SDM 3A 4.6.1", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        g.write(USER_CODE, &[0x8b, 0x04, 0x25, 0, 0, 0, 0x40]); // MOV EAX, [PLAY]
        g.emit(|a| {
            a.mov(ebx, dword_ptr(PLAY))?;
            a.push(i32::from(sel::USER_DATA))?;
            a.push(USER_STACK as i32)?;
            a.push(2)?;
            a.push(i32::from(sel::USER_CODE64))?;
            a.push(USER_CODE as i32)?;
            a.iretq()
        });
        g.page_faults(5, PLAY, USER_CODE);
    }),
    case("caches/supervisor-after-a-failed-user", "SDM 3A 4.6.1", |g| {
        g.user();
        g.map(PLAY, FRAME, pte::KERNEL);
        g.poke(FRAME, 0x77);
        let handler = g.handler(Vector::PF, |a| {
            a.mov(ebx, dword_ptr(PLAY))?;
            a.hlt()
        });
        g.emit(|a| a.mov(eax, dword_ptr(PLAY)));
        g.halts_at(handler + 8);
        g.want_reg(RBX, 0x77);
    }),
    case("caches/fetch-after-read", "SDM 3A 4.6.1", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL | pte::NX);
        g.emit(|a| {
            a.mov(eax, dword_ptr(PLAY))?;
            a.mov(ecx, PLAY as u32)?;
            a.jmp(rcx)
        });
        g.page_faults(0x11, PLAY, PLAY);
    }),
    case("caches/wp-takes-effect-at-once", "SDM 3A 4.6.1", |g| {
        g.long();
        g.state.paging.cr0 &= !Cr0::WP;
        g.map(PLAY, FRAME, pte::P);
        write_faults_after(g, 3, |a| {
            a.mov(rax, cr0)?;
            a.bts(rax, 16)?;
            a.mov(cr0, rax)
        });
    }),
    case("caches/clac-takes-effect-at-once", "SDM 3A 4.6.1", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::SMAP;
        g.flags(Rflags::AC);
        g.map(PLAY, FRAME, pte::USER);
        write_faults_after(g, 3, CodeAssembler::clac);
    }),
    case("caches/popf-of-ac-takes-effect-at-once", "SDM 3A 4.6.1", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::SMAP;
        g.flags(Rflags::AC);
        g.map(PLAY, FRAME, pte::USER);
        write_faults_after(g, 3, |a| {
            a.push(2)?;
            a.popfq()
        });
    }),
    case("caches/wrpkru-takes-effect-at-once", "SDM 3A 4.6.2", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::PKE;
        g.map(PLAY, FRAME, pte::USER | 1 << 59);
        write_faults_after(g, 0x27, |a| {
            a.xor(ecx, ecx)?;
            a.xor(edx, edx)?;
            a.mov(eax, 0b10 << 2)?;
            a.wrpkru()
        });
    }),
    case("caches/remapped-code", "SDM 3A 4.10.4", |g| {
        g.long();
        g.write(FRAME, &returning(1));
        g.write(FRAME + 0x1000, &returning(2));
        g.map(PLAY, FRAME, pte::KERNEL);
        let entry = g.paged().entry(PLAY, 1);
        g.emit(|a| {
            a.mov(ecx, PLAY as u32)?;
            a.call(rcx)?;
            a.mov(ebx, eax)?;
            a.mov(dword_ptr(entry), ((FRAME + 0x1000) | pte::KERNEL) as u32)?;
            a.invlpg(byte_ptr(rcx))?;
            a.call(rcx)
        });
        g.want_reg(RBX, 1);
        g.want_reg(RAX, 2);
    }),
    case("caches/one-page-of-code-at-two-addresses", "SDM 1 3.5.1 RIP-relative", |g| {
        g.long();
        g.write(FRAME, &[0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3]); // LEA RAX, [RIP]; RET
        g.map(PLAY, FRAME, pte::KERNEL);
        g.map(PLAY + 0x5000, FRAME, pte::KERNEL);
        g.emit(|a| {
            a.mov(ecx, PLAY as u32)?;
            a.call(rcx)?;
            a.mov(rbx, rax)?;
            a.add(ecx, 0x5000)?;
            a.call(rcx)
        });
        g.want_reg(RBX, PLAY + 7);
        g.want_reg(RAX, PLAY + 0x5007);
    }),
    case("caches/one-page-of-code-in-two-modes", "SDM 2A 2.2.1", |g| {
        g.long();
        g.write(DATA, &[0x40, 0xc3]); // INC EAX; RET, or a REX prefix before RET
        let target = CODE + 0x60;
        g.emit(|a| {
            a.mov(eax, 1)?;
            a.mov(ecx, DATA as u32)?;
            a.call(rcx)?;
            a.mov(ebx, eax)?;
            a.push(i32::from(sel::CODE32))?;
            a.push(target as i32)
        });
        g.raw(&[0x48, 0xcb]); // RETF, 64-bit
        g.seek(target, 32);
        g.emit(|a| a.call(ecx));
        g.want_reg(RBX, 1);
        g.want_reg(RAX, 2);
    }),
    case("caches/second-page-of-an-instruction-is-remapped", "SDM 3A 4.10.4", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        g.map(PLAY + 0x1000, FRAME + 0x1000, pte::KERNEL);
        g.write(FRAME + 0xfff, &[0xb8]); // MOV EAX, imm32 across the boundary
        g.write(FRAME + 0x1000, &returning(1)[1..]);
        g.write(FRAME + 0x2000, &returning(2)[1..]);
        let entry = g.paged().entry(PLAY + 0x1000, 1);
        g.emit(|a| {
            a.mov(ecx, PLAY as u32 + 0xfff)?;
            a.call(rcx)?;
            a.mov(ebx, eax)?;
            a.mov(dword_ptr(entry), ((FRAME + 0x2000) | pte::KERNEL) as u32)?;
            a.invlpg(byte_ptr(PLAY + 0x1000))?;
            a.call(rcx)
        });
        g.want_reg(RBX, 1);
        g.want_reg(RAX, 2);
    }),
    case("caches/second-page-of-an-instruction-is-rewritten", "SDM 3A 11.6", |g| {
        g.long();
        g.write(DATA + 0xfff, &[0xb8]);
        g.write(DATA + 0x1000, &returning(1)[1..]);
        g.emit(|a| {
            a.mov(ecx, DATA as u32 + 0xfff)?;
            a.call(rcx)?;
            a.mov(ebx, eax)?;
            a.mov(byte_ptr(DATA + 0x1000), 2)?;
            a.call(rcx)
        });
        g.want_reg(RBX, 1);
        g.want_reg(RAX, 2);
    }),
    case("caches/rep-stos-over-code-to-come", "SDM 3A 11.6", |g| {
        g.long();
        g.write(DATA, &returning(1));
        g.emit(|a| {
            a.mov(edx, DATA as u32)?;
            a.call(rdx)?;
            a.mov(ebx, eax)?;
            a.mov(edi, DATA as u32 + 1)?;
            a.mov(ecx, 1)?;
            a.mov(al, 9)?;
            a.rep().stosb()?;
            a.call(rdx)
        });
        g.want_reg(RBX, 1);
        g.want_reg(RAX, 9);
        g.want_reg(RCX, 0);
    }),
    case("caches/cr3-load-changes-code-under-way", "SDM 3A 4.10.4.1", |g| {
        g.long();
        let mut other = crate::paging::Tables::identity_at(
            &g.ram,
            crate::paging::Format::Long,
            TABLES + 0x8_0000,
        );
        // The page that loads CR3 exists in both spaces, with another instruction after the load in
        // the second.
        let code = PLAY;
        g.map(code, FRAME, pte::KERNEL);
        other.map(code, FRAME + 0x1000, pte::KERNEL);
        let load = [0x0f, 0x22, 0xd8]; // MOV CR3, RAX
        g.write(FRAME, &load);
        g.write(FRAME + 3, &[0xb3, 1, 0xf4]); // MOV BL, 1; HLT
        g.write(FRAME + 0x1000, &load);
        g.write(FRAME + 0x1003, &[0xb3, 2, 0xf4]);
        let root = other.root();
        g.emit(|a| {
            a.mov(rax, root)?;
            a.mov(ecx, code as u32)?;
            a.jmp(rcx)
        });
        g.halts_at(code + 6);
        g.want_reg(RBX, 2);
    }),
];
