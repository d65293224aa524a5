//! From guest bytes to a [`Block`]: iced-x86 decodes, [`select`] chooses the function that performs
//! each instruction.
//!
//! A block is a straight run of instructions on one page. It ends at a branch, at an instruction
//! that changes how the next is decoded, at the end of the page, or at its maximum length. An
//! instruction that crosses into the next page has a block of its own, which names both pages.

pub(crate) mod features;
mod operand;
mod select;

use crate::block::{Key, TranslationSlot};
use crate::core::Block;
use crate::core::Core;
use crate::core::Op;
use crate::interp::{control, system};
use crate::thunk::Unthunkable;
use crate::tlb::PAGE_MASK;
use iced_x86::{Decoder, DecoderError, Instruction};
use std::cell::Cell;
use x86::state::Mode;

/// Longest instruction.
pub(crate) const MAX_LEN: usize = 15;
/// Instructions in a block at the most.
pub(crate) const MAX_OPS: usize = 48;
/// Bytes read ahead for a block.
const WINDOW: usize = 256;

/// Code bytes of one page from some offset on, copied out of guest memory.
pub(crate) struct Window {
    bytes: [u8; WINDOW + 2 * MAX_LEN],
    len: usize,
}

impl Window {
    /// `len` bytes at most, from `read`.
    pub(crate) fn new(len: usize, read: impl FnOnce(&mut [u8])) -> Self {
        let mut window = Self { bytes: [0; WINDOW + 2 * MAX_LEN], len: len.min(WINDOW) };
        read(&mut window.bytes[..window.len]);
        window
    }

    /// Appends bytes of the next page.
    pub(crate) fn extend(&mut self, read: impl FnOnce(&mut [u8])) {
        let end = self.len + MAX_LEN;
        read(&mut self.bytes[self.len..end]);
        self.len = end;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The result of decoding.
pub(crate) enum Decoded {
    /// A block.
    Block(Block),
    /// The first instruction continues on the next page: the caller extends the window and decodes
    /// again.
    Crosses,
    /// The thunk cache is full: the caller empties it and decodes again.
    Full,
}

fn bitness(mode: Mode) -> u32 {
    match mode {
        Mode::Long64 => 64,
        Mode::Protected32 => 32,
        _ => 16,
    }
}

/// Decodes at most `max` instructions at `rip` (guest-physical `key`).
pub(crate) fn decode(
    core: &mut Core,
    key: Key,
    rip: u64,
    window: &Window,
    second: Option<u64>,
    max: usize,
) -> Decoded {
    let options = core.features.decoder_options;
    let mut decoder = Decoder::with_ip(bitness(core.mode), window.bytes(), rip, options);
    let mut ops: Vec<Op> = Vec::with_capacity(16);
    let max = if second.is_some() { 1 } else { max.min(MAX_OPS) };
    let mut instruction = Instruction::default();
    let mut end = 0;
    let mut left = false;
    while ops.len() < max && end < WINDOW - MAX_LEN && !left {
        decoder.decode_out(&mut instruction);
        let next = decoder.position();
        let error = decoder.last_error();
        if error == DecoderError::NoMoreBytes && second.is_none() && next - end < MAX_LEN {
            if ops.is_empty() {
                return Decoded::Crosses;
            }
            break;
        }
        let place = select::Place { block_ip: rip, bytes: &window.bytes()[end..next] };
        let selected = if error == DecoderError::None {
            match select::select(core, &instruction, &place) {
                Ok(selected) => selected,
                Err(Unthunkable::Full) => return Decoded::Full,
                Err(_) => select::Selected::leaves(system::undefined),
            }
        } else if next - end >= MAX_LEN && too_long(core, &window.bytes()[end..]) {
            select::Selected::leaves(system::general_protection)
        } else {
            select::Selected::leaves(system::undefined)
        };
        if selected.too_far && !ops.is_empty() {
            break;
        }
        let mut op = selected.op;
        op.run = Cell::new(selected.run);
        op.offset = end as u16;
        op.len = (next - end) as u8;
        if selected.too_far {
            return Decoded::Block(finish(far_block(op), 1, key, next, second, core.mode));
        }
        ops.push(op);
        left = selected.leaves;
        end = next;
        let alone = ops.len() == 1 && (core.above.alone)(core, &instruction);
        if alone || serializes(&instruction) {
            // The code that follows may be translated, or another processor may have changed it.
            break;
        }
    }
    let instructions = ops.len() as u32;
    if !left {
        ops.push(fall_through(end));
    }
    Decoded::Block(finish(ops, instructions, key, end, second, core.mode))
}

/// Whether `instruction` serializes: what follows is fetched after it has completed (SDM vol. 3,
/// 9.3). Instructions that end their block anyway are left out.
fn serializes(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    let to = instruction.op0_register();
    match instruction.mnemonic() {
        M::Mov => to.is_cr() || to.is_dr(),
        M::Cpuid | M::Invd | M::Wbinvd | M::Lgdt | M::Lidt | M::Lldt | M::Ltr => true,
        _ => false,
    }
}

/// The block of one instruction whose RIP-relative operand is more than 2 GiB from the
/// instruction's start, though not from its end.
fn far_block(mut op: Op) -> Vec<Op> {
    op.disp = op.disp.wrapping_sub(control::FAR as i32);
    let mut before = op.clone();
    before.run = Cell::new(control::far_operand);
    let end = usize::from(op.offset) + usize::from(op.len);
    vec![before, fall_through(end), op]
}

/// Whether `bytes` begin an instruction of more than 15 bytes, which raises #GP(0) rather than #UD
/// (SDM vol. 2, 2.3.11). Such an instruction is valid with fewer of its prefixes, which may be
/// repeated.
fn too_long(core: &Core, bytes: &[u8]) -> bool {
    const PREFIXES: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];
    for first in 1..bytes.len() {
        if !PREFIXES.contains(&bytes[first - 1]) {
            return false;
        }
        let options = core.features.decoder_options;
        let mut decoder = Decoder::new(bitness(core.mode), &bytes[first..], options);
        let shorter = decoder.decode();
        if !shorter.is_invalid() {
            // A prefix, LOCK, may itself have made the instruction invalid.
            return first + decoder.position() > MAX_LEN;
        }
        if decoder.position() < MAX_LEN {
            return false;
        }
    }
    false
}

fn fall_through(end: usize) -> Op {
    let mut op = operand::blank();
    op.run = Cell::new(control::fall_through);
    op.offset = end as u16;
    op
}

fn finish(
    ops: Vec<Op>,
    instructions: u32,
    key: Key,
    len: usize,
    second: Option<u64>,
    mode: Mode,
) -> Block {
    let page_offset = key.gpa() & PAGE_MASK;
    let on_page = |relative: u64| page_offset.wrapping_add(relative) <= PAGE_MASK;
    let last = &ops[ops.len() - 1];
    // In 16- and 32-bit code targets wrap at the operand size. Only 64-bit targets are known to
    // stay on the page.
    let wide = mode == Mode::Long64;
    let taken = wide && select::is_direct(last) && on_page(last.imm);
    let through = wide && on_page(len as u64);
    Block {
        ops: ops.into_boxed_slice(),
        instructions,
        links: [Cell::new(std::ptr::null()), Cell::new(std::ptr::null())],
        link_epoch: [Cell::new(0), Cell::new(0)],
        linkable: [taken && second.is_none(), through && second.is_none()],
        key,
        len: len as u16,
        translation: TranslationSlot::default(),
        crosses: second.is_some(),
        second_page: second,
    }
}
