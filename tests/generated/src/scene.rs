//! Memory and state to start from: code, tables and stacks in 64 KiB that are mapped where they
//! are, arbitrary page tables around them, RAM with a hole in it.

use super::{Bytes, code};
use memory::GuestRam;
use test_support::Rng;
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::regs::{Cr0, Cr4, Efer, Rflags};
use x86::state::{CpuState, Flags, Seg, Segment, TableRegister};

/// RAM with a hole that devices answer for.
pub(super) const RAM: &[(Gpa, u64)] = &[(Gpa(0), 0x4_0000), (Gpa(0x8_0000), 0x1_0000)];
/// PML4 or, for 32-bit paging, the page directory.
const ROOT: u64 = 0x1000;
/// PAE's four entries.
const PDPT32: u64 = 0x5000;
const GDT: u64 = 0x6000;
const IDT: u64 = 0x7000;
const TSS: u64 = 0x8000;
const STACK: u64 = 0xb000;
const CODE: u64 = 0xc000;
const CODE_LEN: usize = 0x3000;
/// Bytes of a descriptor table.
const TABLE: u16 = 0xfff;

/// Access rights of the descriptors that [`gdt`] builds, as `Segment::access`.
const CODE64: u16 = 0xa09b;
const CODE32: u16 = 0xc09b;
const CODE16: u16 = 0x009b;
const DATA32: u16 = 0xc093;
const TSS_BUSY: u16 = 0x008b;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Real,
    Virtual8086,
    Protected16,
    Protected32,
    Paged32,
    Pae,
    Compatibility,
    Long,
}

impl Start {
    fn of(byte: u8) -> Self {
        use Start::*;
        [Long, Long, Real, Virtual8086, Protected16, Protected32, Paged32, Pae, Compatibility, Long]
            [usize::from(byte & 0x3f) % 10]
    }

    fn ia32e(self) -> bool {
        matches!(self, Self::Long | Self::Compatibility)
    }
}

/// Fills `ram` and says where the processor begins.
pub(super) fn build(
    ram: &GuestRam,
    model: &CpuModel,
    mode: u8,
    random: &mut Rng,
    bytes: &mut Bytes<'_>,
) -> CpuState {
    let start = Start::of(mode);
    let user = mode & 0x80 != 0 || start == Start::Virtual8086;
    let mut put =
        |gpa: u64, bytes: &[u8]| ram.write(Gpa(gpa), bytes).expect("within the first region");
    let data: Vec<u8> = (0..0x2000).flat_map(|_| address(random).to_le_bytes()).collect();
    put(0x1_0000, &data);
    put(0x9000, &data[..0x3000]);
    put(TSS, &data[0x800..0x1000]);
    tables(&mut put, start, random);
    put(GDT, &gdt(random));
    put(IDT, &idt(start, random));
    if start == Start::Real {
        put(0, &ivt(random));
    }
    let mut text = vec![0; CODE_LEN];
    code::fill(&mut text, random);
    let given = bytes.0.len().min(CODE_LEN);
    text[..given].copy_from_slice(&bytes.0[..given]);
    put(CODE, &text);
    state(start, user, model, random)
}

/// A number that means something as an address, a count or a bit pattern.
fn address(random: &mut Rng) -> u64 {
    let n = random.next();
    match random.below(10) {
        0 => n,
        1 => n & 0xffff_ffff,
        2 => 0x0000_7fff_ffff_fff0 + (n & 31),
        3 => 0xffff_7fff_ffff_fff0 + (n & 31),
        4 => (n & 0x3f_f000).wrapping_sub(n >> 60), // around the ends of pages
        5 => n & 63,
        _ => n & 0x3_ffff,
    }
}

