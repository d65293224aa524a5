//! Code for translators: slots of 32 bytes with arithmetic on registers and memory, branches,
//! loops, stores to code, and what faults.
//!
//! A slot begins with an instruction and ends with one. Faults are led on to the next slot (see
//! [`super::twins`]). R12 counts down at every branch that may lead backwards, and nothing else
//! writes it: each guest comes to an end.

use super::twins::{ALIAS, CODE, DATA, FUEL, TABLE_ALIAS};
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};
use test_support::Rng;

/// Bytes of a slot.
pub(super) const SLOT: usize = 32;
/// Bytes of a page.
const PAGE: usize = 4096;
/// Slots.
pub(super) const SLOTS: usize = 192;

/// Registers that hold addresses of data, as long as nothing has changed them.
const POINTERS: [Register; 4] = [Register::RSI, Register::RDI, Register::R14, Register::RBP];

/// What the operands of an instruction are.
#[derive(Clone, Copy)]
enum Form {
    /// Register or memory, register.
    RmR,
    /// Register, register or memory.
    RRm,
    /// Register or memory.
    Rm,
    /// Register or memory, immediate byte.
    RmImm,
    /// Register or memory, CL.
    RmCl,
    /// Vector register, vector register or memory.
    XXm,
    /// The other way round.
    XmX,
    /// Vector register, general register or memory.
    XRm,
    /// General register, vector register or memory.
    RXm,
    /// VEX: vector register, vector register, vector register or memory.
    XXXm,
}

/// Instructions whose flags are all defined, or alike on both tiers because the host sets them.
#[rustfmt::skip]
const CODES: &[(Form, &[Code])] = {
    use Code::*;
    &[
        (Form::RmR, &[
            Add_rm8_r8, Add_rm16_r16, Add_rm32_r32, Add_rm64_r64, Or_rm64_r64, Adc_rm8_r8,
            Adc_rm32_r32, Adc_rm64_r64, Sbb_rm32_r32, Sbb_rm64_r64, And_rm32_r32, And_rm8_r8,
            Sub_rm16_r16, Sub_rm64_r64, Xor_rm32_r32, Cmp_rm8_r8, Cmp_rm32_r32, Cmp_rm64_r64,
            Test_rm8_r8, Test_rm64_r64, Mov_rm8_r8, Mov_rm16_r16, Mov_rm32_r32, Mov_rm64_r64,
            Mov_rm64_r64, Xchg_rm32_r32, Xchg_rm64_r64, Xadd_rm32_r32, Cmpxchg_rm64_r64,
            Cmpxchg_rm8_r8, Bt_rm32_r32
        ]),
        (Form::RRm, &[
            Add_r32_rm32, Add_r64_rm64, Sub_r64_rm64, Cmp_r64_rm64, Xor_r8_rm8, Mov_r8_rm8,
            Mov_r16_rm16, Mov_r32_rm32, Mov_r64_rm64, Mov_r64_rm64, Movzx_r32_rm8, Movzx_r64_rm16,
            Movsx_r32_rm8, Movsx_r64_rm8, Movsxd_r64_rm32, Imul_r64_rm64, Imul_r32_rm32,
            Cmove_r64_rm64, Cmovb_r32_rm32, Cmovg_r64_rm64, Popcnt_r64_rm64, Adc_r64_rm64
        ]),
        (Form::Rm, &[
            Inc_rm32, Inc_rm64, Dec_rm8, Dec_rm64, Neg_rm32, Not_rm64, Mul_rm64, Imul_rm32,
            Sete_rm8, Setb_rm8, Setl_rm8, Seto_rm8, Push_rm64, Push_rm64
        ]),
        (Form::RmImm, &[
            Add_rm32_imm8, Add_rm64_imm8, Sub_rm64_imm8, Cmp_rm8_imm8, Cmp_rm32_imm8,
            And_rm64_imm8, Adc_rm64_imm8, Shl_rm32_imm8, Shr_rm64_imm8, Sar_rm16_imm8,
            Rol_rm8_imm8, Ror_rm64_imm8, Rcl_rm32_imm8, Bts_rm32_imm8, Test_rm8_imm8, Mov_rm8_imm8
        ]),
        (Form::RmCl, &[
            Shl_rm64_CL, Shr_rm32_CL, Sar_rm64_CL, Rol_rm32_CL, Ror_rm16_CL, Rcr_rm64_CL
        ]),
        (Form::XXm, &[
            Movups_xmm_xmmm128, Movaps_xmm_xmmm128, Movdqu_xmm_xmmm128, Paddd_xmm_xmmm128,
            Pxor_xmm_xmmm128, Addpd_xmm_xmmm128, Mulps_xmm_xmmm128, Ucomisd_xmm_xmmm64,
            Addsd_xmm_xmmm64, Pshufb_xmm_xmmm128, Sqrtss_xmm_xmmm32
        ]),
        (Form::XmX, &[
            Movups_xmmm128_xmm, Movaps_xmmm128_xmm, Movdqu_xmmm128_xmm, Movsd_xmmm64_xmm,
            Movq_xmmm64_xmm
        ]),
        (Form::XRm, &[
            Movd_xmm_rm32, Movq_xmm_rm64, Cvtsi2sd_xmm_rm64
        ]),
        (Form::RXm, &[
            Cvttsd2si_r64_xmmm64, Cvtsd2si_r32_xmmm64
        ]),
        (Form::XXXm, &[
            VEX_Vpaddd_ymm_ymm_ymmm256, VEX_Vpxor_ymm_ymm_ymmm256, VEX_Vaddpd_ymm_ymm_ymmm256,
            VEX_Vandps_xmm_xmm_xmmm128
        ]),
    ]
};

