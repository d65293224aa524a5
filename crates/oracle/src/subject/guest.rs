//! The smallest guest that can run a case: page tables, descriptor tables, and handlers that halt.
//!
//! User pages are mapped at the addresses of [`layout`], everything of the system's in the upper
//! half, where a user access faults as it does on Linux. Each vector's handler is a HLT of its own,
//! so the place where the processor halts tells the vector, and its stack holds the exception
//! frame. Built once; a case changes registers and user memory only.

use crate::case::layout;
use memory::GuestRam;
use x86::addr::Gpa;
use x86::regs::{Cr0, Cr4, Efer};
use x86::state::{CpuState, Seg, Segment, TableRegister};

/// Guest-physical places. The user's parts follow each other in the order of [`crate::Memory`].
pub(super) const USER_RAM: u64 = 0x10_000;
const READ_ONLY_RAM: u64 = 0x14_000;
const ALIAS_TABLES: u64 = 0x18_000;
const TABLES: u64 = 0x1000;
const GDT: u64 = 0x8000;
const TSS: u64 = 0x8100;
const IDT: u64 = 0x9000;
const HANDLERS: u64 = 0xa000;
const STACK_TOP: u64 = 0xc000;
/// RAM of the guest.
pub(super) const RAM_SIZE: u64 = 0x20_000;

/// Where the system's half begins: linear address of guest-physical 0.
const SYSTEM: u64 = 0xffff_8000_0000_0000;
/// Distance of one handler from the next.
const HANDLER_SIZE: u64 = 16;
const KERNEL_CS: u16 = 0x10;
const TSS_SELECTOR: u16 = 0x40;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const NO_EXECUTE: u64 = 1 << 63;

/// Fills freshly mapped guest RAM.
pub(super) fn build(ram: &GuestRam) -> Result<(), memory::Error> {
    page_tables(ram)?;
    descriptor_tables(ram)?;
    ram.write(Gpa(HANDLERS), &[0xf4; 0x1000])?;
    ram.write(Gpa(READ_ONLY_RAM), &crate::template(0).read_only)
}

/// PML4, two PDPTs, two PDs, and one page table for either half.
fn page_tables(ram: &GuestRam) -> Result<(), memory::Error> {
    let [pml4, user_pdpt, user_pd, user_pt, system_pdpt, system_pd, system_pt] =
        std::array::from_fn(|i| TABLES + i as u64 * layout::PAGE);
    let put = |table: u64, index: u64, value: u64| {
        ram.write(Gpa(table + index % 512 * 8), &value.to_le_bytes())
    };
    let table = PRESENT | WRITE | USER;
    put(pml4, layout::CODE >> 39, user_pdpt | table)?;
    put(user_pdpt, layout::CODE >> 30, user_pd | table)?;
    // On either side of 4 GiB: two directories and two tables, each with one entry.
    for (n, place) in [layout::ALIAS, layout::END_32].into_iter().enumerate() {
        let [directory, last] = [0, 1].map(|k| ALIAS_TABLES + (2 * n + k) as u64 * layout::PAGE);
        put(user_pdpt, place >> 30, directory | table)?;
        put(directory, place >> 21, last | table)?;
        let frame = USER_RAM + 0x1000 * (n as u64 + 1);
        put(last, place >> 12, frame | PRESENT | WRITE | USER | NO_EXECUTE)?;
    }
    put(user_pd, layout::CODE >> 21, user_pt | table)?;
    put(pml4, SYSTEM >> 39, system_pdpt | PRESENT | WRITE)?;
    put(system_pdpt, SYSTEM >> 30, system_pd | PRESENT | WRITE)?;
    put(system_pd, SYSTEM >> 21, system_pt | PRESENT | WRITE)?;
    for page in 0..USER_RAM >> 12 {
        put(system_pt, page, page << 12 | PRESENT | WRITE)?;
    }
    let page = |linear: u64, physical: u64, rights: u64| {
        put(user_pt, linear >> 12, physical | rights | PRESENT | USER)
    };
    page(layout::CODE, USER_RAM, WRITE)?;
    page(layout::ARENA, USER_RAM + 0x1000, WRITE | NO_EXECUTE)?;
    page(layout::ARENA + layout::PAGE, USER_RAM + 0x2000, WRITE | NO_EXECUTE)?;
    page(layout::STACK, USER_RAM + 0x3000, WRITE | NO_EXECUTE)?;
    page(layout::READ_ONLY, READ_ONLY_RAM, NO_EXECUTE)
}