/// Page tables at [`ROOT`] to ROOT + 3FFFH: the lowest 64 KiB are where they are, mostly; the rest
/// is arbitrary.
fn tables(put: &mut impl FnMut(u64, &[u8]), start: Start, random: &mut Rng) {
    let wide = start != Start::Paged32;
    for table in 0..4 {
        let mut page = Vec::new();
        for n in 0..if wide { 512 } else { 1024 } {
            // Now and then one frame at two pages in a row.
            let before = page.len().checked_sub(if wide { 8 } else { 4 });
            let twice = n != 0 && random.one_in(8);
            if let Some(before) = before.filter(|_| twice) {
                page.extend_from_within(before..);
                continue;
            }
            let entry = match n {
                0 if table < 3 && wide => (ROOT + 0x1000 * (table + 1)) | 7,
                0 if table == 0 => (ROOT + 0x3000) | 7,
                0..16 if table == 3 && !random.one_in(12) => n << 12 | 7,
                _ => arbitrary_entry(random),
            };
            page.extend(&entry.to_le_bytes()[..if wide { 8 } else { 4 }]);
        }
        put(ROOT + 0x1000 * table, &page);
    }
    put(PDPT32, &((ROOT + 0x2000) | 1).to_le_bytes());
    for n in 1..4 {
        let entry = arbitrary_entry(random) & !0x1e6;
        put(PDPT32 + 8 * n, &entry.to_le_bytes());
    }
}

/// Present more often than not, usually to RAM (the tables themselves included), now and then with
/// reserved bits.
fn arbitrary_entry(random: &mut Rng) -> u64 {
    let n = random.next();
    let frame = if n >> 61 == 0 { n & 0x000f_ffff_ffff_f000 } else { n >> 20 & 0x7_f000 };
    let mut flags = n & 0xf7f | 1;
    if random.one_in(8) {
        flags |= 0x80;
    }
    if random.one_in(8) {
        flags |= 1 << 63;
    }
    if random.one_in(8) {
        flags |= n & 0x7ff0_0000_0000_0000;
    }
    if random.one_in(4) { flags & !1 } else { frame | flags }
}

pub(super) fn descriptor(base: u64, limit: u64, access: u16) -> u64 {
    let access = u64::from(access);
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (access & 0xff) << 40
        | (limit >> 16 & 0xf) << 48
        | (access >> 12 & 0xf) << 52
        | (base >> 24 & 0xff) << 56
}

/// Selectors 8 to 38H as `state` uses them, gates and segments of every kind behind.
fn gdt(random: &mut Rng) -> Vec<u8> {
    let flat = 0xf_ffff;
    let mut table = vec![
        0,
        descriptor(0, flat, CODE64),
        descriptor(0, flat, DATA32),
        descriptor(0, flat, CODE32),
        descriptor(0, flat, CODE16),
        descriptor(0, flat, CODE64 | 0x60),
        descriptor(0, flat, DATA32 | 0x60),
        descriptor(0, flat, CODE32 | 0x60),
        descriptor(TSS, 0x200, 0x89),
        0,
    ];
    for _ in table.len()..512 {
        let kind = random.next() as u16;
        let (base, limit) = (address(random), random.next() >> 40);
        let selector = random.below(24) << 3 | random.below(4);
        table.push(match random.below(4) {
            0 => random.next(),
            1 => gate(selector, CODE + random.below(CODE_LEN as u64), kind),
            _ => descriptor(base, limit, kind | 0x80),
        });
    }
    table.iter().flat_map(|d| d.to_le_bytes()).collect()
}

/// The lower eight bytes of a gate.
pub(super) fn gate(selector: u64, offset: u64, kind: u16) -> u64 {
    offset & 0xffff | selector << 16 | u64::from(kind & 0xff | 0x80) << 40 | (offset >> 16) << 48
}

fn idt(start: Start, random: &mut Rng) -> Vec<u8> {
    let own = if start.ia32e() { 0x08 } else { 0x18 };
    let mut table = Vec::new();
    for _ in 0..if start.ia32e() { 256 } else { 512 } {
        let kind = [0x8e, 0xee, 0x8f, 0xef, 0x86, 0x85, 0x8e, 0][random.below(8) as usize];
        let kind = if random.one_in(16) { random.next() as u16 } else { kind };
        let selector = if random.one_in(8) { random.below(24) << 3 } else { own };
        let handler = CODE + random.below(CODE_LEN as u64);
        let ist = if random.one_in(8) { random.below(8) << 32 } else { 0 };
        table.extend((gate(selector, handler, kind) | ist).to_le_bytes());
        if start.ia32e() {
            table.extend(if random.one_in(32) { random.next() } else { 0 }.to_le_bytes());
        }
    }
    table
}

fn ivt(random: &mut Rng) -> Vec<u8> {
    (0..256)
        .flat_map(|_| {
            let offset = CODE + random.below(CODE_LEN as u64);
            (offset as u32 | (random.below(16) as u32) << 16).to_le_bytes()
        })
        .collect()
}

