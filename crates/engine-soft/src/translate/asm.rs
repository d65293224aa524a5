//! The host instructions that the translator puts around guest instructions (SDM vol. 2, 2.1–2.2).
//!
//! Guest registers live in the host registers of the same name, but for R9 to R11, which are the
//! translator's scratch registers. Host GS points to the [`crate::cpu::Cpu`], so every field of it
//! is `gs:[offset]`. Unless a name says otherwise nothing here changes flags.

/// Scratch: the operand's address, linear before the check and host after it.
pub(super) const ADDRESS: u8 = 11;
/// Scratch.
pub(super) const SECOND: u8 = 10;
/// Scratch.
pub(super) const THIRD: u8 = 9;

pub(super) const RAX: u8 = 0;
pub(super) const RCX: u8 = 1;
pub(super) const RSP: u8 = 4;

/// A NOP as long as a jump.
pub(super) const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];

/// Where an access finds its operand: so far from a host register, or the sum of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) base: u8,
    pub(super) index: Option<u8>,
    pub(super) displacement: i32,
}

/// Machine code under construction.
#[derive(Default)]
pub(super) struct Asm {
    pub(super) code: Vec<u8>,
}

impl Asm {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { code: Vec::with_capacity(bytes) }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    pub(super) fn here(&self) -> usize {
        self.code.len()
    }

    /// `opcode` with a register and `gs:[offset]`.
    fn gs(&mut self, wide: bool, opcode: &[u8], reg: u8, offset: usize) {
        self.code.push(0x65);
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2;
        if rex != 0x40 {
            self.code.push(rex);
        }
        self.bytes(opcode);
        self.bytes(&[0x04 | (reg & 7) << 3, 0x25]);
        self.bytes(&(offset as u32).to_le_bytes());
    }

    pub(super) fn load(&mut self, reg: u8, offset: usize) {
        self.gs(true, &[0x8b], reg, offset);
    }

    pub(super) fn store(&mut self, offset: usize, reg: u8) {
        self.gs(true, &[0x89], reg, offset);
    }

    /// MOV r32, gs:[offset].
    pub(super) fn load32(&mut self, reg: u8, offset: usize) {
        self.gs(false, &[0x8b], reg, offset);
    }

    /// MOVZX r32, byte gs:[offset].
    pub(super) fn load_byte(&mut self, reg: u8, offset: usize) {
        self.gs(false, &[0x0f, 0xb6], reg, offset);
    }

    /// MOVZX r32, word gs:[offset].
    pub(super) fn load_word(&mut self, reg: u8, offset: usize) {
        self.gs(false, &[0x0f, 0xb7], reg, offset);
    }

    /// MOV word gs:[offset], r16.
    pub(super) fn store_word(&mut self, offset: usize, reg: u8) {
        self.code.push(0x66);
        self.gs(false, &[0x89], reg, offset);
    }

    /// MOV gs:[offset], r32.
    pub(super) fn store32(&mut self, offset: usize, reg: u8) {
        self.gs(false, &[0x89], reg, offset);
    }

    /// MOV byte gs:[offset], imm8.
    pub(super) fn store_byte_imm(&mut self, offset: usize, imm: u8) {
        self.gs(false, &[0xc6], 0, offset);
        self.code.push(imm);
    }

    /// CMP byte gs:[offset], imm8. Changes flags.
    pub(super) fn cmp_byte(&mut self, offset: usize, imm: u8) {
        self.gs(false, &[0x80], 7, offset);
        self.code.push(imm);
    }

    /// ADD r64, gs:[offset]. Changes flags.
    pub(super) fn add_gs(&mut self, reg: u8, offset: usize) {
        self.gs(true, &[0x03], reg, offset);
    }

    /// SUB r64, gs:[offset]. Changes flags.
    pub(super) fn sub_gs(&mut self, reg: u8, offset: usize) {
        self.gs(true, &[0x2b], reg, offset);
    }

    /// OR (`form` 1), AND (4) or SUB (5) dword gs:[offset], imm32. Changes flags.
    pub(super) fn alu_gs_imm(&mut self, form: u8, offset: usize, imm: u32) {
        self.gs(false, &[0x81], form, offset);
        self.bytes(&imm.to_le_bytes());
    }

