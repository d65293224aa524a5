//! The processor itself as the oracle: an unmodified instruction, memory operand included, between
//! a full load and a full store of the registers.
#![allow(dead_code, unreachable_pub, missing_docs, unsafe_code)] // maps and calls generated code

use std::mem::offset_of;
use std::ptr;

use iced_x86::code_asm::*;
use x86::state::CpuState;

/// What the harness loads and stores. RSP points at `gpr` while the instruction runs, so `flags` is
/// what PUSHFQ writes.
#[repr(C, align(64))]
struct Context {
    flags: u64,
    gpr: [u64; 16],
    host_rsp: u64,
    padding: [u64; 6],
    ymm: [[u8; 32]; 16],
    fx: [u8; 512],
}

pub struct Native {
    page: *mut u8,
    context: Box<Context>,
}

const PAGE: usize = 4096;
const GPRS: [AsmRegister64; 16] =
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
const YMMS: [AsmRegisterYmm; 16] = [
    ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14,
    ymm15,
];
const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

impl Native {
    pub fn new() -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                PAGE,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        // SAFETY: `Context` is plain data, for which zero bytes are valid.
        Self { page: page.cast(), context: Box::new(unsafe { std::mem::zeroed() }) }
    }

    /// The value RSP has while the instruction runs.
    pub fn rsp(&self) -> u64 {
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
    pub fn run(&mut self, instruction: &[u8], state: &mut CpuState) {
        let code = self.assemble(instruction);
        assert!(code.len() <= PAGE);
        let c = &mut *self.context;
        c.flags = state.flags.bits();
        c.gpr.copy_from_slice(&state.gpr[..16]);
        for (to, from) in c.ymm.iter_mut().zip(&state.ymm) {
            *to = from.0;
        }
        // SAFETY: X87 is plain data whose first 160 bytes are FXSAVE's; the harness saves and
        // restores what the ABI asks for, and the instruction touches only registers and the arena.
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

/// Where two states differ, thunk first.
pub fn differences(thunk: &CpuState, native: &CpuState) -> String {
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
        text += &format!(
            " fcw {:x}/{:x} fsw {:x}/{:x} ftw {:x}/{:x} mxcsr {:x}/{:x}",
            t.fcw, n.fcw, t.fsw, n.fsw, t.ftw, n.ftw, t.mxcsr, n.mxcsr
        );
        for i in (0..8).filter(|i| t.st[*i] != n.st[*i]) {
            text += &format!(" st{i} {:02x?}/{:02x?}", t.st[i], n.st[i]);
        }
    }
    text
}
