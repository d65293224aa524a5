//! Masked moves and gathers against the processor, and their partial results at a fault.

mod thunk_support;

use engine_soft::thunk::masked::{
    Element, ElementBus, gather, gather_is_valid, masked_move, zero_all, zero_upper,
};
use engine_soft::thunk::{Feature, HostFeatures, Unthunkable, classify};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use thunk_support::native::{Native, differences};
use thunk_support::{Arena, Random, synthesize, through_bytes};
use x86::state::CpuState;

/// The arena at its own host address, faulting at one offset.
struct Bus<'a> {
    arena: &'a mut Arena,
    base: u64,
    poison: Option<u64>,
}

impl ElementBus for Bus<'_> {
    type Error = u64;

    fn load(&mut self, offset: u64, size: u8) -> Result<u64, u64> {
        let at = offset.wrapping_sub(self.base) as usize;
        if self.poison == Some(at as u64) {
            return Err(offset);
        }
        let mut bytes = [0; 8];
        bytes[..usize::from(size)].copy_from_slice(&self.arena.0[at..at + usize::from(size)]);
        Ok(u64::from_le_bytes(bytes))
    }

    fn store(&mut self, elements: &[Element], size: u8) -> Result<(), u64> {
        for e in elements {
            let at = e.offset.wrapping_sub(self.base) as usize;
            self.arena.0[at..at + usize::from(size)]
                .copy_from_slice(&e.value.to_le_bytes()[..usize::from(size)]);
        }
        Ok(())
    }
}

fn cases() -> Vec<(Instruction, Vec<u8>, Unthunkable)> {
    let mut cases = Vec::new();
    for code in Code::values().filter(|code| code.op_code().mode64()) {
        for seed in [0, 1, 2, 5] {
            let Some((instruction, bytes)) =
                synthesize(code, true, seed).as_ref().and_then(through_bytes)
            else {
                continue;
            };
            if let Err(why @ (Unthunkable::MaskedMove | Unthunkable::Gather)) =
                classify(&instruction, HostFeatures::probe())
            {
                cases.push((instruction, bytes, why));
            }
        }
    }
    let others: [&[u8]; 3] =
        [&[0x66, 0x0f, 0xf7, 0xca], &[0x0f, 0xf7, 0xca], &[0xc5, 0xf9, 0xf7, 0xca]];
    for bytes in others {
        let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        assert_eq!(classify(&instruction, HostFeatures::probe()), Err(Unthunkable::MaskedMove));
        cases.push((instruction, bytes.to_vec(), Unthunkable::MaskedMove));
    }
    cases
}

/// Registers, and indices that stay in the arena.
fn prepare(
    state: &mut CpuState,
    arena: &mut Arena,
    instruction: &Instruction,
    random: &mut Random,
    rsp: u64,
) {
    random.fill(state, arena);
    state.x87.fcw = 0x37f;
    state.x87.fsw = (random.next() as u16 & 7) << 11;
    for st in &mut state.x87.st {
        st[..8].copy_from_slice(&random.next().to_le_bytes());
        st[8..].fill(0);
    }
    state.gpr[4] = rsp;
    state.gpr[6] = random.next() % 1000;
    let index = if instruction.is_vsib() { 0 } else { 2 * state.gpr[6] };
    state.gpr[3] = (arena.0.as_ptr() as u64).wrapping_sub(0x40 + index);
    state.gpr[7] = arena.0.as_ptr() as u64;
    if instruction.is_vsib() {
        let lanes = if instruction.is_vsib64() { 8 } else { 4 };
        for lane in state.ymm[instruction.memory_index().number()].0.chunks_mut(lanes) {
            lane.fill(0);
            lane[0] = (random.next() % 29) as u8;
        }
    }
}

#[test]
fn as_the_processor_does() {
    if !HostFeatures::probe().has(Feature::Avx2) {
        return;
    }
    let (mut native, mut random, mut arena) = (Native::new(), Random::new(5), Arena([0; 64]));
    let cases = cases();
    assert!(cases.len() > 60, "{}", cases.len());
    for (instruction, bytes, why) in cases {
        if why == Unthunkable::Gather && !gather_is_valid(&instruction) {
            continue;
        }
        for _ in 0..20 {
            let mut state = CpuState::reset();
            prepare(&mut state, &mut arena, &instruction, &mut random, native.rsp());
            let mut expected = state.clone();
            let before = arena;
            let base = arena.0.as_ptr() as u64;
            let mut bus = Bus { arena: &mut arena, base, poison: None };
            match why {
                Unthunkable::Gather => gather(&mut state, &instruction, &mut bus),
                _ => masked_move(&mut state, &instruction, &mut bus),
            }
            .unwrap();
            let ours = std::mem::replace(&mut arena, before);
            native.run(&bytes, &mut expected);
            assert!(
                state == expected,
                "{instruction} {bytes:02x?}: {}",
                differences(&state, &expected)
            );
            assert_eq!(ours, arena, "{instruction}");
        }
    }
}