pub(super) fn segment(selector: u16, access: u16) -> Segment {
    let limit = if access & Segment::G != 0 { u32::MAX } else { 0xf_ffff };
    Segment { base: 0, limit, selector, access }
}

fn state(start: Start, user: bool, model: &CpuModel, random: &mut Rng) -> CpuState {
    let mut s = CpuState::reset();
    s.gpr[..16].iter_mut().for_each(|r| *r = address(random));
    s.gpr[4] = STACK;
    s.rip = CODE;
    s.cpl = if user { 3 } else { 0 };
    let mut flags = random.next() & 0x25_4fd5 | 2;
    if !random.one_in(8) {
        flags &= !(Rflags::TF.bits() | Rflags::NT.bits() | Rflags::RF.bits());
    }
    s.flags = Flags::from_bits(flags & !Rflags::VM.bits());
    segments(&mut s, start, user);
    s.gdtr = TableRegister { base: GDT, limit: TABLE };
    s.idtr = TableRegister { base: if start == Start::Real { 0 } else { IDT }, limit: TABLE };
    s.tr = Segment { base: TSS, limit: 0x200, selector: 0x40, access: TSS_BUSY };
    s.ldtr = Segment { base: GDT + 0x100, limit: 0x2ff, selector: 0x58, access: 0x82 };
    control(&mut s, start, model, random);
    if random.one_in(6) {
        s.dr.address.iter_mut().for_each(|a| *a = address(random) & 0xffff);
        s.dr.dr7 = random.next() & 0xffff_03ff | 0x400;
    }
    s.msr.star = 0x0023_0008_0000_0000;
    s.msr.lstar = CODE + random.below(CODE_LEN as u64);
    s.msr.cstar = s.msr.lstar;
    s.msr.sysenter_cs = 8;
    s.msr.sysenter_eip = s.msr.lstar;
    s.msr.sysenter_esp = STACK;
    s.xcr0 = 7;
    s
}

fn segments(s: &mut CpuState, start: Start, user: bool) {
    let rpl = if user { 3 } else { 0 };
    let level = rpl << 5;
    let (selector, access) = match (start, user) {
        (Start::Real | Start::Virtual8086, _) => {
            let vm = start == Start::Virtual8086;
            let access = if vm { 0xf3 } else { 0x93 };
            s.seg = [Segment { base: 0, limit: 0xffff, selector: 0, access }; 6];
            s.flags.set(Rflags::VM, vm);
            return;
        }
        (Start::Long, false) => (0x08, CODE64),
        (Start::Long, true) => (0x28, CODE64),
        (Start::Protected16, _) => (0x20, CODE16),
        (_, false) => (0x18, CODE32),
        (_, true) => (0x38, CODE32),
    };
    s.seg = [segment(if user { 0x30 } else { 0x10 } | rpl, DATA32 | level); 6];
    s.seg[Seg::Cs as usize] = segment(selector | rpl, access | level);
}

fn control(s: &mut CpuState, start: Start, model: &CpuModel, random: &mut Rng) {
    let p = &mut s.paging;
    p.cr3 = if start == Start::Pae { PDPT32 } else { ROOT };
    let noise = Cr0::WP | Cr0::AM | Cr0::NE | Cr0::MP;
    p.cr0 = Cr0::ET | Cr0::from_bits_retain(random.next()) & noise;
    let allowed = x86::control::cr4_allowed(model);
    p.cr4 = Cr4::from_bits_retain(random.next()) & allowed & !(Cr4::PAE | Cr4::PCIDE);
    if !random.one_in(4) {
        p.cr4 |= Cr4::OSFXSR | Cr4::OSXSAVE;
        p.cr4 &= !Cr4::SMEP;
    }
    if start != Start::Real {
        p.cr0 |= Cr0::PE;
    }
    if matches!(start, Start::Paged32 | Start::Pae) || start.ia32e() {
        p.cr0 |= Cr0::PG;
    }
    if start == Start::Pae || start.ia32e() {
        p.cr4 |= Cr4::PAE;
        p.efer = Efer::NXE;
    }
    if start.ia32e() {
        p.efer |= Efer::SCE | Efer::LME | Efer::LMA;
        p.cr4.set(Cr4::PCIDE, random.one_in(4));
    }
    p.pdpte = [(ROOT + 0x2000) | 1, 0, 0, 0];
    if random.one_in(4) {
        p.pkru = random.next() as u32;
    }
}
