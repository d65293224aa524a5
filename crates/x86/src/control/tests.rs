//! Expectations from SDM vol. 3, 2.5, 4.10.4 and 10.8.5, and vol. 2, each instruction.

use super::*;
use crate::addr::La;
use crate::test_bus::FlatBus;

const PE: u64 = 1;
const PG: u64 = 1 << 31;
const PAE: u64 = 1 << 5;
const NON_CANONICAL: u64 = 0x8000_0000_0000;

fn model() -> CpuModel {
    CpuModel::parse("gemello-v3,+smap,+pku").unwrap()
}

fn protected() -> CpuState {
    let mut s = CpuState::reset();
    s.paging.cr0 |= Cr0::PE;
    s
}

/// 64-bit mode as Linux has it.
fn long64() -> CpuState {
    let mut s = protected();
    s.paging.cr0 |= Cr0::PG | Cr0::WP;
    s.paging.cr4 = Cr4::PAE | Cr4::PGE;
    s.paging.efer = Efer::LME | Efer::LMA;
    s.seg[Seg::Cs as usize].access |= Segment::L;
    s
}

fn write(s: &mut CpuState, bus: &mut FlatBus, n: u8, value: u64) -> Result<(), Exception> {
    let (before, calls) = (s.clone(), bus.effects.len());
    let result = write_cr(&model(), s, bus, n, value);
    if result.is_err() {
        assert_eq!(*s, before);
        assert_eq!(bus.effects.len(), calls);
    } else if n != 2 {
        assert_eq!(bus.effects.last().unwrap().0, s.paging);
    }
    result
}

fn refused(s: &CpuState, n: u8, value: u64) -> bool {
    write(&mut s.clone(), &mut FlatBus::new(0), n, value) == Err(GP)
}

fn effect(s: &CpuState, n: u8, value: u64) -> TlbEffect {
    let mut bus = FlatBus::new(0);
    write(&mut s.clone(), &mut bus, n, value).unwrap();
    bus.effect()
}

#[test]
fn registers_and_levels() {
    let mut s = protected();
    let mut bus = FlatBus::new(0);
    for n in [1, 5, 6, 7, 8, 9, 15] {
        assert_eq!(read_cr(&s, n), Err(Exception::ud()));
        assert_eq!(write_cr(&model(), &mut s, &mut bus, n, 0), Err(Exception::ud()));
    }
    write(&mut s, &mut bus, 2, u64::MAX).unwrap();
    assert_eq!(read_cr(&s, 2), Ok(u64::MAX));
    assert_eq!(read_cr(&s, 0), Ok(0x6000_0011));
    s.cpl = 3;
    for n in [0, 2, 3, 4] {
        assert_eq!(read_cr(&s, n), Err(GP));
        assert!(refused(&s, n, 0));
    }
    assert_eq!(read_cr(&s, 1), Err(Exception::ud()));
}

#[test]
fn cr0_combinations() {
    let s = protected();
    assert!(refused(&s, 0, PG));
    assert!(refused(&s, 0, PE | 1 << 29));
    assert!(refused(&s, 0, PE | 1 << 32));
    let mut bus = FlatBus::new(0);
    let mut after = s.clone();
    // Undefined low bits are dropped, ET is one.
    write(&mut after, &mut bus, 0, 0x1ffa_ffc0 | PE | 1 << 30).unwrap();
    assert_eq!(after.paging.cr0.bits(), 0x4000_0011);
    assert_eq!(bus.effect(), TlbEffect::None);
}