    /// LDMXCSR (`form` 2) or STMXCSR (3) gs:[offset].
    pub(super) fn mxcsr(&mut self, form: u8, offset: usize) {
        self.gs(false, &[0x0f, 0xae], form, offset);
    }

    /// VMOVDQA of a YMM register from or to gs:[offset].
    pub(super) fn ymm(&mut self, store: bool, ymm: u8, offset: usize) {
        self.bytes(&[
            0x65,
            0xc4,
            0x61 | ((ymm >> 3) ^ 1) << 7,
            0x7d,
            if store { 0x7f } else { 0x6f },
        ]);
        self.bytes(&[0x04 | (ymm & 7) << 3, 0x25]);
        self.bytes(&(offset as u32).to_le_bytes());
    }

    /// MOVAPS of an XMM register from or to gs:[offset].
    pub(super) fn xmm(&mut self, store: bool, xmm: u8, offset: usize) {
        self.gs(false, &[0x0f, if store { 0x29 } else { 0x28 }], xmm, offset);
    }

    pub(super) fn mov(&mut self, to: u8, from: u8) {
        self.bytes(&[0x48 | (from >> 3) << 2 | to >> 3, 0x89, 0xc0 | (from & 7) << 3 | to & 7]);
    }

    /// `opcode` with a register and `[base + disp]`.
    fn at(&mut self, wide: bool, opcode: &[u8], reg: u8, base: u8, disp: i32) {
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | base >> 3;
        if rex != 0x40 {
            self.code.push(rex);
        }
        self.bytes(opcode);
        let short = i8::try_from(disp);
        self.code.push(if short.is_ok() { 0x40 } else { 0x80 } | (reg & 7) << 3 | base & 7);
        if base & 7 == 4 {
            self.code.push(0x24);
        }
        match short {
            Ok(byte) => self.code.push(byte as u8),
            Err(_) => self.bytes(&disp.to_le_bytes()),
        }
    }

    /// MOV r32, gs:[base + disp].
    pub(super) fn load_gs_at(&mut self, to: u8, base: u8, disp: i32) {
        self.code.push(0x65);
        self.at(false, &[0x8b], to, base, disp);
    }

    /// BSWAP r64.
    pub(super) fn swap_bytes(&mut self, r: u8) {
        self.bytes(&[0x48 | r >> 3, 0x0f, 0xc8 | r & 7]);
    }

    /// LEA to, [base + disp].
    pub(super) fn lea(&mut self, to: u8, base: u8, disp: i32) {
        self.at(true, &[0x8d], to, base, disp);
    }

    /// XCHG a, b.
    pub(super) fn xchg(&mut self, a: u8, b: u8) {
        self.bytes(&[0x48 | (b >> 3) << 2 | a >> 3, 0x87, 0xc0 | (b & 7) << 3 | a & 7]);
    }

    /// LEA to, [base + index << scale + disp].
    pub(super) fn lea_scaled(&mut self, to: u8, base: Option<u8>, index: u8, scale: u8, disp: i32) {
        let place = (base, Some(index), scale, disp);
        self.memory(true, &[0x8d], to, place);
    }

    /// LEA to, [index << scale], cut to 32 bits.
    pub(super) fn scaled32(&mut self, to: u8, index: u8, scale: u8) {
        self.memory(false, &[0x8d], to, (None, Some(index), scale, 0));
    }

    /// `opcode` with a register and `[base + index << scale + disp]`.
    fn memory(
        &mut self,
        wide: bool,
        opcode: &[u8],
        reg: u8,
        (base, index, scale, disp): (Option<u8>, Option<u8>, u8, i32),
    ) {
        let Some(index) = index else {
            return self.at(wide, opcode, reg, base.unwrap_or(RSP), disp);
        };
        debug_assert_ne!(index, RSP);
        let b = base.unwrap_or(0);
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | b >> 3;
        if rex != 0x40 {
            self.code.push(rex);
        }
        self.bytes(opcode);
        let short = i8::try_from(disp).ok();
        let sib = scale << 6 | (index & 7) << 3;
        match (base, short) {
            (None, _) => {
                self.bytes(&[0x04 | (reg & 7) << 3, sib | 5]);
                self.bytes(&disp.to_le_bytes());
            }
            (Some(b), Some(disp)) => {
                self.bytes(&[0x44 | (reg & 7) << 3, sib | b & 7, disp as u8]);
            }
            (Some(b), None) => {
                self.bytes(&[0x84 | (reg & 7) << 3, sib | b & 7]);
                self.bytes(&disp.to_le_bytes());
            }
        }
    }

