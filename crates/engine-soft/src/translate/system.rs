//! System instructions in place: those that kernels execute all the time, and that touch no more
//! than a word of the state. Privileged ones come here at level 0 only (`super::classify`).

use super::asm::RAX;
use super::emit::Emitter;
use super::forms::Field;
use super::offsets::{STATE, SYSTEM_FLAGS, segment_base, segment_selector};
use crate::cpu::Cpu;
use std::mem::offset_of;
use x86::regs::Cr4;
use x86::state::{CpuState, Msrs, PagingState};

const RCX: u8 = 1;
const RDX: u8 = 2;
/// Jcc's conditions NZ and S.
const NOT_ZERO: u8 = 5;
const SIGN: u8 = 8;
/// RFLAGS.IF.
const INTERRUPTS: u32 = 1 << 9;

impl Emitter<'_> {
    /// Puts flags by if they are live, since what follows changes RFLAGS.
    pub(super) fn flags_aside(&mut self, n: usize) -> Option<()> {
        if self.region.insns[n].live_after && !self.saved {
            let spare = self.scratch.take()?;
            self.save_flags(spare);
            self.scratch.give(spare);
        }
        Some(())
    }

    pub(super) fn swapgs(&mut self) -> Option<()> {
        let base = segment_base(5);
        let other = STATE + offset_of!(CpuState, msr) + offset_of!(Msrs, kernel_gs_base);
        let (a, b) = (self.scratch.take()?, self.scratch.take()?);
        self.asm.load(a, base);
        self.asm.load(b, other);
        self.asm.store(base, b);
        self.asm.store(other, a);
        Some(())
    }

    /// CLI and CLD: clears `flag`, a bit of RFLAGS.
    pub(super) fn clear_flag(&mut self, n: usize, flag: u32) -> Option<()> {
        self.flags_aside(n)?;
        self.asm.alu_gs_imm(4, SYSTEM_FLAGS, !flag);
        Some(())
    }

    pub(super) fn read_state(&mut self, n: usize, field: Field) -> Option<()> {
        let region = self.region;
        let to = region.insns[n].i.op0_register().full_register().number() as u8;
        let host = self.scratch.take()?;
        match field {
            Field::Cr2 => self.asm.load(host, STATE + offset_of!(CpuState, cr2)),
            Field::Cr3 => {
                let paging = STATE + offset_of!(CpuState, paging);
                self.asm.load(host, paging + offset_of!(PagingState, cr3));
            }
            Field::Selector(segment) => self.asm.load_word(host, segment_selector(segment)),
        }
        self.set_value(to, host);
        Some(())
    }

    /// PAUSE, counted down. The last of many is the interpreter's, which asks the machine.
    pub(super) fn pause(&mut self, n: usize) -> Option<()> {
        self.flags_aside(n)?;
        self.asm.alu_gs_imm(5, Cpu::PAUSES_OFFSET, 1);
        let last = self.asm.jcc(SIGN);
        self.interpret_from(last, n);
        // Without the guest's prefixes: AMD takes it for XCHG with REX.B.
        self.asm.bytes(&[0xf3, 0x90]);
        Some(())
    }

    /// STI. Where IF is set already it is the interpreter's: then it delays no interrupt (SDM vol.
    /// 2, STI), and an exit behind it need not ask which it was.
    pub(super) fn sti(&mut self, n: usize) -> Option<()> {
        self.flags_aside(n)?;
        self.asm.test_gs_imm(SYSTEM_FLAGS, INTERRUPTS);
        let set = self.asm.jcc(NOT_ZERO);
        self.interpret_from(set, n);
        self.asm.alu_gs_imm(1, SYSTEM_FLAGS, INTERRUPTS);
        Some(())
    }

    /// RDTSC. Where user code may not (CR4.TSD) it is the interpreter's, which has it fault.
    pub(super) fn rdtsc(&mut self, n: usize) -> Option<()> {
        self.flags_aside(n)?;
        if self.region.blocks[0].key.is_user() {
            let cr4 = STATE + offset_of!(CpuState, paging) + offset_of!(PagingState, cr4);
            self.asm.test_gs_imm(cr4, Cr4::TSD.bits() as u32);
            let denied = self.asm.jcc(NOT_ZERO);
            self.interpret_from(denied, n);
        }
        // RAX and RDX are never spilled. rdtsc; shl rdx, 32; or rax, rdx; add rax, gs:[offset]; mov
        // rdx, rax; shr rdx, 32; mov eax, eax
        self.asm.bytes(&[0x0f, 0x31, 0x48, 0xc1, 0xe2, 32, 0x48, 0x09, 0xd0]);
        self.asm.add_gs(RAX, STATE + offset_of!(CpuState, tsc_offset));
        self.asm.mov(RDX, RAX);
        self.asm.shr(RDX, 32);
        self.asm.bytes(&[0x89, 0xc0]);
        Some(())
    }

    /// RDTSCP, which waits for what is before it (SDM vol. 2): LFENCE does.
    pub(super) fn rdtscp(&mut self, n: usize) -> Option<()> {
        self.asm.bytes(&[0x0f, 0xae, 0xe8]);
        self.rdtsc(n)?;
        let host = self.scratch.take()?;
        self.asm.load32(host, STATE + offset_of!(CpuState, msr) + offset_of!(Msrs, tsc_aux));
        self.set_value(RCX, host);
        Some(())
    }
}
