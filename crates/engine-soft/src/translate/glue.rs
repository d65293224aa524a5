//! The code that enters translated code, leaves it, and loads the vector registers.

use super::asm::{ADDRESS, Asm, RAX, RSP};
use super::context::Context;
use super::emit::{ARITH, JIT, MXCSR, STATE, VECTORS_OUT, home, ymm_home};
use crate::thunk::area::CodeArea;
use std::mem::offset_of;
use x86::state::CpuState;

const HOST_RSP: usize = JIT + offset_of!(Context, host_rsp);
const TARGET: usize = JIT + offset_of!(Context, target);
const HOST_MXCSR: usize = JIT + offset_of!(Context, host_mxcsr);
const RIP: usize = STATE + offset_of!(CpuState, rip);
const RDI: u8 = 7;

/// Offsets in the code area.
#[derive(Clone, Copy)]
pub(super) struct Glue {
    /// To be called with the target in RDI; goes there with RIP in ADDRESS, and returns with all registers changed but RSP.
    pub(super) enter: usize,
    /// Where every exit goes: stores the guest's registers and returns from `enter`.
    pub(super) leave: usize,
    /// Loads the vector registers and MXCSR and jumps to ADDRESS.
    pub(super) load_vectors: usize,
}

pub(super) fn make(area: &mut CodeArea, avx: bool) -> Option<Glue> {
    let mut asm = Asm::default();
    let base = area.next(4096)?;
    let enter = asm.here();
    emit_enter(&mut asm);
    let leave = asm.here();
    emit_leave(&mut asm, avx);
    let load_vectors = asm.here();
    emit_load_vectors(&mut asm, avx);
    area.push(&asm.code)?;
    Some(Glue { enter: base + enter, leave: base + leave, load_vectors: base + load_vectors })
}

fn emit_enter(asm: &mut Asm) {
    asm.store(TARGET, RDI);
    asm.store(HOST_RSP, RSP);
    asm.load_word(RAX, ARITH);
    asm.flags_from_ax();
    for r in 0..13 {
        asm.load(r, home(r));
    }
    asm.load(ADDRESS, RIP);
    // jmp gs:[TARGET]
    asm.bytes(&[0x65, 0xff, 0x24, 0x25]);
    asm.bytes(&(TARGET as u32).to_le_bytes());
}

fn emit_leave(asm: &mut Asm, avx: bool) {
    for r in 0..13 {
        asm.store(home(r), r);
    }
    asm.flags_to_ax();
    asm.store_word(ARITH, RAX);
    asm.load(RSP, HOST_RSP);
    asm.load_byte(RAX, VECTORS_OUT);
    // test al, al
    asm.bytes(&[0x84, 0xc0]);
    let out = asm.jcc(5);
    for n in 0..16 {
        if avx { asm.ymm(true, n, ymm_home(n)) } else { asm.xmm(true, n, ymm_home(n)) }
    }
    asm.mxcsr(3, MXCSR);
    asm.mxcsr(2, HOST_MXCSR);
    if avx {
        asm.bytes(&[0xc5, 0xf8, 0x77]);
    }
    asm.store_byte_imm(VECTORS_OUT, 1);
    asm.resolve_here(out);
    asm.bytes(&[0xc3]);
}

fn emit_load_vectors(asm: &mut Asm, avx: bool) {
    for n in 0..16 {
        if avx { asm.ymm(false, n, ymm_home(n)) } else { asm.xmm(false, n, ymm_home(n)) }
    }
    asm.mxcsr(2, MXCSR);
    asm.store_byte_imm(VECTORS_OUT, 0);
    // jmp ADDRESS
    asm.bytes(&[0x41, 0xff, 0xe0 | (ADDRESS & 7)]);
}