#[test]
fn entering_and_leaving_long_mode() {
    let mut s = protected();
    s.paging.efer = Efer::LME;
    // Without PAE.
    assert!(refused(&s, 0, PE | PG));
    s.paging.cr4 = Cr4::PAE;
    // From code marked 64-bit, or with a 16-bit TSS.
    let mut marked = s.clone();
    marked.seg[Seg::Cs as usize].access |= Segment::L;
    assert!(refused(&marked, 0, PE | PG));
    for kind in [1, 3] {
        let mut old_tss = s.clone();
        old_tss.tr.access = 0x80 | kind;
        assert!(refused(&old_tss, 0, PE | PG));
    }
    let mut bus = FlatBus::new(0);
    // No PDPTEs are read: these would be refused.
    bus.pdptes = [u64::MAX; 4];
    write(&mut s, &mut bus, 0, PE | PG).unwrap();
    assert_eq!(bus.effect(), TlbEffect::FlushAll);
    assert_eq!(s.paging.efer, Efer::LME | Efer::LMA);
    // Not from 64-bit code; from compatibility mode.
    assert!(refused(&long64(), 0, PE));
    write(&mut s, &mut bus, 0, PE).unwrap();
    assert_eq!(s.paging.efer, Efer::LME);
    assert_eq!(bus.effect(), TlbEffect::FlushAll);
    let mut pcid = s.clone();
    pcid.paging.cr0 |= Cr0::PG;
    pcid.paging.cr4 |= Cr4::PCIDE;
    assert!(refused(&pcid, 0, PE));
    // PAE cannot be cleared in IA-32e mode.
    assert!(refused(&long64(), 4, 0));
}

#[test]
fn pae_paging_loads_its_pdptes() {
    let mut s = protected();
    s.paging.cr4 = Cr4::PAE;
    s.paging.cr3 = 0x1020;
    let mut bus = FlatBus::new(0);
    bus.pdptes = [0x2001, 0, 0x3000, 0x4019];
    write(&mut s, &mut bus, 0, PE | PG).unwrap();
    assert_eq!(s.paging.pdpte, bus.pdptes);
    assert!(!s.long_mode());
    bus.pdptes[1] = 0x5001;
    // TS is not among the bits that reload them, CD and PGE are.
    write(&mut s, &mut bus, 0, PE | PG | 8).unwrap();
    assert_eq!(s.paging.pdpte[1], 0);
    write(&mut s, &mut bus, 0, PE | PG | 1 << 30).unwrap();
    assert_eq!(s.paging.pdpte[1], 0x5001);
    // A present one with a reserved bit: R/W is reserved here.
    bus.pdptes[2] = 3;
    assert_eq!(write(&mut s, &mut bus, 3, 0x1000), Err(GP));
    assert_eq!(write(&mut s, &mut bus, 4, PAE | 1 << 7), Err(GP));
    assert_eq!(write(&mut s, &mut bus, 0, PE | PG), Err(GP));
    assert_eq!(write(&mut s, &mut bus, 4, PAE | 1 << 3), Ok(()));
    bus.pdptes[2] = 2;
    assert_eq!(write(&mut s, &mut bus, 3, 0x1000), Ok(()));
}

#[test]
fn cr3() {
    let mut s = long64();
    for bit in [46, 51, 52, 61, 62, 63] {
        assert!(refused(&s, 3, 1 << bit), "{bit}");
    }
    assert!(!refused(&s, 3, 1 << 45));
    assert_eq!(effect(&s, 3, 0x1000), TlbEffect::SwitchFlush);
    s.paging.cr4 |= Cr4::PCIDE;
    assert_eq!(effect(&s, 3, 0x1005), TlbEffect::SwitchFlush);
    assert_eq!(effect(&s, 3, 0x1005 | 1 << 63), TlbEffect::SwitchKeep);
    assert!(refused(&s, 3, 0x1005 | 1 << 62));
    let mut bus = FlatBus::new(0);
    write(&mut s, &mut bus, 3, 0x1005 | 1 << 63).unwrap();
    assert_eq!(read_cr(&s, 3), Ok(0x1005));
}

#[test]
fn cr4_bits_need_their_features() {
    let s = protected();
    for bit in [12, 13, 14, 15, 19, 23, 24, 25, 32, 63] {
        assert!(refused(&s, 4, 1 << bit), "{bit}");
    }
    // All but PCIDE, which needs IA-32e mode: bits 0–11, 16, 18, 20–22.
    let all = 0x0075_0fff;
    assert!(!refused(&s, 4, all));
    assert_eq!(cr4_allowed(&model()).bits(), all | 1 << 17);
    let plain = CpuModel::gemello_v2();
    for bit in [21, 22] {
        let mut bus = FlatBus::new(0);
        assert_eq!(write_cr(&plain, &mut s.clone(), &mut bus, 4, 1 << bit), Err(GP));
    }
}

