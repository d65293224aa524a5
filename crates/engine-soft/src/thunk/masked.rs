//! Masked moves and gathers, element by element (SDM vol. 2: MASKMOVQ, MASKMOVDQU, VMASKMOV,
//! VPMASKMOV, VGATHER, VPGATHER).
//!
//! These instructions access one element for each set bit of the mask, and only those may fault, so
//! a thunk with a single host pointer cannot run them. The caller provides memory as an
//! [`ElementBus`]. Addresses passed to it are offsets in the operand's segment
//! ([`iced_x86::Instruction::memory_segment`]). The operand's start, or for gathers each element's
//! address, is wrapped to the address size.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use x86::state::{CpuState, Ymm};

use super::x87;

/// One element's address and, for a store, its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Offset in the operand's segment.
    pub offset: u64,
    /// Zero-extended.
    pub value: u64,
}

/// How elements reach guest memory.
pub trait ElementBus {
    /// The error of a failing access: the exception to deliver.
    type Error;
    /// Loads `size` (4 or 8) bytes.
    fn load(&mut self, offset: u64, size: u8) -> Result<u64, Self::Error>;
    /// Stores all `elements` of `size` (1, 4 or 8) bytes, in this order, or fails and stores none.
    fn store(&mut self, elements: &[Element], size: u8) -> Result<(), Self::Error>;
}

/// Executes the instructions that [`super::Unthunkable::MaskedMove`] names. Does nothing to others.
///
/// MASKMOVQ also needs what every MMX instruction needs first: no pending x87 error
/// ([`x87::error_pending`]).
///
/// # Errors
/// The bus's; then nothing has changed.
pub fn masked_move<B: ElementBus>(
    state: &mut CpuState,
    instruction: &Instruction,
    bus: &mut B,
) -> Result<(), B::Error> {
    use Mnemonic::*;
    match instruction.mnemonic() {
        Maskmovq | Maskmovdqu | Vmaskmovdqu => store_bytes(state, instruction, bus),
        Vmaskmovps | Vpmaskmovd => masked_vex(state, instruction, bus, 4),
        Vmaskmovpd | Vpmaskmovq => masked_vex(state, instruction, bus, 8),
        _ => Ok(()),
    }
}

fn store_bytes<B: ElementBus>(
    state: &mut CpuState,
    instruction: &Instruction,
    bus: &mut B,
) -> Result<(), B::Error> {
    let mmx = instruction.mnemonic() == Mnemonic::Maskmovq;
    let (source, mask) =
        (vector(state, instruction.op1_register()), vector(state, instruction.op2_register()));
    let (base, bits) = match instruction.op0_kind() {
        OpKind::MemorySegDI => (state.gpr[7], 16),
        OpKind::MemorySegEDI => (state.gpr[7], 32),
        _ => (state.gpr[7], 64),
    };
    let mut list = List::default();
    for i in (0..if mmx { 8 } else { 16 }).filter(|i| mask.0[*i] & 0x80 != 0) {
        list.push(Element {
            offset: wrap(base, bits).wrapping_add(i as u64),
            value: u64::from(source.0[i]),
        });
    }
    bus.store(list.elements(), 1)?;
    if mmx {
        x87::enter_mmx(&mut state.x87);
    }
    Ok(())
}

fn masked_vex<B: ElementBus>(
    state: &mut CpuState,
    instruction: &Instruction,
    bus: &mut B,
    size: usize,
) -> Result<(), B::Error> {
    let (base, bits) = address(state, instruction);
    let mask = vector(state, instruction.op1_register());
    let count = vector_length(instruction) / size;
    let selected = (0..count).filter(|i| mask.0[size * i + size - 1] & 0x80 != 0);
    // One operand: its start is wrapped to the address size, its elements are not.
    let offset = |i: usize| wrap(base, bits).wrapping_add((size * i) as u64);
    if instruction.op0_kind() == OpKind::Memory {
        let source = vector(state, instruction.op2_register());
        let mut list = List::default();
        for i in selected {
            list.push(Element { offset: offset(i), value: lane(&source, i, size) });
        }
        return bus.store(list.elements(), size as u8);
    }
    let mut result = Ymm::default();
    for i in selected {
        set_lane(&mut result, i, size, bus.load(offset(i), size as u8)?);
    }
    set_vector(state, instruction.op0_register(), result);
    Ok(())
}

/// Whether destination, index and mask of a gather are three registers; otherwise it is #UD.
pub fn gather_is_valid(instruction: &Instruction) -> bool {
    let [a, b, c] =
        [instruction.op0_register(), instruction.memory_index(), instruction.op2_register()]
            .map(Register::number);
    a != b && b != c && a != c
}