    fn place(&mut self, opcode: u8, reg: u8, place: &Place) {
        let Place { base, index, displacement } = *place;
        self.memory(true, &[opcode], reg, (Some(base), index, 0, displacement));
    }

    /// MOV r64, operand.
    pub(super) fn load_place(&mut self, to: u8, place: &Place) {
        self.place(0x8b, to, place);
    }

    /// MOV operand, r64.
    pub(super) fn store_place(&mut self, place: &Place, from: u8) {
        self.place(0x89, from, place);
    }

    /// MOV qword operand, imm32 sign-extended.
    pub(super) fn store_immediate(&mut self, place: &Place, imm: i32) {
        self.place(0xc7, 0, place);
        self.bytes(&imm.to_le_bytes());
    }

    /// MOV to, imm32 sign-extended.
    pub(super) fn load_immediate(&mut self, to: u8, value: i32) {
        self.bytes(&[0x48 | to >> 3, 0xc7, 0xc0 | to & 7]);
        self.bytes(&value.to_le_bytes());
    }

    /// MOV r32, imm32.
    pub(super) fn load_immediate32(&mut self, to: u8, value: u32) {
        if to >= 8 {
            self.code.push(0x41);
        }
        self.code.push(0xb8 | to & 7);
        self.bytes(&value.to_le_bytes());
    }

    /// MOV to, imm64.
    pub(super) fn load_immediate64(&mut self, to: u8, value: u64) {
        self.bytes(&[0x48 | to >> 3, 0xb8 | to & 7]);
        self.bytes(&value.to_le_bytes());
    }

    /// MOV r32, r32.
    pub(super) fn mov32(&mut self, to: u8, from: u8) {
        self.register(&[0x89], from, to);
    }

    /// `opcode` with two 32-bit registers, `rm` in ModRM.rm.
    fn register(&mut self, opcode: &[u8], reg: u8, rm: u8) {
        self.code.push(0x40 | (reg >> 3) << 2 | rm >> 3);
        self.bytes(opcode);
        self.code.push(0xc0 | (reg & 7) << 3 | rm & 7);
    }

    /// AND r32, imm32. Changes flags.
    pub(super) fn and32(&mut self, reg: u8, imm: i32) {
        self.register(&[0x81], 4, reg);
        self.bytes(&imm.to_le_bytes());
    }

    /// CMP r32, imm32. Changes flags.
    pub(super) fn cmp32(&mut self, reg: u8, imm: i32) {
        self.register(&[0x81], 7, reg);
        self.bytes(&imm.to_le_bytes());
    }

    /// SHL r32, n. Changes flags.
    pub(super) fn shl32(&mut self, reg: u8, n: u8) {
        self.register(&[0xc1], 4, reg);
        self.code.push(n);
    }

    /// OR r32, r32. Changes flags.
    pub(super) fn or32(&mut self, to: u8, from: u8) {
        self.register(&[0x09], from, to);
    }

    /// OR r64, gs:[offset]. Changes flags.
    pub(super) fn or_gs(&mut self, reg: u8, offset: usize) {
        self.gs(true, &[0x0b], reg, offset);
    }

    /// MOV to, [base + disp].
    pub(super) fn load_at(&mut self, to: u8, base: u8, disp: i32) {
        self.at(true, &[0x8b], to, base, disp);
    }

    /// MOV r32, [base + disp].
    pub(super) fn load32_at(&mut self, to: u8, base: u8, disp: i32) {
        self.at(false, &[0x8b], to, base, disp);
    }

    /// CMP reg, [base + disp]. Changes flags.
    pub(super) fn cmp_at(&mut self, reg: u8, base: u8, disp: i32) {
        self.at(true, &[0x3b], reg, base, disp);
    }