/// Fills all slots; the last one halts. `folded`: an instruction goes on from the end of the first
/// page to its beginning, and is stored to.
pub(super) fn generate(folded: bool, random: &mut Rng) -> Vec<u8> {
    let mut code = Vec::with_capacity(SLOT * SLOTS);
    for n in 0..SLOTS - 1 {
        let mut slot =
            if folded && random.one_in(8) { store_to_seam(random) } else { slot(random, n) };
        slot.resize(SLOT, 0x90);
        code.extend(slot);
    }
    code.resize(SLOT * SLOTS, 0xf4);
    if folded {
        seam(&mut code, random);
    }
    code
}

/// MOV EAX, imm32 from the end of the first page on; its number is the NOPs at the beginning.
fn seam(code: &mut [u8], random: &mut Rng) {
    let before = 1 + random.below(4) as usize;
    code[PAGE - before] = 0xb8;
    code[PAGE - before + 1..PAGE].fill(0x90);
    code[..8].fill(0x90);
}

/// Stores a byte of the number in the instruction that [`seam`] has put, by any of its addresses.
fn store_to_seam(random: &mut Rng) -> Vec<u8> {
    let base = [CODE, CODE + PAGE as u64, ALIAS, ALIAS + PAGE as u64][random.below(4) as usize];
    let offset = if random.one_in(2) { PAGE as u64 - 1 } else { random.below(2) };
    let mut bytes = vec![0xc6, 0x04, 0x25]; // mov byte [base + offset], nop or another NOP
    bytes.extend(((base + offset) as u32).to_le_bytes());
    bytes.push(if random.one_in(2) { 0x90 } else { 0xf8 });
    bytes
}

