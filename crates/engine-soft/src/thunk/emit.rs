//! The few host instructions that surround a guest instruction (SDM vol. 2, 2.1–2.3).

/// Host register numbers.
pub(super) mod reg {
    pub(in super::super) const RAX: u8 = 0;
    pub(in super::super) const RCX: u8 = 1;
    pub(in super::super) const RDX: u8 = 2;
    pub(in super::super) const RSP: u8 = 4;
    pub(in super::super) const RSI: u8 = 6;
    pub(in super::super) const RDI: u8 = 7;
}

/// An address: base register (not R12) and displacement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mem {
    pub(super) base: u8,
    pub(super) disp: i32,
}

/// Appends machine code to a buffer.
#[derive(Debug, Default)]
pub(super) struct Emitter {
    pub(super) code: Vec<u8>,
}

impl Emitter {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    fn modrm(&mut self, reg: u8, mem: Mem) {
        let (mode, len) = match mem.disp {
            -128..=127 => (0x40, 1),
            _ => (0x80, 4),
        };
        self.code.push(mode | (reg & 7) << 3 | (mem.base & 7));
        if mem.base & 7 == reg::RSP {
            self.code.push(0x24);
        }
        self.code.extend_from_slice(&mem.disp.to_le_bytes()[..len]);
    }

    /// `prefix` (0: none), REX as needed, `opcode`, ModRM.
    fn legacy(&mut self, prefix: u8, wide: bool, opcode: &[u8], reg: u8, mem: Mem) {
        if prefix != 0 {
            self.code.push(prefix);
        }
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3 & 1) << 2 | (mem.base >> 3 & 1);
        if rex != 0x40 {
            self.code.push(rex);
        }
        self.bytes(opcode);
        self.modrm(reg, mem);
    }

    pub(super) fn load64(&mut self, reg: u8, mem: Mem) {
        self.legacy(0, true, &[0x8b], reg, mem);
    }

    pub(super) fn store64(&mut self, mem: Mem, reg: u8) {
        self.legacy(0, true, &[0x89], reg, mem);
    }

    pub(super) fn load32(&mut self, reg: u8, mem: Mem) {
        self.legacy(0, false, &[0x8b], reg, mem);
    }

    pub(super) fn store32(&mut self, mem: Mem, reg: u8) {
        self.legacy(0, false, &[0x89], reg, mem);
    }

    /// MOVZX r32, m16.
    pub(super) fn load16(&mut self, reg: u8, mem: Mem) {
        self.legacy(0, false, &[0x0f, 0xb7], reg, mem);
    }

    pub(super) fn store16(&mut self, mem: Mem, reg: u8) {
        self.legacy(0x66, false, &[0x89], reg, mem);
    }

    /// MOVZX r32, m8.
    pub(super) fn load8(&mut self, reg: u8, mem: Mem) {
        self.legacy(0, false, &[0x0f, 0xb6], reg, mem);
    }

    /// Of AL, CL or DL.
    pub(super) fn store8(&mut self, mem: Mem, reg: u8) {
        self.legacy(0, false, &[0x88], reg, mem);
    }

    pub(super) fn move64(&mut self, to: u8, from: u8) {
        let rex = 0x48 | (from >> 3 & 1) << 2 | (to >> 3 & 1);
        self.bytes(&[rex, 0x89, 0xc0 | (from & 7) << 3 | (to & 7)]);
    }

    /// MOVAPS xmm, m128.
    pub(super) fn load_xmm(&mut self, xmm: u8, mem: Mem) {
        self.legacy(0, false, &[0x0f, 0x28], xmm, mem);
    }

    /// MOVAPS m128, xmm.
    pub(super) fn store_xmm(&mut self, mem: Mem, xmm: u8) {
        self.legacy(0, false, &[0x0f, 0x29], xmm, mem);
    }

    /// VMOVDQA ymm, m256.
    pub(super) fn load_ymm(&mut self, ymm: u8, mem: Mem) {
        self.vmovdqa(0x6f, ymm, mem);
    }

    /// VMOVDQA m256, ymm.
    pub(super) fn store_ymm(&mut self, mem: Mem, ymm: u8) {
        self.vmovdqa(0x7f, ymm, mem);
    }

    fn vmovdqa(&mut self, opcode: u8, ymm: u8, mem: Mem) {
        let second = (!ymm >> 3 & 1) << 7 | 1 << 6 | (!mem.base >> 3 & 1) << 5 | 1;
        self.bytes(&[0xc4, second, 0x7d, opcode]);
        self.modrm(ymm, mem);
    }

    pub(super) fn ldmxcsr(&mut self, mem: Mem) {
        self.legacy(0, false, &[0x0f, 0xae], 2, mem);
    }

    pub(super) fn stmxcsr(&mut self, mem: Mem) {
        self.legacy(0, false, &[0x0f, 0xae], 3, mem);
    }

    pub(super) fn fxsave64(&mut self, mem: Mem) {
        self.legacy(0, true, &[0x0f, 0xae], 0, mem);
    }

    pub(super) fn fxrstor64(&mut self, mem: Mem) {
        self.legacy(0, true, &[0x0f, 0xae], 1, mem);
    }

    /// MOVQ mm, m64.
    pub(super) fn load_mmx(&mut self, mm: u8, mem: Mem) {
        self.legacy(0, false, &[0x0f, 0x6f], mm, mem);
    }

    /// MOVQ m64, mm.
    pub(super) fn store_mmx(&mut self, mem: Mem, mm: u8) {
        self.legacy(0, false, &[0x0f, 0x7f], mm, mem);
    }

    /// MOV m16, FFFFH.
    pub(super) fn store16_ones(&mut self, mem: Mem) {
        self.legacy(0x66, false, &[0xc7], 0, mem);
        self.bytes(&[0xff, 0xff]);
    }

    pub(super) fn vzeroupper(&mut self) {
        self.bytes(&[0xc5, 0xf8, 0x77]);
    }

    /// Guest flags from their LAHF/SETO form: `movzx eax, m16; add al, 7FH; sahf`. Uses RAX.
    pub(super) fn load_flags(&mut self, mem: Mem) {
        self.load16(reg::RAX, mem);
        self.bytes(&[0x04, 0x7f, 0x9e]);
    }

    /// Guest flags into their LAHF/SETO form: `lahf; seto al; mov m16, ax`. Uses RAX.
    pub(super) fn store_flags(&mut self, mem: Mem) {
        self.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
        self.store16(mem, reg::RAX);
    }
}
