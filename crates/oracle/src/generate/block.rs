//! Blocks of 2 to 8 instructions: what a translator has to get right beyond single instructions.
//!
//! Forward branches inside the block, a counted loop, calls and returns, faults in the middle,
//! stores into the instructions that follow. Every instruction comes from the catalog; mnemonics
//! are drawn evenly, since the many vector encodings would crowd out the rest.

use super::{Generator, branches, encode, operands, values};
use crate::case::{Case, layout};
use crate::undefined::undefined_flags;
use iced_x86::{
    Code, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    Register,
};
use test_support::Rng;

/// Encodings by mnemonic, without what a block should not contain.
pub(super) fn groups(codes: &[Code]) -> Vec<Vec<Code>> {
    let mut sorted: Vec<Code> = codes.iter().copied().filter(|c| welcome(*c)).collect();
    sorted.sort_by_key(|c| (c.mnemonic() as usize, *c as usize));
    let same = |a: &Code, b: &Code| a.mnemonic() == b.mnemonic();
    sorted.chunk_by(same).map(<[Code]>::to_vec).collect()
}

/// Leaves out images of the x87 environment (their instruction pointers are not compared, so
/// nothing may read them) and what always faults.
fn welcome(code: Code) -> bool {
    use Mnemonic as M;
    let image = matches!(
        code.mnemonic(),
        M::Fnstenv
            | M::Fstenv
            | M::Fnsave
            | M::Fsave
            | M::Fxsave
            | M::Fxsave64
            | M::Xsave
            | M::Xsave64
    );
    let faults = matches!(code.mnemonic(), M::Ud0 | M::Ud1 | M::Ud2 | M::In | M::Out);
    let strings =
        matches!(code.mnemonic(), M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd);
    !image && !faults && !strings && !branches(code.flow_control()) && code.op_code().cpl3()
}

/// One piece of a block.
enum Piece {
    Plain(Vec<u8>),
    /// A branch with an 8-bit displacement to the piece of that number.
    Short(Vec<u8>, usize),
    /// CALL rel32 to the piece of that number.
    Call(usize),
    /// MOV byte [rip+d], imm8 into the piece of that number, at that byte.
    Patch(usize, u8, u8),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Short(opcode, _) => opcode.len() + 1,
            Self::Call(_) => 5,
            Self::Patch(..) => 7,
        }
    }
}

/// The next block case.
pub(super) fn generate(g: &mut Generator) -> Case {
    for _ in 0..64 {
        let mut case = initial(&mut g.rng);
        if let Some(bytes) = attempt(g, &mut case)
            && bytes.len() <= case.code.len()
        {
            case.set_code(&bytes);
            if admitted(g, &case) && (g.options.undefined_flags || flags_defined(&case)) {
                return case;
            }
        }
    }
    g.single(0)
}

/// Whether all instructions can be judged, those included that a patch makes.
fn admitted(g: &Generator, case: &Case) -> bool {
    let variants = case.variants();
    g.filter.admits(case) && variants[1..].iter().all(|v| g.filter.admits_everywhere(v))
}

/// A state whose pointer registers point into the arena, with room around.
fn initial(rng: &mut Rng) -> Case {
    let mut case = values::state(rng);
    for register in operands::POINTERS {
        if rng.chance(92) {
            case.gpr[register] = layout::ARENA + 1024 + (rng.below(6144) & !31);
        } else {
            case.gpr[register] = values::data_address(rng);
        }
    }
    for register in [1, 8, 9] {
        case.gpr[register] = 1 + rng.below(23);
    }
    if rng.chance(85) {
        case.gpr[4] = layout::STACK + 1024 + rng.below(256) * 8;
    }
    values::place_code(rng, &mut case);
    case
}

fn attempt(g: &mut Generator, case: &mut Case) -> Option<Vec<u8>> {
    let count = 2 + g.rng.below(7) as usize;
    let mut pieces = Vec::with_capacity(count);
    for place in 0..count {
        pieces.push(piece(g, case, place, count)?);
    }
    if g.rng.chance(4) {
        counted_loop(&mut g.rng, &mut pieces);
    }
    link(&pieces)
}

fn piece(g: &mut Generator, case: &mut Case, place: usize, count: usize) -> Option<Piece> {
    let later = |rng: &mut Rng| place + 1 + rng.below((count - place) as u64) as usize;
    match g.rng.below(100) {
        0..14 => Some(Piece::Short(short_opcode(&mut g.rng), later(&mut g.rng))),
        14..17 => Some(Piece::Call(later(&mut g.rng))),
        17..19 => Some(Piece::Plain(vec![0xc3])),
        19..24 => {
            let (byte, value) = (g.rng.below(8) as u8, g.rng.next() as u8);
            Some(Piece::Patch(later(&mut g.rng), byte, value))
        }
        _ => plain(g, case).map(Piece::Plain),
    }
}