    /// SUB reg, [base + disp]. Changes flags.
    pub(super) fn sub_at(&mut self, reg: u8, base: u8, disp: i32) {
        self.at(true, &[0x2b], reg, base, disp);
    }

    /// ADD reg, [base + disp]. Changes flags.
    pub(super) fn add_at(&mut self, reg: u8, base: u8, disp: i32) {
        self.at(true, &[0x03], reg, base, disp);
    }

    /// MOVSXD to, dword [base + disp32]; the place of the displacement. Not for RSP or R12.
    pub(super) fn load_slot(&mut self, to: u8, base: u8) -> usize {
        self.bytes(&[0x48 | (to >> 3) << 2 | base >> 3, 0x63, 0x80 | (to & 7) << 3 | base & 7]);
        self.bytes(&[0; 4]);
        self.here() - 4
    }

    /// CMP dword [base + disp32], imm8; the place of the displacement. Not for RSP or R12. Changes
    /// flags.
    pub(super) fn compare_slot(&mut self, base: u8, imm: u8) -> usize {
        self.bytes(&[0x40 | base >> 3, 0x83, 0xb8 | base & 7]);
        self.bytes(&[0, 0, 0, 0, imm]);
        self.here() - 5
    }

    /// LEA to, [RIP + rel32], to be resolved.
    pub(super) fn lea_code(&mut self, to: u8) -> usize {
        self.bytes(&[0x48 | (to >> 3) << 2, 0x8d, 0x05 | (to & 7) << 3, 0, 0, 0, 0]);
        self.here() - 4
    }

    /// JMP reg.
    pub(super) fn jmp_register(&mut self, reg: u8) {
        self.bytes(&[0x40 | reg >> 3, 0xff, 0xe0 | reg & 7]);
    }

    /// JMP [base + disp].
    pub(super) fn jmp_at(&mut self, base: u8, disp: i32) {
        self.at(false, &[0xff], 4, base, disp);
    }

    /// SHR reg, n. Changes flags.
    pub(super) fn shr(&mut self, reg: u8, n: u8) {
        self.bytes(&[0x48 | reg >> 3, 0xc1, 0xe8 | reg & 7, n]);
    }

    /// `from` shifted right by `n` into `to`: RORX where there is BMI2 (`bmi2`), whose upper `n`
    /// bits are to be masked away. May change flags.
    pub(super) fn shift_right(&mut self, to: u8, from: u8, n: u8, bmi2: bool) {
        if bmi2 {
            let inverted = |r: u8, bit: u8| ((r >> 3) ^ 1) << bit;
            self.bytes(&[0xc4, 0x43 | inverted(to, 7) | inverted(from, 5), 0xfb, 0xf0]);
            self.bytes(&[0xc0 | (to & 7) << 3 | from & 7, n]);
        } else {
            self.mov(to, from);
            self.shr(to, n);
        }
    }

    /// CMP reg, imm32 sign-extended. Changes flags.
    pub(super) fn cmp_imm(&mut self, reg: u8, imm: i32) {
        self.bytes(&[0x48 | reg >> 3, 0x81, 0xf8 | reg & 7]);
        self.bytes(&imm.to_le_bytes());
    }

    /// TEST reg, imm32 sign-extended. Changes flags.
    pub(super) fn test_imm(&mut self, reg: u8, imm: i32) {
        self.bytes(&[0x48 | reg >> 3, 0xf7, 0xc0 | reg & 7]);
        self.bytes(&imm.to_le_bytes());
    }

    /// TEST dword gs:[offset], imm32. Changes flags.
    pub(super) fn test_gs_imm(&mut self, offset: usize, imm: u32) {
        self.gs(false, &[0xf7], 0, offset);
        self.bytes(&imm.to_le_bytes());
    }

    /// XOR to, from. Changes flags.
    pub(super) fn xor(&mut self, to: u8, from: u8) {
        self.bytes(&[0x48 | from >> 3 << 2 | to >> 3, 0x31, 0xc0 | (from & 7) << 3 | to & 7]);
    }

    /// `to` without the bits of `mask`, which becomes its complement. Changes flags.
    pub(super) fn and_not(&mut self, to: u8, mask: u8) {
        // NOT mask; AND to, mask
        self.bytes(&[0x48 | mask >> 3, 0xf7, 0xd0 | mask & 7]);
        self.bytes(&[0x48 | mask >> 3 << 2 | to >> 3, 0x21, 0xc0 | (mask & 7) << 3 | to & 7]);
    }