fn slot(random: &mut Rng, n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    match random.below(16) {
        0 => return control(random, n),
        1 => return rare(random),
        2 => return store_to_code(random),
        3..6 => {
            // What stores to code change: the number.
            bytes.push(0xb8 | [0, 1, 2, 3, 6, 7][random.below(6) as usize]);
            bytes.extend(pointer(random).to_le_bytes());
        }
        6..8 => {
            // A backward or forward branch on whatever flags there are.
            push(&mut bytes, instruction(random), 20);
            let to = n + 1 + random.below((SLOTS - n).min(6) as u64 - 1) as usize;
            let at = bytes.len() + 6;
            bytes.extend([0x0f, 0x80 | random.below(16) as u8]);
            bytes.extend(relative(n, at, to).to_le_bytes());
            return bytes;
        }
        _ => {}
    }
    for _ in 0..random.below(6) + 1 {
        push(&mut bytes, instruction(random), SLOT);
    }
    bytes
}

fn relative(n: usize, end: usize, to: usize) -> i32 {
    (to * SLOT) as i32 - (n * SLOT + end) as i32
}

fn push(bytes: &mut Vec<u8>, i: Option<Instruction>, limit: usize) {
    let Some(i) = i else { return };
    let mut encoder = Encoder::new(64);
    if encoder.encode(&i, 0).is_ok() {
        let code = encoder.take_buffer();
        if bytes.len() + code.len() <= limit {
            bytes.extend(code);
        }
    }
}

/// An address in the data, often near the end of a page.
fn pointer(random: &mut Rng) -> u32 {
    let page = random.below(8) as u32 * 0x1000;
    let offset = match random.below(4) {
        0 => 0xff0 + random.below(16) as u32,
        1 => random.below(16) as u32,
        _ => random.below(0x1000) as u32 & !7,
    };
    DATA as u32 + page + offset
}

/// Branches. R12 is what keeps them from going on for ever.
fn control(random: &mut Rng, n: usize) -> Vec<u8> {
    // sub r12d, 1; js to the end
    let mut bytes = vec![0x41, 0x83, 0xec, 1, 0x0f, 0x88];
    bytes.extend(relative(n, 10, SLOTS - 1).to_le_bytes());
    let any = random.below(SLOTS as u64) as usize;
    let near = n.saturating_sub(random.below(4) as usize);
    match random.below(6) {
        0 | 1 => {
            bytes.push(0xe9);
            bytes.extend(relative(n, 15, near).to_le_bytes());
        }
        2 => {
            bytes.push(0xe8);
            bytes.extend(relative(n, 15, any).to_le_bytes());
        }
        3 => bytes.push(0xc3),
        indirect => {
            // lea rax, [rip + any]; jmp or call rax
            bytes.extend([0x48, 0x8d, 0x05]);
            bytes.extend(relative(n, 17, any).to_le_bytes());
            bytes.extend([0xff, if indirect == 4 { 0xe0 } else { 0xd0 }]);
        }
    }
    bytes
}

/// Changes the number in another slot, directly or where its page is mapped a second time.
fn store_to_code(random: &mut Rng) -> Vec<u8> {
    let base = if random.one_in(2) { CODE } else { ALIAS };
    let target = base as u32 + random.below(SLOTS as u64 - 1) as u32 * SLOT as u32 + 1;
    let mut bytes = Vec::new();
    for _ in 0..random.below(3) {
        push(&mut bytes, instruction(random), 20);
    }
    // mov byte or dword [target], imm
    if random.one_in(2) {
        bytes.extend([0xc6, 0x04, 0x25]);
        bytes.extend(target.to_le_bytes());
        // Not RDTSC or RDSEED out of UD2 or SWAPGS: they give something else on each run.
        let byte = random.next() as u8;
        bytes.push(if matches!(byte, 0x31 | 0xc7) { 0x1f } else { byte });
    } else {
        bytes.extend([0xc7, 0x04, 0x25]);
        bytes.extend(target.to_le_bytes());
        bytes.extend(pointer(random).to_le_bytes());
    }
    bytes
}

