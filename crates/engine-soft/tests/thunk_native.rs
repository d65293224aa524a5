//! Thunks against the processor itself: the unmodified instruction, memory operand included, runs between a full load and a
//! full store of the registers, and must leave what its thunk leaves: every register, flag (undefined ones too: same silicon), vector,
//! MXCSR, the x87 registers, and memory.
#![allow(unsafe_code)] // Reason: maps and calls the native harness.

mod thunk_support;

use std::mem::offset_of;
use std::ptr;

use engine_soft::thunk::{Feature, HostFeatures};
use iced_x86::code_asm::*;
use iced_x86::{Code, Instruction, Mnemonic};
use thunk_support::{Bench, Random, synthesize, through_bytes};
use x86::state::CpuState;

/// What the harness loads and stores. RSP points at `gpr` while the instruction runs, so `flags` is what PUSHFQ writes.
#[repr(C, align(64))]
struct Context {
    flags: u64,
    gpr: [u64; 16],
    host_rsp: u64,
    padding: [u64; 6],
    ymm: [[u8; 32]; 16],
    fx: [u8; 512],
}

struct Native {
    page: *mut u8,
    context: Box<Context>,
}

const PAGE: usize = 4096;
const GPRS: [AsmRegister64; 16] = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
const YMMS: [AsmRegisterYmm; 16] =
    [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15];
const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

impl Native {
    fn new() -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: a fresh mapping.
        let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        // SAFETY: Context is plain data.
        Self { page: page.cast(), context: Box::new(unsafe { std::mem::zeroed() }) }
    }

    /// The value RSP has while the instruction runs.
    fn rsp(&self) -> u64 {
        &raw const self.context.gpr as u64
    }

    fn assemble(&self, instruction: &[u8]) -> Vec<u8> {
        let at = |offset: usize| offset as i32;
        let inner = |offset: usize| offset as i32 - 8;
        let mut a = CodeAssembler::new(64).unwrap();
        for r in SAVED {
            a.push(r).unwrap();
        }
        a.mov(qword_ptr(rdi + at(offset_of!(Context, host_rsp))), rsp).unwrap();
        a.mov(rsp, rdi).unwrap();
        a.fxrstor64(ptr(rsp + at(offset_of!(Context, fx)))).unwrap();
        for (n, y) in YMMS.into_iter().enumerate() {
            a.vmovdqu(y, ymmword_ptr(rsp + at(offset_of!(Context, ymm) + 32 * n))).unwrap();
        }
        a.popfq().unwrap();
        for (n, r) in GPRS.into_iter().enumerate().filter(|(n, _)| *n != 4) {
            a.mov(r, qword_ptr(rsp + inner(offset_of!(Context, gpr) + 8 * n))).unwrap();
        }
        a.db(instruction).unwrap();
        for (n, r) in GPRS.into_iter().enumerate() {
            a.mov(qword_ptr(rsp + inner(offset_of!(Context, gpr) + 8 * n)), r).unwrap();
        }
        a.pushfq().unwrap();
        for (n, y) in YMMS.into_iter().enumerate() {
            a.vmovdqu(ymmword_ptr(rsp + at(offset_of!(Context, ymm) + 32 * n)), y).unwrap();
        }
        a.fxsave64(ptr(rsp + at(offset_of!(Context, fx)))).unwrap();
        a.mov(dword_ptr(rsp + at(offset_of!(Context, padding))), 0x1f80).unwrap();
        a.ldmxcsr(dword_ptr(rsp + at(offset_of!(Context, padding)))).unwrap();
        a.fninit().unwrap();
        a.vzeroupper().unwrap();
        a.mov(rsp, qword_ptr(rsp + at(offset_of!(Context, host_rsp)))).unwrap();
        for r in SAVED.into_iter().rev() {
            a.pop(r).unwrap();
        }
        a.ret().unwrap();
        a.assemble(self.page as u64).unwrap()
    }

    /// Runs `instruction` on `state`.
    fn run(&mut self, instruction: &[u8], state: &mut CpuState) {
        let code = self.assemble(instruction);
        assert!(code.len() <= PAGE);
        let c = &mut *self.context;
        c.flags = state.flags.bits();
        c.gpr.copy_from_slice(&state.gpr[..16]);
        for (to, from) in c.ymm.iter_mut().zip(&state.ymm) {
            *to = from.0;
        }
        // SAFETY: X87 is plain data whose first 160 bytes are FXSAVE's; the harness saves and restores what the ABI asks for, and
        // the instruction touches only registers and the arena.
        unsafe {
            ptr::copy_nonoverlapping((&raw const state.x87).cast::<u8>(), c.fx.as_mut_ptr(), 160);
            ptr::copy_nonoverlapping(code.as_ptr(), self.page, code.len());
            let function: extern "sysv64" fn(*mut Context) = std::mem::transmute(self.page);
            function(c);
            let (fip, fdp, fop) = (state.x87.fip, state.x87.fdp, state.x87.fop);
            ptr::copy_nonoverlapping(c.fx.as_ptr(), (&raw mut state.x87).cast::<u8>(), 160);
            (state.x87.fip, state.x87.fdp, state.x87.fop) = (fip, fdp, fop);
        }
        state.x87.mxcsr_mask = 0xffff;
        state.gpr[..16].copy_from_slice(&c.gpr);
        for (to, from) in state.ymm.iter_mut().zip(&c.ymm) {
            to.0 = *from;
        }
        let system = state.flags.system;
        state.flags = x86::state::Flags::from_bits(c.flags & 0x8d5);
        state.flags.system = system;
    }
}