#[test]
fn pcide_needs_long_mode_and_pcid_zero() {
    let pcide = PAE | 1 << 17;
    assert!(refused(&protected(), 4, pcide));
    let mut s = long64();
    s.paging.cr3 = 0x1001;
    assert!(refused(&s, 4, pcide));
    s.paging.cr3 = 0x1000;
    assert_eq!(effect(&s, 4, pcide), TlbEffect::FlushAll);
    // Once set it may stay with any PCID.
    s.paging.cr4 |= Cr4::PCIDE;
    s.paging.cr3 = 0x1001;
    assert!(!refused(&s, 4, pcide));
}

#[test]
fn what_flushes() {
    let s = long64();
    let base = s.paging.cr4.bits();
    for bit in [4, 7, 20, 21, 22] {
        assert_eq!(effect(&s, 4, base ^ 1 << bit), TlbEffect::FlushAll, "{bit}");
    }
    for bit in [0, 2, 3, 8, 9, 11, 16, 18] {
        assert_eq!(effect(&s, 4, base ^ 1 << bit), TlbEffect::None, "{bit}");
    }
    let cr0 = s.paging.cr0.bits();
    assert_eq!(effect(&s, 0, cr0 ^ 1 << 16), TlbEffect::FlushAll);
    assert_eq!(effect(&s, 0, cr0 ^ 1 << 3), TlbEffect::None);
}

#[test]
fn lmsw_smsw_clts() {
    let mut bus = FlatBus::new(0);
    let mut s = protected();
    lmsw(&model(), &mut s, &mut bus, 0xfffe).unwrap();
    // PE stays; NE (bit 5) is out of reach.
    assert_eq!(smsw(&s), Ok(0x6000_001f));
    clts(&mut s, &mut bus).unwrap();
    assert_eq!(smsw(&s), Ok(0x6000_0017));
    let mut real = CpuState::reset();
    lmsw(&model(), &mut real, &mut bus, 1).unwrap();
    assert_eq!(smsw(&real), Ok(0x6000_0011));
    s.cpl = 3;
    assert_eq!(lmsw(&model(), &mut s, &mut bus, 0), Err(GP));
    assert_eq!(clts(&mut s, &mut bus), Err(GP));
    assert!(smsw(&s).is_ok());
    s.paging.cr4 |= Cr4::UMIP;
    assert_eq!(smsw(&s), Err(GP));
}

#[test]
fn xcr0() {
    let (m, mut s) = (model(), protected());
    assert_eq!(xgetbv(&m, &s, 0), Err(Exception::ud()));
    assert_eq!(xsetbv(&m, &mut s, 0, 1), Err(Exception::ud()));
    s.paging.cr4 |= Cr4::OSXSAVE;
    // Without x87, AVX without SSE, a component we do not have, another register.
    for (index, value) in [(0, 2), (0, 5), (0, 0xf), (0, 1 << 63 | 1), (1, 1)] {
        assert_eq!(xsetbv(&m, &mut s, index, value), Err(GP), "{index} {value:#x}");
    }
    let v2 = CpuModel::gemello_v2();
    assert_eq!(xsetbv(&v2, &mut s, 0, 7), Err(GP));
    for value in [1, 3, 7, 0x201, 0x207] {
        xsetbv(&m, &mut s, 0, value).unwrap();
        assert_eq!(xgetbv(&m, &s, 0), Ok(value));
    }
    // Only what is in use: reset leaves FCW at 40H, which is not the initial 37FH.
    assert_eq!(xgetbv(&m, &s, 1), Ok(1));
    s.ymm[15].0[31] = 1;
    s.paging.pkru = 4;
    assert_eq!(xgetbv(&m, &s, 1), Ok(0x205));
    assert_eq!(xgetbv(&m, &s, 2), Err(GP));
    s.cpl = 3;
    assert!(xgetbv(&m, &s, 0).is_ok());
    assert_eq!(xsetbv(&m, &mut s, 0, 1), Err(GP));
}