    /// Compares `address` with what it is if it is canonical; that goes to `spare`.
    pub(super) fn canonical(&mut self, spare: u8, address: u8) {
        self.mov(spare, address);
        // SHL spare, 16; SAR spare, 16; CMP spare, address
        self.bytes(&[0x48 | spare >> 3, 0xc1, 0xe0 | spare & 7, 16]);
        self.bytes(&[0x48 | spare >> 3, 0xc1, 0xf8 | spare & 7, 16]);
        let rex = 0x48 | address >> 3 << 2 | spare >> 3;
        self.bytes(&[rex, 0x39, 0xc0 | (address & 7) << 3 | spare & 7]);
    }

    /// LEA to, the operand at `place`.
    pub(super) fn lea_place(&mut self, to: u8, place: &Place) {
        self.place(0x8d, to, place);
    }

    /// REP MOVS or REP STOS of elements of `1 << scale` bytes.
    pub(super) fn repeat(&mut self, scale: u8, moves: bool) {
        let prefixes: &[u8] = match scale {
            1 => &[0x66, 0xf3],
            3 => &[0xf3, 0x48],
            _ => &[0xf3],
        };
        self.bytes(prefixes);
        let opcode = if moves { 0xa4 } else { 0xaa };
        self.code.push(opcode | u8::from(scale != 0));
    }

    /// `lahf; seto al`: flags into AX.
    pub(super) fn flags_to_ax(&mut self) {
        self.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
    }

    /// `add al, 7fh; sahf`: flags from AX.
    pub(super) fn flags_from_ax(&mut self) {
        self.bytes(&[0x04, 0x7f, 0x9e]);
    }

    /// JMP rel32, to be resolved; the place of the displacement.
    pub(super) fn jmp(&mut self) -> usize {
        self.code.push(0xe9);
        self.bytes(&[0; 4]);
        self.here() - 4
    }

    /// Jcc rel32, to be resolved.
    pub(super) fn jcc(&mut self, cc: u8) -> usize {
        self.bytes(&[0x0f, 0x80 | cc, 0, 0, 0, 0]);
        self.here() - 4
    }

    /// NOPs until `bytes` bytes that begin `ahead` bytes from here lie in one aligned quadword.
    fn align(&mut self, ahead: usize, bytes: usize) {
        const NOPS: [&[u8]; 5] =
            [&[], &[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0], &[0x0f, 0x1f, 0x40, 0]];
        let at = (self.here() + ahead) % 8;
        if at + bytes > 8 {
            self.bytes(NOPS[8 - at]);
        }
    }

    /// As [`Asm::jmp`], of which the displacement may be replaced while others run it.
    pub(super) fn jmp_patchable(&mut self) -> usize {
        self.align(1, 4);
        self.jmp()
    }

    /// As [`Asm::jcc`], of which the displacement may be replaced while others run it.
    pub(super) fn jcc_patchable(&mut self, cc: u8) -> usize {
        self.align(2, 4);
        self.jcc(cc)
    }

    /// A NOP in place of which a jump may be put while others run it; where it is.
    pub(super) fn patch_point(&mut self) -> usize {
        self.align(0, 5);
        self.bytes(&NOP);
        self.here() - NOP.len()
    }

    /// JRCXZ rel8, to be resolved by [`Asm::short_here`].
    pub(super) fn jrcxz(&mut self) -> usize {
        self.bytes(&[0xe3, 0]);
        self.here() - 1
    }

    pub(super) fn short_here(&mut self, place: usize) {
        self.code[place] = (self.here() - place - 1) as u8;
    }

    /// Resolves a rel32 at `place` to `target`, both offsets in this code.
    pub(super) fn resolve(&mut self, place: usize, target: usize) {
        let rel = target as i64 - (place as i64 + 4);
        self.code[place..place + 4].copy_from_slice(&(rel as i32).to_le_bytes());
    }

    pub(super) fn resolve_here(&mut self, place: usize) {
        self.resolve(place, self.here());
    }
}
