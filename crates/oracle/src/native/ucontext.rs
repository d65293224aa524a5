//! The signal frame of x86-64 Linux: general registers and XSAVE area
//! (arch/x86/include/uapi/asm/sigcontext.h).

use crate::case::{Case, layout};
use crate::derive::Registers;
use crate::outcome::{Event, Outcome};

/// Places of RAX to R15 (in encoding order) in `gregs`.
const GPR: [usize; 16] = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
const RIP: usize = 16;
const EFLAGS: usize = 17;
const CS_GS_FS_SS: usize = 18;
const ERROR: usize = 19;
const TRAP: usize = 20;
const CR2: usize = 22;

/// Bytes of the XSAVE area that are used: legacy region, header, upper halves of YMM.
pub(super) const XSAVE_SIZE: usize = 832;
/// Bit of RFLAGS that a case sets; `sigreturn` takes no others.
const LOADED_FLAGS: u64 = 0x4_0dd5;

/// A signal frame.
pub(super) struct Frame<'a> {
    /// General registers, flags, and what the kernel says about the exception.
    pub(super) gregs: &'a mut [i64; 23],
    /// The XSAVE area, standard form.
    pub(super) xsave: &'a mut [u8; XSAVE_SIZE],
}

impl Frame<'_> {
    /// Writes the initial state of `case` into the frame.
    pub(super) fn load(&mut self, case: &Case, registers: &Registers) {
        for (place, value) in GPR.into_iter().zip(case.gpr) {
            self.gregs[place] = value as i64;
        }
        self.gregs[RIP] = (case.rip() - case.code_base()) as i64;
        self.gregs[EFLAGS] = (case.rflags & LOADED_FLAGS | 0x202) as i64;
        let cs = match case.bits() {
            16 => layout::USER_CS_16,
            32 => layout::USER_CS_32,
            _ => layout::USER_CS,
        };
        self.gregs[CS_GS_FS_SS] = i64::from(cs) | i64::from(layout::USER_SS) << 48;
        self.load_extended(case, registers);
    }

    fn load_extended(&mut self, case: &Case, registers: &Registers) {
        let x = &mut *self.xsave;
        x[0..2].copy_from_slice(&case.fcw.to_le_bytes());
        x[2..4].copy_from_slice(&case.fsw.to_le_bytes());
        x[4] = case.ftw;
        // FOP, FIP, FDP.
        x[5..24].fill(0);
        x[24..28].copy_from_slice(&case.mxcsr.to_le_bytes());
        for (place, st) in x[32..160].chunks_exact_mut(16).zip(&registers.st) {
            place.copy_from_slice(st);
        }
        for (place, ymm) in x[160..416].chunks_exact_mut(16).zip(&registers.ymm) {
            place.copy_from_slice(&ymm[..16]);
        }
        for (place, ymm) in x[576..832].chunks_exact_mut(16).zip(&registers.ymm) {
            place.copy_from_slice(&ymm[16..]);
        }
        // XSTATE_BV: x87, SSE and AVX as above, AVX-512 initial, protection keys as they are.
        let bv = self.in_use() & (1 << 9) | 7;
        self.xsave[512..520].copy_from_slice(&bv.to_le_bytes());
    }

    fn in_use(&self) -> u64 {
        self.xsave[512..520].try_into().map_or(0, u64::from_le_bytes)
    }

    /// What the kernel says about the exception.
    pub(super) fn event(&self) -> Event {
        let vector = self.gregs[TRAP] as u32;
        // The kernel leaves error code and CR2 of an earlier fault in the frames of other
        // exceptions.
        let with_code = matches!(vector, 8 | 10..=14 | 17);
        Event {
            vector,
            error_code: if with_code { self.gregs[ERROR] as u32 } else { 0 },
            cr2: if vector == 14 { self.gregs[CR2] as u64 } else { 0 },
        }
    }

    /// Copies the interrupted registers to `outcome`.
    pub(super) fn record(&self, outcome: &mut Outcome) {
        for (value, place) in outcome.gpr.iter_mut().zip(GPR) {
            *value = self.gregs[place] as u64;
        }
        outcome.rip = self.gregs[RIP] as u64;
        outcome.rflags = self.gregs[EFLAGS] as u64;
        let x = &*self.xsave;
        let bv = self.in_use();
        let half = |at: usize| u16::from_le_bytes([x[at], x[at + 1]]);
        outcome.mxcsr = u32::from(half(24)) | u32::from(half(26)) << 16;
        outcome.x87.fcw = 0x37f;
        if bv & 1 != 0 {
            outcome.x87.fcw = half(0);
            outcome.x87.fsw = half(2);
            outcome.x87.ftw = u16::from(x[4]);
            for (st, place) in outcome.x87.st.iter_mut().zip(x[32..160].chunks_exact(16)) {
                st[..10].copy_from_slice(&place[..10]);
            }
        }
        if bv & 2 != 0 {
            for (ymm, place) in outcome.ymm.iter_mut().zip(x[160..416].chunks_exact(16)) {
                ymm[..16].copy_from_slice(place);
            }
        }
        if bv & 4 != 0 {
            for (ymm, place) in outcome.ymm.iter_mut().zip(x[576..832].chunks_exact(16)) {
                ymm[16..].copy_from_slice(place);
            }
        }
    }
}
