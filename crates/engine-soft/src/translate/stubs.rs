//! The code that enters translated code, leaves it, calls Rust on a TLB miss, and loads the vector
//! registers.
//!
//! Stubs that leave or call from within a region depend on the registers it spills. They are made
//! once for each such set in a generation.

use super::asm::{ADDRESS, Asm, RAX, RSP};
use super::cache::TranslationCache;
use super::context::Context;
use super::fill::fill;
use super::gate;
use super::generation::{Emits, RegionStubs, Stubs};
use super::offsets::{ARITH, EXIT, JIT, MXCSR, RIP, TMP_FLAGS, VECTORS_OUT, spill_slot, ymm_slot};
use super::scratch::STANDARD;
use super::scratch::{bits, last};
use crate::cpu::Cpu;
use crate::thunk::area::CodeArea;
use crate::thunk::guard::Translated;
use memory::GuestRam;
use std::io;
use std::mem::offset_of;

const STOP: usize = JIT + offset_of!(Context, stop);
const HOST_RSP: usize = JIT + offset_of!(Context, host_rsp);
const TARGET: usize = JIT + offset_of!(Context, target);
const BESIDE: usize = JIT + offset_of!(Context, beside);
const HOST_MXCSR: usize = JIT + offset_of!(Context, host_mxcsr);
const CPU: usize = JIT + offset_of!(Context, cpu);
const RAW: usize = JIT + offset_of!(Context, raw);
const RDI: u8 = 7;

/// What a code cache does not know of processors.
const EMITS: Emits = Emits { stubs: make, for_region, guarded };

/// The code cache of a machine with `ram`, of `capacity` bytes of host code.
///
/// # Errors
/// The host denies executable memory.
pub(crate) fn code_cache(ram: GuestRam, capacity: usize) -> io::Result<TranslationCache> {
    TranslationCache::new(ram, capacity, EMITS)
}

/// What the fault guard needs of code that is left at host address `leave`.
fn guarded(leave: u64) -> Translated {
    Translated { this: CPU, exit: EXIT, fault_pc: JIT + offset_of!(Context, fault_pc), leave }
}

// At the boundary exits tell their site in ADDRESS, within a region in the last register spilled:
// one code takes both.
const _: () = assert!(STANDARD.ilog2() == ADDRESS as u32);

/// The code that enters and leaves translations. `None`: there is no room.
fn make(area: &CodeArea, avx: bool) -> Option<Stubs> {
    let mut asm = Asm::default();
    let base = area.next(4096)?;
    let enter = asm.here();
    emit_enter(&mut asm);
    let fault = asm.here();
    for r in 0..16 {
        asm.store(RAW + 8 * usize::from(r), r);
    }
    emit_out(&mut asm, avx);
    let load_vectors = asm.here();
    emit_load_vectors(&mut asm, avx);
    // jmp ADDRESS
    asm.bytes(&[0x41, 0xff, 0xe0 | (ADDRESS & 7)]);
    let beside = asm.here();
    load_boundary(&mut asm);
    jump_by(&mut asm, BESIDE);
    area.push(&asm.code)?;
    let boundary = for_region(area, STANDARD, avx)?;
    let (syscall, sysret) = gate::stubs(area, boundary.leave)?;
    Some(Stubs {
        syscall,
        sysret,
        enter: base + enter,
        fault: base + fault,
        load_vectors: base + load_vectors,
        beside: base + beside,
        boundary,
    })
}

/// The pieces for regions that spill `spilled`.
fn for_region(area: &CodeArea, spilled: u16, avx: bool) -> Option<RegionStubs> {
    let mut asm = Asm::default();
    let base = area.next(4096)?;
    let leave = asm.here();
    asm.store32(EXIT, last(spilled));
    for r in bits(!spilled) {
        asm.store(spill_slot(r), r);
    }
    emit_out(&mut asm, avx);
    let mut fill = [0; 16];
    let mut jumps = Vec::new();
    for r in bits(spilled) {
        fill[usize::from(r)] = base + asm.here();
        asm.store32(EXIT, r);
        jumps.push(asm.jmp());
    }
    jumps.into_iter().for_each(|place| asm.resolve_here(place));
    emit_fill(&mut asm, spilled, avx);
    area.push(&asm.code)?;
    Some(RegionStubs { leave: base + leave, fill })
}

/// Aligns the stack for calls: sub rsp, 8 and add rsp, 8. The caller of the entry
/// expects no register to be kept.
const ALIGN: [u8; 4] = [0x48, 0x83, 0xec, 8];
const UNALIGN: [u8; 4] = [0x48, 0x83, 0xc4, 8];