/// What the translator leaves to the interpreter, or the processor refuses.
fn rare(random: &mut Rng) -> Vec<u8> {
    let page = random.below(8);
    match random.below(12) {
        0 => vec![0x0f, 0x0b],
        1 => vec![0xcc],
        2 => vec![0x9c, 0x58],                   // pushf; pop rax
        3 => vec![0x9f],                         // lahf
        4 => vec![0xd9, 0xe8, 0xdd, 0x1e],       // fld1; fstp [rsi]
        5 => vec![0xb9, 9, 0, 0, 0, 0xf3, 0xa4], // mov ecx, 9; rep movsb
        6 => vec![0xc9],                         // leave
        7 => vec![0x0f, 0x01, 0xf8],             // swapgs
        8 => vec![0xfa, 0xfb],                   // cli; sti
        9 => vec![0x48, 0xf7, 0xf1, 0x85, 0xc0], // div rcx; test eax, eax
        10 => vec![0xc5, 0xf8, 0x77],            // vzeroupper
        _ => {
            // xor byte [the entry of a data page], present or writable; invlpg [that page]
            let entry = TABLE_ALIAS + 8 * ((DATA >> 12) + page);
            let mut bytes = vec![0x80, 0x34, 0x25];
            bytes.extend((entry as u32).to_le_bytes());
            bytes.push(1 + random.below(2) as u8);
            bytes.extend([0x0f, 0x01, 0x3c, 0x25]);
            bytes.extend(((DATA + page * 0x1000) as u32).to_le_bytes());
            bytes
        }
    }
}

/// One of [`CODES`] with operands, or a push, a pop, a LEA.
fn instruction(random: &mut Rng) -> Option<Instruction> {
    match random.below(24) {
        0 => return Instruction::with1(Code::Push_r64, wide(random)).ok(),
        1 => return Instruction::with1(Code::Pop_r64, wide(random)).ok(),
        2 => return Instruction::with2(Code::Lea_r64_m, wide(random), memory(random)).ok(),
        3 => {
            let pointers = POINTERS[random.below(4) as usize];
            return Instruction::with2(Code::Mov_rm64_imm32, pointers, pointer(random) as i32).ok();
        }
        _ => {}
    }
    let (form, codes) = CODES[random.below(CODES.len() as u64) as usize];
    let code = codes[random.below(codes.len() as u64) as usize];
    let mut i = operands(random, form, code)?;
    let locks = matches!(
        code,
        Code::Xadd_rm32_r32 | Code::Cmpxchg_rm64_r64 | Code::Cmpxchg_rm8_r8 | Code::Add_rm64_r64
    );
    let memory = i.op0_kind() == iced_x86::OpKind::Memory;
    i.set_has_lock_prefix(locks && memory && random.one_in(2));
    Some(i)
}

fn operands(random: &mut Rng, form: Form, code: Code) -> Option<Instruction> {
    let m = random.below(3) != 0;
    let size = general_size(code);
    let vector = |random: &mut Rng| {
        let n = random.below(16) as u32;
        let ymm = code.op_code().l() == 1;
        if ymm { Register::YMM0 + n } else { Register::XMM0 + n }
    };
    let (a, b, at) = (general(random, size), general(random, size), memory(random));
    let (x, y, z) = (vector(random), vector(random), vector(random));
    let imm = random.next() as i8 as i32;
    match (form, m) {
        (Form::RmR, true) => Instruction::with2(code, at, a),
        (Form::RmR | Form::RRm, false) => Instruction::with2(code, a, sized_source(code, b)),
        (Form::RRm, true) => Instruction::with2(code, a, at),
        (Form::Rm, true) => Instruction::with1(code, at),
        (Form::Rm, false) => Instruction::with1(code, a),
        (Form::RmImm, true) => Instruction::with2(code, at, imm),
        (Form::RmImm, false) => Instruction::with2(code, a, imm),
        (Form::RmCl, true) => Instruction::with2(code, at, Register::CL),
        (Form::RmCl, false) => Instruction::with2(code, a, Register::CL),
        (Form::XXm, true) => Instruction::with2(code, x, at),
        (Form::XmX, true) => Instruction::with2(code, at, x),
        (Form::XXm | Form::XmX, false) => Instruction::with2(code, x, y),
        (Form::XRm, true) => Instruction::with2(code, x, at),
        (Form::XRm, false) => Instruction::with2(code, x, a),
        (Form::RXm, true) => Instruction::with2(code, a, at),
        (Form::RXm, false) => Instruction::with2(code, a, x),
        (Form::XXXm, true) => Instruction::with3(code, x, y, at),
        (Form::XXXm, false) => Instruction::with3(code, x, y, z),
    }
    .ok()
}