#[test]
fn pkru() {
    let mut bus = FlatBus::new(0);
    let mut s = long64();
    s.cpl = 3;
    assert_eq!(rdpkru(&s, 0), Err(Exception::ud()));
    assert_eq!(wrpkru(&mut s, &mut bus, 1, 0, 0), Err(Exception::ud()));
    s.paging.cr4 |= Cr4::PKE;
    assert_eq!(rdpkru(&s, 1), Err(GP));
    assert_eq!(wrpkru(&mut s, &mut bus, 1, 1, 0), Err(GP));
    assert_eq!(wrpkru(&mut s, &mut bus, 1, 0, 1), Err(GP));
    wrpkru(&mut s, &mut bus, 0x5555_5554, 0, 0).unwrap();
    assert_eq!(rdpkru(&s, 0), Ok(0x5555_5554));
    assert_eq!(bus.effect(), TlbEffect::None);
}

#[test]
fn invlpg_names_one_page() {
    let mut bus = FlatBus::new(0);
    let mut s = long64();
    invlpg(&s, &mut bus, La(0x1234)).unwrap();
    assert_eq!(bus.effect(), TlbEffect::Page(La(0x1234)));
    invlpg(&s, &mut bus, La(NON_CANONICAL)).unwrap();
    assert!(bus.effects.is_empty());
    s.cpl = 3;
    assert_eq!(invlpg(&s, &mut bus, La(0)), Err(GP));
}

#[test]
fn invpcid_types_and_descriptors() {
    let mut s = long64();
    let call = |s: &CpuState, kind, pcid: u64, address: u64| {
        let mut bus = FlatBus::new(64);
        bus.put(16, &pcid.to_le_bytes());
        bus.put(24, &address.to_le_bytes());
        invpcid(&model(), s, &mut bus, kind, Operand::flat(La(16))).map(|()| bus.effect())
    };
    // Without PCIDE only PCID 0 exists, for the types that look at it.
    assert_eq!(call(&s, 0, 5, 0x1000), Err(GP));
    assert_eq!(call(&s, 1, 5, 0), Err(GP));
    assert_eq!(call(&s, 0, 0, 0x1000), Ok(TlbEffect::PageOfPcid(0, La(0x1000))));
    s.paging.cr4 |= Cr4::PCIDE;
    assert_eq!(call(&s, 0, 5, 0x1000), Ok(TlbEffect::PageOfPcid(5, La(0x1000))));
    assert_eq!(call(&s, 0, 5, NON_CANONICAL), Err(GP));
    assert_eq!(call(&s, 1, 0xfff, NON_CANONICAL), Ok(TlbEffect::Pcid(0xfff)));
    assert_eq!(call(&s, 2, 5, 0), Ok(TlbEffect::FlushAll));
    assert_eq!(call(&s, 3, 5, 0), Ok(TlbEffect::FlushNonGlobal));
    assert_eq!(call(&s, 4, 0, 0), Err(GP));
    assert_eq!(call(&s, 2, 0x1000, 0), Err(GP));
    assert_eq!(call(&s, 2, 1 << 63, 0), Err(GP));
    s.cpl = 3;
    assert_eq!(call(&s, 2, 0, 0), Err(GP));
    let without = CpuModel::parse("gemello-v2,-invpcid").unwrap();
    let mut bus = FlatBus::new(64);
    assert_eq!(invpcid(&without, &s, &mut bus, 2, Operand::flat(La(16))), Err(Exception::ud()));
    s.cpl = 0;
    assert_eq!(
        invpcid(&model(), &s, &mut bus, 2, Operand::flat(La(60))),
        Err(Exception::pf(La(64), 0))
    );
}
