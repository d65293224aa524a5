//! A mirror of the TLB, made of what an observer is told alone, and what it must be like.

use super::{EMPTY, ENTRIES, FETCH_ENTRIES, FetchEntry, Fill, SUPERVISOR, SUPERVISOR_AC, Tlb};
use super::{VIEWS, fetch_index, index};
use crate::observer::{Mapping, Rights, TlbObserver};
use std::collections::BTreeMap;

/// What may be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    Read,
    Write,
    Execute,
}

/// Where each right to a page of a view leads.
pub(crate) type Contents = BTreeMap<(usize, u64, Right), u64>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) contents: Contents,
    /// How often it was told something.
    pub(crate) told: usize,
}

fn each(rights: Rights) -> impl Iterator<Item = Right> {
    let Rights { read, write, execute } = rights;
    let all = [(read, Right::Read), (write, Right::Write), (execute, Right::Execute)];
    all.into_iter().filter_map(|(has, right)| has.then_some(right))
}

impl TlbObserver for Mirror {
    fn filled(&mut self, Mapping { view, page, rights }: Mapping, gpa: u64) {
        self.told += 1;
        for right in each(rights) {
            let before = self.contents.insert((view, page, right), gpa);
            assert_eq!(before, None, "{right:?} of {page:#x} in view {view} comes twice");
        }
    }

    fn dropped(&mut self, Mapping { view, page, rights }: Mapping) {
        self.told += 1;
        for right in each(rights) {
            let before = self.contents.remove(&(view, page, right));
            assert!(before.is_some(), "{right:?} of {page:#x} in view {view} goes, but never came");
        }
    }
}

/// What accesses hit in `tlb`, by asking every entry as an access does.
pub(crate) fn contents(tlb: &Tlb) -> Contents {
    let mut found = Contents::new();
    for n in 0..VIEWS {
        let view = tlb.view(n);
        for i in 0..ENTRIES {
            let (entry, gpa) = (&view.data[i], view.pages[i].gpa());
            for (tag, right) in [(entry.rtag, Right::Read), (entry.wtag, Right::Write)] {
                // An access looks at the place of its own address.
                if index(tag) == i {
                    found.insert((n, tag, right), gpa);
                }
            }
        }
        for i in 0..FETCH_ENTRIES {
            let FetchEntry { tag, gpa, .. } = view.fetch[i];
            if tag & 0xfff == 0 && fetch_index(tag) == i {
                found.insert((n, tag, Right::Execute), gpa);
            }
        }
    }
    found
}

/// Pseudo-random numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// A page of few, many of which share a place; the first and the last are among them.
fn page(random: &mut Random) -> u64 {
    let high = [0, 0x7fff_fe00_0000, 0xffff_8880_0000_0000, 0xffff_ffff_fe00_0000];
    let low = [0, 1, 0x3ff, 0x1fff][random.below(4) as usize] << 12;
    high[random.below(4) as usize] | low
}

fn fill(tlb: &mut Tlb, random: &mut Random, mirror: &mut Mirror) {
    let view = [tlb.slot, SUPERVISOR, SUPERVISOR_AC, EMPTY][random.below(4) as usize];
    let (page, gpa, global) = (page(random), random.below(16) << 12, random.below(4) == 0);
    // One size for a page, as page tables have it.
    let size =
        [0x1000, 0x20_0000, 0x40_0000, 0x4000_0000][(page >> 40 & 1 | page >> 46 & 2) as usize];
    if random.below(3) == 0 {
        tlb.fill_fetch(view, FetchEntry { tag: page, gpa, global, size }, mirror);
    } else {
        let (read, write) = (random.below(8) != 0, random.below(2) == 0);
        tlb.fill(view, Fill { page, gpa, host: 1, read, write, global, size }, mirror);
    }
}

/// Takes something away, in one of all ways.
fn take(tlb: &mut Tlb, random: &mut Random, mirror: &mut Mirror) {
    let (la, gpa) = (page(random) | 0x123, random.below(16) << 12);
    let pcid = random.below(12) as u16;
    match random.below(12) {
        0 if random.below(4) == 0 => tlb.flush_all(mirror),
        0 | 1 => tlb.flush_current(mirror),
        2 => tlb.flush_non_global(mirror),
        3 => tlb.switch(pcid, true, mirror),
        4 => tlb.switch(pcid, false, mirror),
        5 | 6 => tlb.flush_page(la, mirror),
        7 => tlb.flush_page_of(pcid, la, mirror),
        8 => tlb.flush_pcid(pcid, mirror),
        9 => tlb.forbid_writes(gpa, mirror),
        10 => tlb.drop_frames(|frame| (gpa..gpa + 0x3000).contains(&frame), mirror),
        _ if random.below(4) == 0 => tlb.forbid_all_writes(mirror),
        _ => tlb.forget(la, mirror),
    }
}

#[test]
fn a_mirror_of_what_an_observer_is_told_equals_the_tlb() {
    let (mut tlb, mut mirror) = (Tlb::new().expect("room"), Mirror::default());
    let mut random = Random(0x0123_4567_89ab_cdef);
    let mut most = 0;
    for _ in 0..1500 {
        for _ in 0..random.below(24) {
            fill(&mut tlb, &mut random, &mut mirror);
        }
        assert_eq!(mirror.contents, contents(&tlb));
        most = most.max(mirror.contents.len());
        take(&mut tlb, &mut random, &mut mirror);
        assert_eq!(mirror.contents, contents(&tlb));
    }
    assert!(most > 30, "only {most} at the most");
}