/// GDT with Linux's user selectors, a TSS with one stack, 32 interrupt gates; INT3 is open to
/// users.
fn descriptor_tables(ram: &GuestRam) -> Result<(), memory::Error> {
    let tss = SYSTEM + TSS;
    let tss_low = 0x67 | (tss & 0xff_ffff) << 16 | 0x8b << 40 | (tss >> 24 & 0xff) << 56;
    let entries = [
        (KERNEL_CS, 0x00af_9b00_0000_ffff),
        (0x18, 0x00cf_9300_0000_ffff),
        (0x28, 0x00cf_f300_0000_ffff),
        (0x20, 0x00cf_fb00_0000_ffff),
        (0x30, 0x00af_fb00_0000_ffff),
        (TSS_SELECTOR, tss_low),
        (TSS_SELECTOR + 8, tss >> 32),
    ];
    for (selector, descriptor) in entries {
        ram.write(Gpa(GDT + u64::from(selector)), &u64::to_le_bytes(descriptor))?;
    }
    // RSP0, and the I/O map beyond the limit: no port is open.
    ram.write(Gpa(TSS + 4), &(SYSTEM + STACK_TOP).to_le_bytes())?;
    ram.write(Gpa(TSS + 0x66), &0x68u16.to_le_bytes())?;
    for vector in 0..32 {
        let handler = SYSTEM + HANDLERS + vector * HANDLER_SIZE;
        let dpl = if vector == 3 { 3 } else { 0 };
        let low = handler & 0xffff
            | u64::from(KERNEL_CS) << 16
            | (0x8e | dpl << 5) << 40
            | (handler >> 16 & 0xffff) << 48;
        ram.write(Gpa(IDT + vector * 16), &low.to_le_bytes())?;
        ram.write(Gpa(IDT + vector * 16 + 8), &(handler >> 32).to_le_bytes())?;
    }
    Ok(())
}

/// A Linux-like user's state in 64-bit mode, before a case is loaded into it.
pub(super) fn state() -> CpuState {
    let mut state = CpuState::reset();
    state.paging.cr0 = Cr0::PE | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::AM | Cr0::PG;
    state.paging.cr3 = TABLES;
    state.paging.cr4 =
        Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::OSXSAVE | Cr4::FSGSBASE | Cr4::UMIP;
    state.paging.efer = Efer::LME | Efer::LMA | Efer::NXE;
    state.xcr0 = 7;
    state.cpl = 3;
    let null = Segment::default();
    state.seg = [null; 6];
    state.seg[Seg::Cs as usize] =
        Segment { base: 0, limit: u32::MAX, selector: layout::USER_CS, access: 0xa0fb };
    state.seg[Seg::Ss as usize] =
        Segment { base: 0, limit: u32::MAX, selector: layout::USER_SS, access: 0xc0f3 };
    state.gdtr = TableRegister { base: SYSTEM + GDT, limit: TSS_SELECTOR + 15 };
    state.idtr = TableRegister { base: SYSTEM + IDT, limit: 32 * 16 - 1 };
    state.tr = Segment { base: SYSTEM + TSS, limit: 0x67, selector: TSS_SELECTOR, access: 0x8b };
    state.ldtr = Segment { access: 0, ..Segment::default() };
    state.x87.mxcsr_mask = 0xffff;
    state
}

/// Puts the segments of code of that many `bits` into `state`.
pub(super) fn set_segments(state: &mut CpuState, bits: u32) {
    let flat = Segment { base: 0, limit: u32::MAX, selector: layout::USER_SS, access: 0xc0f3 };
    let all = |base, selector, access| Segment { base, limit: u32::MAX, selector, access };
    let (data, code) = match bits {
        16 => (
            Segment { base: layout::DATA_16_BASE, selector: layout::USER_DATA_16, ..flat },
            Segment { limit: 0xffff, ..all(layout::CODE, layout::USER_CS_16, 0x00fb) },
        ),
        32 => (flat, all(0, layout::USER_CS_32, 0xc0fb)),
        _ => (Segment::default(), all(0, layout::USER_CS, 0xa0fb)),
    };
    for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
        state.seg[seg as usize] = data;
    }
    state.seg[Seg::Cs as usize] = code;
}

/// The vector whose handler halted at `rip` (which is behind its HLT).
pub(super) fn halted_vector(rip: u64) -> Option<u32> {
    let offset = rip.wrapping_sub(SYSTEM + HANDLERS + 1);
    (offset.is_multiple_of(HANDLER_SIZE) && offset / HANDLER_SIZE < 32)
        .then_some((offset / HANDLER_SIZE) as u32)
}

/// The guest-physical address of the exception frame when the handler's stack pointer is `rsp`.
pub(super) fn frame_address(rsp: u64) -> Option<u64> {
    let place = rsp.wrapping_sub(SYSTEM);
    (STACK_TOP - 0x1000..STACK_TOP).contains(&place).then_some(place)
}