#[test]
fn a_gather_stops_at_the_faulting_element_and_resumes() {
    // vpgatherdd xmm0, [rbx+xmm1*4], xmm2
    let bytes = [0xc4, 0xe2, 0x69, 0x90, 0x04, 0x8b];
    let instruction = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
    assert_eq!(
        (instruction.op1_kind(), instruction.memory_index()),
        (OpKind::Memory, Register::XMM1)
    );
    let (mut state, mut arena) = (CpuState::reset(), Arena([0; 64]));
    for (i, byte) in arena.0.iter_mut().enumerate() {
        *byte = i as u8;
    }
    for lane in 0..4 {
        state.ymm[1].0[4 * lane] = 3 - lane as u8;
    }
    state.ymm[2].0[..16].fill(0x80);
    state.ymm[0].0.fill(0xee);
    let mut bus = Bus { arena: &mut arena, base: 0, poison: Some(4) };
    assert_eq!(gather(&mut state, &instruction, &mut bus), Err(4));
    assert_eq!(
        state.ymm[0].0[..16],
        [12, 13, 14, 15, 8, 9, 10, 11, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]
    );
    assert_eq!(
        state.ymm[2].0[..16],
        [0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
    );
    bus.poison = None;
    assert_eq!(gather(&mut state, &instruction, &mut bus), Ok(()));
    assert_eq!(state.ymm[0].0[8..16], [4, 5, 6, 7, 0, 1, 2, 3]);
    assert_eq!(state.ymm[2].0, [0; 32]);
}

/// The sixteen gathers `op xmm0/ymm0, [rbx + xmm1/ymm1], xmm2/ymm2`, with the bytes of an index and
/// of an element.
fn gathers() -> Vec<(Instruction, usize, usize)> {
    let mut all = Vec::new();
    for (opcode, wide, long) in forms([0x90, 0x91, 0x92, 0x93]) {
        let third = 0x69 | u8::from(wide) << 7 | u8::from(long) << 2;
        let bytes = [0xc4, 0xe2, third, opcode, 0x04, 0x0b];
        let instruction = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        all.push((instruction, if opcode & 1 == 0 { 4 } else { 8 }, if wide { 8 } else { 4 }));
    }
    all
}

/// Each opcode with each W and L.
fn forms(opcodes: [u8; 4]) -> impl Iterator<Item = (u8, bool, bool)> {
    opcodes.into_iter().flat_map(|opcode| (0..4).map(move |n| (opcode, n & 1 != 0, n & 2 != 0)))
}

#[test]
fn what_lies_above_a_gathers_elements_goes_at_its_end() {
    let mut codes = std::collections::HashSet::new();
    for (instruction, index_size, size) in gathers() {
        assert!(codes.insert(instruction.code()), "{instruction}");
        let vector = if instruction.op_code().l() == 1 { 32 } else { 16 };
        let end = size * (vector / index_size.max(size));
        let (mut state, mut arena) = (CpuState::reset(), Arena([7; 64]));
        state.ymm[0].0.fill(0xee);
        state.ymm[2].0.fill(0x81);
        for (i, index) in state.ymm[1].0.chunks_exact_mut(index_size).enumerate() {
            index[0] = 8 * i as u8;
        }
        let mut bus = Bus { arena: &mut arena, base: 0, poison: Some(8) };
        assert_eq!(gather(&mut state, &instruction, &mut bus), Err(8), "{instruction}");
        let (destination, mask) = (state.ymm[0].0, state.ymm[2].0);
        assert_eq!((destination[..size].to_vec(), mask[size - 1]), (vec![7; size], 0));
        assert!(destination[size..].iter().all(|&b| b == 0xee), "{instruction}: {destination:x?}");
        assert!(mask[end..].iter().all(|&b| b == 0x81), "{instruction}: {mask:x?}");
        bus.poison = None;
        assert_eq!(gather(&mut state, &instruction, &mut bus), Ok(()));
        assert!(state.ymm[0].0[..end].iter().all(|&b| b == 7), "{instruction}");
        assert!(state.ymm[0].0[end..].iter().all(|&b| b == 0), "{instruction}");
        assert_eq!(state.ymm[2].0, [0; 32], "{instruction}");
    }
    assert_eq!(codes.len(), 16);
}

#[test]
fn zeroing() {
    let mut state = CpuState::reset();
    state.ymm.iter_mut().for_each(|y| y.0.fill(1));
    zero_upper(&mut state, false);
    assert_eq!((state.ymm[7].0[15..18].to_vec(), state.ymm[8].0[17]), (vec![1, 0, 0], 1));
    zero_all(&mut state, true);
    assert!(state.ymm.iter().all(|y| y.0 == [0; 32]));
}