/// Jumps to the address in the field at `place`.
fn jump_by(asm: &mut Asm, place: usize) {
    // jmp gs:[place]
    asm.bytes(&[0x65, 0xff, 0x24, 0x25]);
    asm.bytes(&(place as u32).to_le_bytes());
}

/// The registers that the host has at a boundary, from the state; flags untouched.
fn load_boundary(asm: &mut Asm) {
    for r in bits(!STANDARD) {
        asm.load(r, spill_slot(r));
    }
}

fn emit_enter(asm: &mut Asm) {
    asm.cmp_byte(STOP, 0);
    let go = asm.jcc(4);
    asm.bytes(&[0xc3]);
    asm.resolve_here(go);
    asm.bytes(&ALIGN);
    asm.store(TARGET, RDI);
    asm.store(HOST_RSP, RSP);
    // Status flags to where either kind of entry expects them.
    asm.load_word(RAX, ARITH);
    asm.store_word(TMP_FLAGS, RAX);
    asm.flags_from_ax();
    load_boundary(asm);
    asm.load(ADDRESS, RIP);
    jump_by(asm, TARGET);
}

/// Status flags and vector registers to the state, and out. The general registers are stored
/// already.
fn emit_out(asm: &mut Asm, avx: bool) {
    asm.flags_to_ax();
    asm.store_word(ARITH, RAX);
    asm.load(RSP, HOST_RSP);
    let out = if_vectors(asm);
    emit_store_vectors(asm, avx);
    asm.store_byte_imm(VECTORS_OUT, 1);
    asm.resolve_here(out);
    asm.bytes(&UNALIGN);
    asm.bytes(&[0xc3]);
}

/// Tests whether the vector registers are in the host's; the place of a jump that is taken if not.
/// Clobbers RAX and flags.
fn if_vectors(asm: &mut Asm) -> usize {
    asm.load_byte(RAX, VECTORS_OUT);
    // test al, al
    asm.bytes(&[0x84, 0xc0]);
    asm.jcc(5)
}

fn emit_store_vectors(asm: &mut Asm, avx: bool) {
    for n in 0..16 {
        if avx { asm.ymm(true, n, ymm_slot(n)) } else { asm.xmm(true, n, ymm_slot(n)) }
    }
    asm.mxcsr(3, MXCSR);
    asm.mxcsr(2, HOST_MXCSR);
    if avx {
        asm.bytes(&[0xc5, 0xf8, 0x77]);
    }
}

fn emit_load_vectors(asm: &mut Asm, avx: bool) {
    for n in 0..16 {
        if avx { asm.ymm(false, n, ymm_slot(n)) } else { asm.xmm(false, n, ymm_slot(n)) }
    }
    asm.mxcsr(2, MXCSR);
    asm.store_byte_imm(VECTORS_OUT, 0);
}

/// Translated code that called Rust while it was to stop goes on step by step, to where it can.
fn step_if_stopped(asm: &mut Asm) {
    asm.cmp_byte(STOP, 0);
    let go = asm.jcc(4);
    // pushfq; or dword [rsp], TF; popfq
    asm.bytes(&[0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d]);
    asm.resolve_here(go);
}

/// Status flags are dead or saved where a check misses.
fn emit_fill(asm: &mut Asm, spilled: u16, avx: bool) {
    for r in bits(!spilled) {
        asm.store(spill_slot(r), r);
    }
    // The scratch registers may hold what earlier checks found.
    for r in bits(spilled) {
        asm.store(RAW + 8 * usize::from(r), r);
    }
    asm.load(RSP, HOST_RSP);
    let kept = if_vectors(asm);
    emit_store_vectors(asm, avx);
    asm.resolve_here(kept);
    asm.load(RDI, CPU);
    asm.load_immediate64(RAX, fill as extern "sysv64" fn(*mut Cpu) -> u64 as usize as u64);
    // call rax; test rax, rax
    asm.bytes(&[0xff, 0xd0, 0x48, 0x85, 0xc0]);
    let out = asm.jcc(4);
    asm.store(TARGET, RAX);
    step_if_stopped(asm);
    let kept = if_vectors(asm);
    emit_load_vectors(asm, avx);
    asm.resolve_here(kept);
    for r in bits(!spilled) {
        asm.load(r, spill_slot(r));
    }
    for r in bits(spilled) {
        asm.load(r, RAW + 8 * usize::from(r));
    }
    jump_by(asm, TARGET);
    asm.resolve_here(out);
    // The vector registers are in the state by now.
    asm.store_byte_imm(VECTORS_OUT, 1);
    asm.bytes(&UNALIGN);
    asm.bytes(&[0xc3]);
}