fn prepare(random: &mut Random, bench: &mut Bench, stack: u64) {
    random.fill(&mut bench.state, &mut bench.arena);
    let state = &mut bench.state;
    let few = random.next();
    // Small numbers and special values, half the time.
    for n in 0..16 {
        if few >> n & 1 != 0 {
            state.gpr[n] = [0, 1, 2, 31, 32, 63, 64, u64::MAX, 1 << 63, 1 << 31][random.next() as usize % 10];
        }
    }
    state.gpr[4] = stack;
    state.gpr[6] = random.next() % 1000;
    state.gpr[3] = (bench.arena.0.as_ptr() as u64).wrapping_sub(0x40 + 2 * state.gpr[6]);
    state.x87.mxcsr = 0x1f80 | random.next() as u32 & 0xe07f;
    state.x87.fcw = 0x7f | (random.next() as u16 & 0xf00);
    state.x87.fsw = random.next() as u16 & 0x7f7f;
    state.x87.ftw = random.next() as u8 | random.next() as u8;
    for st in &mut state.x87.st {
        let value = [0.0, 1.0, -2.5, 1e300, 3.7, f64::INFINITY][random.next() as usize % 6];
        *st = [0; 16];
        st[..10].copy_from_slice(&extended(value));
        if random.next() % 4 == 0 {
            st[..8].copy_from_slice(&random.next().to_le_bytes());
        }
    }
    if random.next() % 2 == 0 {
        for (n, y) in state.ymm.iter_mut().enumerate() {
            for lane in 0..8 {
                let value = (random.next() as i32 % 1000) as f32 / (n + 1) as f32;
                y.0[4 * lane..4 * lane + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
}

/// Double to double extended, for values without subtleties.
fn extended(value: f64) -> [u8; 10] {
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as u16;
    let mut out = [0; 10];
    if value != 0.0 {
        out[..8].copy_from_slice(&(1 << 63 | bits << 11).to_le_bytes());
        let wide = if exponent == 0x7ff { 0x7fff } else { exponent + 16383 - 1023 };
        out[8..].copy_from_slice(&(wide | (bits >> 63 << 15) as u16).to_le_bytes());
    }
    out
}

fn differences(thunk: &CpuState, native: &CpuState) -> String {
    let mut text = String::new();
    for n in 0..16 {
        if thunk.gpr[n] != native.gpr[n] {
            text += &format!(" gpr{n} {:#x}/{:#x}", thunk.gpr[n], native.gpr[n]);
        }
        if thunk.ymm[n] != native.ymm[n] {
            text += &format!(" ymm{n} {:02x?}/{:02x?}", thunk.ymm[n].0, native.ymm[n].0);
        }
    }
    if thunk.flags != native.flags {
        text += &format!(" flags {:?}/{:?}", thunk.flags, native.flags);
    }
    if thunk.x87 != native.x87 {
        let (t, n) = (&thunk.x87, &native.x87);
        text += &format!(" fcw {:x}/{:x} fsw {:x}/{:x} ftw {:x}/{:x} mxcsr {:x}/{:x}", t.fcw, n.fcw, t.fsw, n.fsw, t.ftw, n.ftw, t.mxcsr, n.mxcsr);
        for i in (0..8).filter(|i| t.st[*i] != n.st[*i]) {
            text += &format!(" st{i} {:02x?}/{:02x?}", t.st[i], n.st[i]);
        }
    }
    text
}

fn deterministic(instruction: &Instruction) -> bool {
    !matches!(instruction.mnemonic(), Mnemonic::Rdrand | Mnemonic::Rdseed)
}

#[test]
fn thunks_do_what_the_processor_does() {
    if !HostFeatures::probe().has(Feature::Avx) {
        return;
    }
    let (mut bench, mut native, mut random) = (Bench::new(), Native::new(), Random(7));
    let (mut compared, mut wrong) = (0u64, Vec::new());
    for code in Code::values().filter(|code| code.op_code().is_instruction() && code.op_code().mode64()) {
        for case in 0..24u32 {
            let lock = case >= 20;
            let Some(mut instruction) = synthesize(code, case % 2 == 1 || lock, case * 5 + 1) else { continue };
            if lock {
                if !code.op_code().can_use_lock_prefix() {
                    continue;
                }
                instruction.set_has_lock_prefix(true);
            }
            let Some((instruction, bytes)) = through_bytes(&instruction) else { continue };
            let Ok(thunk) = bench.cache.compile(&instruction, HostFeatures::probe()) else { continue };
            if !deterministic(&instruction) {
                continue;
            }
            prepare(&mut random, &mut bench, native.rsp());
            let (mut before, memory) = (bench.state.clone(), bench.arena);
            if bench.execute(&thunk, 0).is_err() || bench.state.gpr[4] != before.gpr[4] {
                continue;
            }
            let thunk_memory = std::mem::replace(&mut bench.arena, memory);
            native.run(&bytes, &mut before);
            compared += 1;
            // A rotation through carry by a multiple of the width plus one leaves OF to chance on this silicon.
            if matches!(instruction.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr) {
                before.flags.arith &= !1;
                bench.state.flags.arith &= !1;
            }
            if before != bench.state || thunk_memory != bench.arena {
                let memory = if thunk_memory == bench.arena { "" } else { " memory" };
                wrong.push(format!("{instruction} {bytes:02x?}:{memory}{}", differences(&bench.state, &before)));
            }
        }
    }
    println!("{compared} compared");
    assert!(compared > 20_000, "{compared}");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n"));
}