/// Size of the general register that comes first, in bytes.
fn general_size(code: Code) -> usize {
    use iced_x86::OpCodeOperandKind as K;
    let info = code.op_code();
    let size = |kind: K| match kind {
        K::r8_reg | K::r8_or_mem => Some(1),
        K::r16_reg | K::r16_or_mem => Some(2),
        K::r32_reg | K::r32_or_mem => Some(4),
        K::r64_reg | K::r64_or_mem => Some(8),
        _ => None,
    };
    (0..info.op_count()).find_map(|n| size(info.op_kind(n))).unwrap_or(8)
}

/// The source register of extensions is narrower than their destination.
fn sized_source(code: Code, register: Register) -> Register {
    let n = (register.full_register().number()) as u32;
    match code {
        Code::Movzx_r32_rm8 | Code::Movsx_r32_rm8 | Code::Movsx_r64_rm8 => byte(n),
        Code::Movzx_r64_rm16 => Register::AX + n,
        Code::Movsxd_r64_rm32 => Register::EAX + n,
        _ => register,
    }
}

fn byte(n: u32) -> Register {
    match n {
        0..4 => Register::AL + n,
        _ => Register::SPL + (n - 4),
    }
}

/// A general register: not RSP, not R12, and one of [`POINTERS`] only now and then.
fn general(random: &mut Rng, size: usize) -> Register {
    if size == 1 && random.one_in(8) {
        return Register::AH + random.below(4) as u32;
    }
    let n = wide(random).number() as u32;
    match size {
        1 => byte(n),
        2 => Register::AX + n,
        4 => Register::EAX + n,
        _ => Register::RAX + n,
    }
}

fn wide(random: &mut Rng) -> Register {
    use Register::*;
    if random.one_in(24) {
        return POINTERS[random.below(4) as usize];
    }
    [RAX, RCX, RDX, RBX, R8, R9, R10, R11, R13, R15][random.below(10) as usize]
}

/// A place in the data, mostly.
fn memory(random: &mut Rng) -> MemoryOperand {
    let base = POINTERS[random.below(4) as usize];
    let disp = match random.below(4) {
        0 => 0,
        1 => random.next() as i8 as i64,
        2 => (random.below(64) * 8) as i64,
        _ => random.next() as i16 as i64 >> 2,
    };
    let segment = match random.below(12) {
        0 => Register::FS,
        1 => Register::GS,
        _ => Register::None,
    };
    if segment != Register::None {
        return MemoryOperand::new(
            Register::None,
            Register::None,
            1,
            i64::from(disp as i32),
            8,
            false,
            segment,
        );
    }
    match random.below(10) {
        0 => MemoryOperand::with_base_displ_size(Register::RSP, disp & 0x7f, 8),
        1 => MemoryOperand::new(base, wide(random), 1 << random.below(4), disp, 8, false, segment),
        2 => MemoryOperand::with_base_displ(Register::RIP, (CODE + random.below(0x1000)) as i64),
        _ => MemoryOperand::new(
            base,
            Register::None,
            1,
            disp,
            if disp == 0 { 0 } else { 8 },
            false,
            segment,
        ),
    }
}

/// How many backward branches a guest makes at the most.
pub(super) fn fuel(random: &mut Rng) -> u64 {
    random.below(FUEL)
}
