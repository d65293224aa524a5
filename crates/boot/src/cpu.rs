//! The processor as each boot protocol promises to hand it over, with the GDT and page tables that
//! go with it.

use crate::place::Placer;
use crate::{BootError, layout};
use x86::regs::{Cr0, Cr4, Efer};
use x86::state::{CpuState, Seg, Segment, TableRegister, gpr};

/// Code segment for 64-bit mode: execute/read, accessed, L.
const CODE64: u16 = 0xa09b;
/// Flat 32-bit code segment: execute/read, accessed, D, 4 GiB.
const CODE32: u16 = 0xc09b;
/// Flat 32-bit data segment: read/write, accessed, B, 4 GiB.
const DATA: u16 = 0xc093;
/// Busy 32-bit TSS.
const TSS: u16 = 0x008b;
/// Bytes a TSS needs at the least (SDM vol. 3, 7.2.1).
const TSS_LIMIT: u32 = 0x67;

/// 64-bit mode with the first 4 GiB mapped one to one, interrupts off, at `rip`.
pub(crate) fn long_mode(placer: &mut Placer, rip: u64) -> Result<CpuState, BootError> {
    placer.add(layout::PAGE_TABLES, identity_map(), "page tables")?;
    let mut cpu = flat(placer, CODE64, rip)?;
    cpu.paging.cr0 |= Cr0::PG | Cr0::WP;
    cpu.paging.cr3 = layout::PAGE_TABLES.0;
    cpu.paging.cr4 = Cr4::PAE;
    cpu.paging.efer = Efer::LME | Efer::LMA;
    Ok(cpu)
}

/// 32-bit protected mode without paging, interrupts off, at `eip`.
pub(crate) fn protected_mode(placer: &mut Placer, eip: u64) -> Result<CpuState, BootError> {
    flat(placer, CODE32, eip)
}

/// Flat segments from the boot GDT, PE set, an empty IDT, a stack.
fn flat(placer: &mut Placer, code: u16, rip: u64) -> Result<CpuState, BootError> {
    let table = gdt(code);
    let limit = (table.len() - 1) as u16;
    placer.add(layout::GDT, table, "boot GDT")?;
    let mut cpu = CpuState::reset();
    let data = Segment { base: 0, limit: u32::MAX, selector: layout::BOOT_DS, access: DATA };
    cpu.seg = [data; 6];
    cpu.seg[Seg::Cs as usize] =
        Segment { base: 0, limit: u32::MAX, selector: layout::BOOT_CS, access: code };
    cpu.tr = Segment { base: 0, limit: TSS_LIMIT, selector: layout::BOOT_TSS, access: TSS };
    cpu.gdtr = TableRegister { base: layout::GDT.0, limit };
    cpu.idtr = TableRegister { base: 0, limit: 0 };
    // Caches on, native x87 errors: what firmware leaves behind.
    cpu.paging.cr0 = Cr0::PE | Cr0::ET | Cr0::NE;
    cpu.x87.fcw = 0x37f;
    cpu.x87.ftw = 0;
    cpu.gpr[gpr::RDX] = 0;
    cpu.gpr[gpr::RSP] = layout::BOOT_STACK;
    cpu.rip = rip;
    Ok(cpu)
}

/// Null, null, code (10H), data (18H), TSS (20H).
fn gdt(code: u16) -> Vec<u8> {
    let tss = descriptor(TSS, TSS_LIMIT);
    let flat = 0xf_ffff;
    [0, 0, descriptor(code, flat), descriptor(DATA, flat), tss]
        .iter()
        .flat_map(|d| d.to_le_bytes())
        .collect()
}

/// A descriptor of base 0 (SDM vol. 3, 3.4.5); `access` as in [`Segment`], `limit` before
/// granularity.
fn descriptor(access: u16, limit: u32) -> u64 {
    let limit = u64::from(limit);
    (u64::from(access) << 40) | ((limit & 0xf_0000) << 32) | (limit & 0xffff)
}

/// PML4, PDPT and four page directories of 2 MiB pages: every processor has those, unlike 1 GiB
/// pages.
fn identity_map() -> Vec<u8> {
    const PRESENT_WRITE: u64 = 3;
    const LARGE: u64 = 0x83;
    let page = |n: u64| layout::PAGE_TABLES.0 + 0x1000 * n;
    let mut words = vec![0u64; 512 * 6];
    words[0] = page(1) | PRESENT_WRITE;
    for directory in 0..4 {
        words[512 + directory as usize] = page(2 + directory) | PRESENT_WRITE;
    }
    for (number, entry) in words[1024..].iter_mut().enumerate() {
        *entry = (number as u64) << 21 | LARGE;
    }
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use x86::addr::Gpa;
    use x86::state::Mode;

    fn placer() -> Placer {
        Placer::new(&[(Gpa(0), 16 << 20)]).unwrap()
    }

    #[test]
    fn descriptors_match_the_manual() {
        assert_eq!(descriptor(CODE32, 0xf_ffff), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(CODE64, 0xf_ffff), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(DATA, 0xf_ffff), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(TSS, TSS_LIMIT), 0x0000_8b00_0000_0067);
    }

    #[test]
    fn modes_are_what_they_are_called() {
        assert_eq!(long_mode(&mut placer(), 0).unwrap().mode(), Mode::Long64);
        assert_eq!(protected_mode(&mut placer(), 0).unwrap().mode(), Mode::Protected32);
    }

    #[test]
    fn the_identity_map_is_one() {
        let bytes = identity_map();
        let word = |gpa: u64| {
            let o = (gpa - layout::PAGE_TABLES.0) as usize;
            u64::from_le_bytes(bytes[o..o + 8].try_into().unwrap())
        };
        for la in [0, 0x10_0000, 0x3fff_ffff, 0x4000_0000, 0xffff_ffff_u64] {
            let pdpt = word(layout::PAGE_TABLES.0 + (la >> 39) * 8) & !0xfff;
            let directory = word(pdpt + (la >> 30 & 511) * 8) & !0xfff;
            let entry = word(directory + (la >> 21 & 511) * 8);
            assert_eq!(entry, la & !0x1f_ffff | 0x83);
        }
    }
}
