//! 64-bit code at level 0, and the state that runs it.

#![allow(dead_code, missing_docs, unreachable_pub)] // each test uses a part

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use x86::regs::{Cr0, Cr4, Efer};
use x86::state::{CpuState, Flags, Seg, Segment};

/// A processor at `rip` in flat 64-bit mode, by the page tables at `cr3`.
pub fn at(rip: u64, cr3: u64) -> CpuState {
    let mut state = CpuState::reset();
    let segment = |selector, access| Segment { base: 0, limit: u32::MAX, selector, access };
    state.seg = [segment(0x10, 0xc093); 6];
    state.seg[Seg::Cs as usize] = segment(8, 0xa09b);
    state.flags = Flags::from_bits(2);
    state.rip = rip;
    state.paging.cr3 = cr3;
    state.paging.cr0 = Cr0::PE | Cr0::PG | Cr0::WP | Cr0::ET | Cr0::NE | Cr0::MP;
    state.paging.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT;
    state.paging.efer = Efer::LME | Efer::LMA;
    state
}

pub fn assemble(
    at: u64,
    write: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    write(&mut a).and_then(|()| a.assemble(at)).expect("it assembles")
}