fn plain(g: &mut Generator, case: &mut Case) -> Option<Vec<u8>> {
    for _ in 0..8 {
        let group = &g.groups[g.rng.below(g.groups.len() as u64) as usize % g.groups.len().max(1)];
        let code = group[g.rng.below(group.len() as u64) as usize];
        let filled = operands::fill(&mut g.rng, case, code, operands::Style::Block);
        // RIP-relative operands are encoded for the start of the block: elsewhere they move by a
        // few bytes.
        let bytes = filled.and_then(|i| encode(&mut g.modes[0].encoder, &i, case.rip()));
        if bytes.is_some() {
            return bytes;
        }
    }
    None
}

fn short_opcode(rng: &mut Rng) -> Vec<u8> {
    match rng.below(20) {
        0 => vec![0xeb],
        1 => vec![0xe0 + rng.below(3) as u8],
        2 => vec![0xe3],
        3 => vec![0x67, 0xe3],
        _ => vec![0x70 + rng.below(16) as u8],
    }
}

/// Ends the block with LOOP back to some piece, if nothing in between changes RCX or goes
/// elsewhere; the piece before it becomes MOV ECX, count.
fn counted_loop(rng: &mut Rng, pieces: &mut Vec<Piece>) {
    let start = 1 + rng.below(pieces.len() as u64 - 1) as usize;
    // A patched count would be one of millions.
    let patches_count =
        |piece: &Piece| matches!(piece, Piece::Patch(to, ..) if *to < start && to + 8 >= start);
    if pieces.iter().any(patches_count) {
        return;
    }
    let harmless = |piece: &Piece| match piece {
        Piece::Plain(bytes) => !writes_rcx(bytes),
        Piece::Short(opcode, _) => (0x70..0x80).contains(&opcode[0]),
        Piece::Call(_) | Piece::Patch(..) => false,
    };
    if pieces[start..].iter().all(harmless) {
        pieces[start - 1] = Piece::Plain(vec![0xb9, 1 + rng.below(6) as u8, 0, 0, 0]);
        pieces.push(Piece::Short(vec![0xe2], start));
    }
}

fn writes_rcx(bytes: &[u8]) -> bool {
    let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    let mut factory = InstructionInfoFactory::new();
    let writes = |access: OpAccess| {
        !matches!(
            access,
            OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
        )
    };
    branches(instruction.flow_control())
        || factory
            .info(&instruction)
            .used_registers()
            .iter()
            .any(|u| u.register().full_register() == Register::RCX && writes(u.access()))
}

/// Puts the pieces together.
fn link(pieces: &[Piece]) -> Option<Vec<u8>> {
    let mut starts = vec![0i64];
    for piece in pieces {
        starts.push(starts.last()? + piece.len() as i64);
    }
    let mut out = Vec::new();
    for (place, piece) in pieces.iter().enumerate() {
        let next = starts[place + 1];
        match piece {
            Piece::Plain(bytes) => out.extend_from_slice(bytes),
            Piece::Short(opcode, to) => {
                out.extend_from_slice(opcode);
                out.push(i8::try_from(starts.get(*to)? - next).ok()? as u8);
            }
            Piece::Call(to) => {
                out.push(0xe8);
                out.extend_from_slice(&((starts.get(*to)? - next) as i32).to_le_bytes());
            }
            Piece::Patch(to, byte, value) => {
                let distance = starts.get(*to)? + i64::from(*byte) - next;
                out.extend_from_slice(&[0xc6, 0x05]);
                out.extend_from_slice(&(distance as i32).to_le_bytes());
                out.push(*value);
            }
        }
    }
    Some(out)
}

/// Whether no instruction reads flags that another one of the block leaves undefined, patched or
/// not.
pub(crate) fn flags_defined(case: &Case) -> bool {
    let all: Vec<_> = case.variants().iter().flat_map(Case::reachable).collect();
    let undefined = all.iter().fold(0, |m, i| m | undefined_flags(i));
    // iced's table counts PUSHF as reading nothing.
    let reads = |i: &Instruction| {
        let image = matches!(i.mnemonic(), Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq);
        if image { u32::MAX } else { i.rflags_read() }
    };
    all.iter().all(|i| reads(i) & undefined == 0)
}
