//! What the MMU tells an observer of its TLB.

use super::*;
use crate::tlb::mirror::{Mirror, Random, contents};
use std::collections::BTreeSet;
use x86::state::CpuState;

/// Pages that count as holding decoded code, without any.
#[derive(Default)]
struct CodePages {
    pages: BTreeSet<u64>,
    released: Vec<u64>,
}

impl CodeCache for CodePages {
    fn is_code_page(&self, gpa: u64) -> bool {
        self.pages.contains(&(gpa & !PAGE_MASK))
    }
    fn open_page(&mut self, gpa: u64) {
        self.pages.insert(gpa & !PAGE_MASK);
    }
    fn holds(&self, _: u64, _: u64) -> bool {
        false
    }
    fn written(&mut self, gpa: u64, _: u64) {
        self.released.extend(self.pages.take(&(gpa & !PAGE_MASK)));
    }
    fn written_pages(&mut self, gpa: u64, len: u64) {
        (gpa..gpa + len).step_by(0x1000).for_each(|page| self.written(page, 1));
    }
    fn flush(&mut self) {
        self.released.extend(std::mem::take(&mut self.pages));
    }
    fn released(&mut self) -> &mut Vec<u64> {
        &mut self.released
    }
}

impl Recorder for Mirror {
    fn is_recording(&self) -> bool {
        false
    }
    fn marked(&mut self, _: &GuestRam, _: u64, _: u64) {}
    fn reached(&mut self, _: &GuestRam, _: u64, _: u64, _: AccessKind) {}
    fn forbids(&mut self) -> bool {
        false
    }
}

/// Two address spaces of eight pages each, at 0 and at the end; and what their frames are.
const ROOTS: [u64; 2] = [0x1_0000, 0x2_0000];
const FRAMES: u64 = 0x8_0000;
const HIGH: u64 = 0xffff_ffff_ffff_8000;

/// Where the page-table entry of `la` is, below one of [`ROOTS`].
fn entry(root: u64, la: u64) -> u64 {
    root + if la < HIGH { 0x3000 } else { 0x6000 } + 8 * (la >> 12 & 511)
}

fn ram() -> GuestRam {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("some memory");
    let put = |at: u64, value: u64| ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
    for root in ROOTS {
        for (n, first) in [(0, 0x1000), (511, 0x4000)] {
            for level in 0..3 {
                let table = if level == 0 { root } else { root + first + (level - 1) * 0x1000 };
                put(table + 8 * n, (root + first + level * 0x1000) | 7);
            }
        }
    }
    ram
}

fn mmu(ram: &GuestRam) -> Mmu<CodePages, Mirror> {
    let paging = PagingState {
        cr0: Cr0::PE | Cr0::PG | Cr0::WP,
        cr3: ROOTS[0],
        cr4: Cr4::PAE | Cr4::PGE | Cr4::PCIDE | Cr4::SMAP,
        efer: Efer::LME | Efer::LMA | Efer::NXE,
        ..CpuState::reset().paging
    };
    Mmu::new(ram.clone(), Tlb::new().expect("room"), CodePages::default(), paging, Box::new(|| ()))
}

/// One of the pages: few, so that they meet again.
fn page(random: &mut Random) -> u64 {
    (if random.below(2) == 0 { 0 } else { HIGH }) + (random.below(8) << 12)
}

fn access(mmu: &mut Mmu<CodePages, Mirror>, random: &mut Random) {
    let kind = [AccessKind::Read, AccessKind::Write, AccessKind::Execute];
    let by = [Privilege::User, Privilege::Supervisor, Privilege::Implicit];
    let (kind, by) = (kind[random.below(3) as usize], by[random.below(3) as usize]);
    let la = page(random);
    let _ = match kind {
        AccessKind::Execute => mmu.fetch_target(la, by).map(drop),
        _ => mmu.reach(la, kind, by).map(drop),
    };
}

/// What a guest's kernel does about its page tables.
fn manage(mmu: &mut Mmu<CodePages, Mirror>, random: &mut Random) {
    let (la, pcid) = (La(page(random)), random.below(12) as u16);
    let mut paging = mmu.paging;
    let effect = match random.below(10) {
        0 => TlbEffect::FlushCurrent,
        1 => TlbEffect::FlushNonGlobal,
        2 if random.below(4) == 0 => TlbEffect::FlushAll,
        n @ 3..6 => {
            paging.cr3 = ROOTS[random.below(2) as usize] | u64::from(pcid);
            if n == 3 { TlbEffect::SwitchFlush } else { TlbEffect::SwitchKeep }
        }
        6 => TlbEffect::PageOfPcid(pcid, la),
        7 => TlbEffect::Pcid(pcid),
        8 if random.below(4) == 0 => {
            paging.cr0 ^= Cr0::WP;
            TlbEffect::None
        }
        _ => {
            let bits = [0, 1, 5, 7, 0x101, 0x107, 0x8000_0000_0000_0007];
            let frame = FRAMES + (random.below(8) << 12);
            let value = frame | bits[random.below(bits.len() as u64) as usize];
            let at = entry(paging.cr3 & !PAGE_MASK, la.0);
            mmu.ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
            TlbEffect::Page(la)
        }
    };
    mmu.paging_changed(&paging, effect);
}

/// What happens to memory around the processor, and what is watched.
fn disturb(mmu: &mut Mmu<CodePages, Mirror>, random: &mut Random) {
    let frame = FRAMES + (random.below(8) << 12);
    match random.below(7) {
        0 => mmu.hold_code(frame, None),
        1 => mmu.wrote(Some(frame), 8),
        2 => {
            mmu.ram.revoke(Gpa(frame), 0x1000).expect("nothing pins it");
            mmu.catch_up();
            mmu.ram.restore(Gpa(frame), 0x1000).expect("in RAM");
        }
        3 => {
            mmu.ram.track_dirty();
            mmu.catch_up();
            mmu.ram.take_dirty();
            mmu.ram.stop_tracking();
        }
        4 => mmu.ac = !mmu.ac,
        5 => mmu.forget(page(random)),
        _ => {
            mmu.watched[0] = (random.below(2) == 0).then(|| page(random));
            mmu.flush_tlb();
        }
    }
}

#[test]
fn a_mirror_follows_accesses_and_page_tables() {
    let ram = ram();
    let mut mmu = mmu(&ram);
    let mut random = Random(0xfeed_5eed_1234_5678);
    let mut rights = BTreeSet::new();
    for n in 0..4000 {
        for _ in 0..random.below(16) {
            access(&mut mmu, &mut random);
        }
        assert_eq!(mmu.log.contents, contents(&mmu.tlb), "after accesses, round {n}");
        rights.extend(mmu.log.contents.keys().map(|&(view, _, right)| (view, right)));
        if random.below(4) == 0 {
            disturb(&mut mmu, &mut random);
        } else {
            manage(&mut mmu, &mut random);
        }
        assert_eq!(mmu.log.contents, contents(&mmu.tlb), "after a change, round {n}");
    }
    // Every view but that of alignment checks was used, in every way.
    assert_eq!(rights.len(), 3 * tlb::EMPTY, "{rights:?}");
}