/// Executes the instructions that [`super::Unthunkable::Gather`] names. Does nothing to others.
///
/// # Errors
/// The bus's, for the first element that fails; the elements before it are in place and their mask
/// elements cleared, so that the instruction can be restarted.
pub fn gather<B: ElementBus>(
    state: &mut CpuState,
    instruction: &Instruction,
    bus: &mut B,
) -> Result<(), B::Error> {
    use Mnemonic::*;
    let (index_size, size) = match instruction.mnemonic() {
        Vgatherdps | Vpgatherdd => (4, 4),
        Vgatherdpd | Vpgatherdq => (4, 8),
        Vgatherqps | Vpgatherqd => (8, 4),
        Vgatherqpd | Vpgatherqq => (8, 8),
        _ => return Ok(()),
    };
    let (destination, mask) = (instruction.op0_register(), instruction.op2_register());
    let (base, bits) = address(state, instruction);
    let indices = vector(state, instruction.memory_index());
    let scale = u64::from(instruction.memory_index_scale());
    let count = vector_length(instruction) / index_size.max(size);
    let (mut result, old_mask) = (vector(state, destination), vector(state, mask));
    let mut left = old_mask;
    for i in 0..count {
        let chosen = old_mask.0[size * i + size - 1] & 0x80 != 0;
        set_lane(&mut left, i, size, if chosen { u64::MAX } else { 0 });
    }
    let mut outcome = Ok(());
    let mut done = 0;
    for i in (0..count).filter(|i| old_mask.0[size * i + size - 1] & 0x80 != 0) {
        let index = lane(&indices, i, index_size);
        let index = if index_size == 4 { i64::from(index as i32) as u64 } else { index };
        match bus.load(wrap(base.wrapping_add(index.wrapping_mul(scale)), bits), size as u8) {
            Ok(value) => {
                set_lane(&mut result, i, size, value);
                set_lane(&mut left, i, size, 0);
                done += 1;
            }
            // Before its first element an instruction that faults has done nothing.
            Err(error) if done == 0 => return Err(error),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    if outcome.is_ok() {
        // What lies above the elements goes at the end, not at a fault.
        result.0[size * count..].fill(0);
        left = Ymm::default();
    }
    set_vector(state, destination, result);
    set_vector(state, mask, left);
    outcome
}

/// VZEROUPPER: clears bits 255–128 of YMM0–15 (YMM0–7 outside 64-bit mode).
pub fn zero_upper(state: &mut CpuState, long64: bool) {
    for ymm in state.ymm.iter_mut().take(if long64 { 16 } else { 8 }) {
        ymm.0[16..].fill(0);
    }
}

/// VZEROALL: clears YMM0–15 (YMM0–7 outside 64-bit mode).
pub fn zero_all(state: &mut CpuState, long64: bool) {
    state.ymm[..if long64 { 16 } else { 8 }].fill(Ymm::default());
}

/// Up to 16 elements without an allocation.
#[derive(Default)]
struct List {
    items: [Element; 16],
    len: usize,
}

impl List {
    fn push(&mut self, element: Element) {
        if let Some(slot) = self.items.get_mut(self.len) {
            *slot = element;
            self.len += 1;
        }
    }

    fn elements(&self) -> &[Element] {
        &self.items[..self.len]
    }
}

const fn wrap(offset: u64, bits: u32) -> u64 {
    match bits {
        16 => offset & 0xffff,
        32 => offset & 0xffff_ffff,
        _ => offset,
    }
}

/// The memory operand without its vector index, and the address size in bits.
fn address(state: &CpuState, instruction: &Instruction) -> (u64, u32) {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let mut offset = instruction.memory_displacement64();
    if base.is_gpr() {
        offset = offset.wrapping_add(general(state, base));
    }
    if index.is_gpr() {
        offset = offset.wrapping_add(
            general(state, index).wrapping_mul(u64::from(instruction.memory_index_scale())),
        );
    }
    let bytes = if base != Register::None {
        base.size()
    } else if index.is_gpr() {
        index.size()
    } else {
        instruction.memory_displ_size() as usize
    };
    (
        offset,
        if bytes == 2 {
            16
        } else if bytes == 4 {
            32
        } else {
            64
        },
    )
}

fn general(state: &CpuState, register: Register) -> u64 {
    let value = state.gpr[register.full_register().number() & 15];
    wrap(value, 8 * register.size() as u32)
}

/// Bytes of the vectors that VEX.L selects.
fn vector_length(instruction: &Instruction) -> usize {
    if instruction.code() != Code::INVALID && instruction.op_code().l() == 1 { 32 } else { 16 }
}

/// An XMM or YMM register whole, or an MMX register in the low 8 bytes.
fn vector(state: &CpuState, register: Register) -> Ymm {
    if register.is_mm() {
        let mut wide = Ymm::default();
        let slot = x87::mmx_slot(&state.x87, register.number());
        wide.0[..8].copy_from_slice(&state.x87.st[slot][..8]);
        return wide;
    }
    state.ymm[register.number() & 15]
}

fn set_vector(state: &mut CpuState, register: Register, value: Ymm) {
    state.ymm[register.number() & 15] = value;
}

fn lane(vector: &Ymm, index: usize, size: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(&vector.0[size * index..size * (index + 1)]);
    u64::from_le_bytes(bytes)
}

fn set_lane(vector: &mut Ymm, index: usize, size: usize, value: u64) {
    vector.0[size * index..size * (index + 1)].copy_from_slice(&value.to_le_bytes()[..size]);
}
