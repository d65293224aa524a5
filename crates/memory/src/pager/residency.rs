//! The pager's policy, a pure value: which pages are resident, and which go next.
//!
//! ```text
//!   Zero, Out ──want──► Coming ──came──► Active ──retire──► Standby ──expel──► Leaving
//!       ▲                                   ▲                  │                 │
//!       │                                   └───────want───────┘                 │
//!       └──────────────────────────────────left──────────────────────────────────┘
//! ```
//! What the guest gives up is Zero again, unless it is coming or leaving.
//!
//! Two queues, first in, first out. The oldest active pages retire to standby: no processor may
//! touch them without asking, but their contents stay in place. A page that is asked for there goes
//! back at no cost; one that nobody has asked for until its turn comes leaves. This comes close to
//! "least recently used" without a look at any access (segmented FIFO: Turner and Levy, SIGMETRICS
//! 1981).
//!
//! Pages are numbers within RAM. No thread, no clock, no host memory.

use super::list::{Links, List};

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it holds zeros, and costs nothing.
    Zero,
    /// In the swap file.
    Out,
    /// On its way in.
    Coming,
    /// Resident, and processors may have its address.
    Active,
    /// Resident, but no processor has its address.
    Standby,
    /// On its way out.
    Leaving,
}

/// What a processor that asks for a page is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// It is active.
    Here,
    /// It was on standby, and is active again.
    Rescued,
    /// The one who asked brings it in, and then calls [`Residency::came`].
    Come(Source),
    /// Ask again: another brings it, or takes it away, or there is no room yet.
    Later,
}

/// What a page is made of that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Zeros.
    Nothing,
    /// The swap file.
    File,
}

/// How many pages are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// On standby, active, coming or leaving.
    pub(super) resident: u64,
    /// In the swap file alone.
    pub(super) out: u64,
    /// Nowhere.
    pub(super) zero: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Residency {
    places: Box<[Place]>,
    links: Links,
    active: List,
    standby: List,
    counts: Counts,
    budget: u64,
}

/// Parts of the budget that pages on standby should make up.
const STANDBY: u64 = 4;
/// Parts of the budget that are kept free, so that a page that comes finds room.
const FREE: u64 = 64;
/// Pages kept free at the most.
const MOST_FREE: u64 = 2048;
/// Parts of the budget that processors leave to devices, which do not ask.
const FOR_DEVICES: u64 = 128;

impl Residency {
    /// `pages` pages of zeros, of which `budget` may be resident at a time.
    pub(super) fn new(pages: usize, budget: u64) -> Self {
        Self {
            places: vec![Place::Zero; pages].into(),
            links: Links::new(pages),
            active: List::default(),
            standby: List::default(),
            counts: Counts { zero: pages as u64, ..Counts::default() },
            budget,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// A processor needs `page`.
    pub(super) fn want(&mut self, page: usize) -> Want {
        let source = match self.places[page] {
            Place::Active => return Want::Here,
            Place::Coming | Place::Leaving => return Want::Later,
            Place::Standby => {
                self.activate(page);
                return Want::Rescued;
            }
            Place::Zero => Source::Nothing,
            Place::Out => Source::File,
        };
        if !self.has_room() {
            return Want::Later;
        }
        self.enter(page, Place::Coming);
        Want::Come(source)
    }

    /// Whether a processor that asks for `page` has it without I/O.
    pub(super) fn comes_at_once(&self, page: usize) -> bool {
        match self.places[page] {
            Place::Active | Place::Standby => true,
            Place::Zero => self.has_room(),
            Place::Out | Place::Coming | Place::Leaving => false,
        }
    }

    /// `page`, which was coming, is there.
    pub(super) fn came(&mut self, page: usize) {
        debug_assert_eq!(self.places[page], Place::Coming);
        self.activate(page);
    }

    /// `page` was found resident although nobody has asked for it: the host's kernel has brought it
    /// for a device. This may exceed the budget.
    pub(super) fn found(&mut self, page: usize) {
        if matches!(self.places[page], Place::Zero | Place::Out) {
            self.enter(page, Place::Coming);
            self.activate(page);
        }
    }

    /// The oldest active pages, at most `most`, which are on standby from now on; none once standby
    /// has its share of the budget.
    pub(super) fn retire(&mut self, most: usize) -> Vec<usize> {
        let share = (self.budget / STANDBY).max(1);
        let wanted = share.saturating_sub(self.standby.len()).min(most as u64);
        let mut pages = Vec::new();
        for _ in 0..wanted {
            let Some(page) = self.active.pop(&mut self.links) else { break };
            self.places[page] = Place::Standby;
            self.standby.push(&mut self.links, page);
            pages.push(page);
        }
        pages
    }

    /// The pages that have been on standby for longest, at most `most`, which leave now; none while
    /// enough is free.
    pub(super) fn expel(&mut self, most: usize) -> Vec<usize> {
        let excess = (self.counts.resident + 2 * self.reserve()).saturating_sub(self.most());
        let mut pages = Vec::new();
        for _ in 0..excess.min(most as u64) {
            let Some(page) = self.standby.pop(&mut self.links) else { break };
            self.places[page] = Place::Leaving;
            pages.push(page);
        }
        pages
    }

    /// `page`, which was leaving, has ended as `place`: gone, or active after all.
    pub(super) fn left(&mut self, page: usize, place: Place) {
        debug_assert_eq!(self.places[page], Place::Leaving);
        match place {
            Place::Zero => self.counts.zero += 1,
            Place::Out => self.counts.out += 1,
            _ => return self.activate(page),
        }
        self.counts.resident -= 1;
        self.places[page] = place;
    }

    /// Whether `page` is neither on its way in nor out.
    pub(super) fn can_forget(&self, page: usize) -> bool {
        !matches!(self.places[page], Place::Coming | Place::Leaving)
    }

    /// `page`, of which that is so, holds zeros and is nowhere.
    pub(super) fn forget(&mut self, page: usize) {
        match self.places[page] {
            Place::Zero | Place::Coming | Place::Leaving => return,
            Place::Out => self.counts.out -= 1,
            Place::Active => {
                self.active.remove(&mut self.links, page);
                self.counts.resident -= 1;
            }
            Place::Standby => {
                self.standby.remove(&mut self.links, page);
                self.counts.resident -= 1;
            }
        }
        self.counts.zero += 1;
        self.places[page] = Place::Zero;
    }

    /// Whether pages must leave for others to find room.
    pub(super) fn is_short(&self) -> bool {
        self.counts.resident + self.reserve() > self.most()
    }

    /// Whether no more is resident than may be.
    pub(super) fn is_within(&self) -> bool {
        self.counts.resident <= self.budget
    }

    /// Pages that are resident at the most for what processors ask for.
    fn most(&self) -> u64 {
        self.budget - self.budget / FOR_DEVICES
    }

    fn has_room(&self) -> bool {
        self.counts.resident < self.most()
    }

    fn reserve(&self) -> u64 {
        (self.budget / FREE).clamp(1, MOST_FREE)
    }

    /// A page that is nowhere or in the file becomes resident.
    fn enter(&mut self, page: usize, place: Place) {
        match self.places[page] {
            Place::Zero => self.counts.zero -= 1,
            _ => self.counts.out -= 1,
        }
        self.counts.resident += 1;
        self.places[page] = place;
    }

    fn activate(&mut self, page: usize) {
        if self.places[page] == Place::Standby {
            self.standby.remove(&mut self.links, page);
        }
        self.places[page] = Place::Active;
        self.active.push(&mut self.links, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: usize = 64;
    const BUDGET: u64 = 16;

    fn all_in(residency: &mut Residency, pages: std::ops::Range<usize>) {
        for page in pages {
            assert!(matches!(residency.want(page), Want::Come(_)), "{page}");
            residency.came(page);
        }
    }

    fn expel_all(residency: &mut Residency) -> Vec<usize> {
        let pages = residency.expel(PAGES);
        pages.iter().for_each(|&page| residency.left(page, Place::Out));
        pages
    }

    #[test]
    fn the_oldest_go_first_and_those_asked_for_stay() {
        let mut r = Residency::new(PAGES, BUDGET);
        all_in(&mut r, 0..16);
        assert_eq!(r.want(16), Want::Later, "no room");
        assert_eq!(r.retire(PAGES), [0, 1, 2, 3]);
        assert_eq!(r.want(1), Want::Rescued);
        assert_eq!(expel_all(&mut r), [0, 2], "page 1 was asked for");
        assert_eq!(r.want(0), Want::Come(Source::File));
        assert_eq!(r.want(0), Want::Later, "somebody brings it already");
        assert_eq!(r.want(16), Want::Come(Source::Nothing));
    }

    #[test]
    fn what_a_device_brings_is_counted_and_leaves_again() {
        let mut r = Residency::new(PAGES, BUDGET);
        all_in(&mut r, 0..16);
        r.found(20);
        assert!(!r.is_within());
        while r.is_short() {
            assert!(!r.retire(PAGES).is_empty());
            assert!(!expel_all(&mut r).is_empty());
        }
        assert!(r.is_within());
    }

    #[test]
    fn a_page_that_could_not_leave_is_active() {
        let mut r = Residency::new(PAGES, BUDGET);
        all_in(&mut r, 0..16);
        r.retire(PAGES);
        let pages = r.expel(1);
        r.left(pages[0], Place::Active);
        assert_eq!(r.want(pages[0]), Want::Here);
        assert_eq!(r.counts(), Counts { resident: 16, out: 0, zero: 48 });
    }

    /// What can happen, with a number that chooses a page.
    fn events() -> impl Strategy<Value = Vec<(u8, usize)>> {
        prop::collection::vec((0..7u8, 0..PAGES), 1..400)
    }

    proptest! {
        /// Places and counts agree, the queues hold what they should, and the budget holds for all
        /// that processors ask for.
        #[test]
        fn counts_and_queues_agree_with_places(events in events()) {
            let mut r = Residency::new(PAGES, BUDGET);
            let mut coming = Vec::new();
            let mut leaving = Vec::new();
            let mut found = 0;
            for (event, page) in events {
                match event {
                    0 | 1 => {
                        let before = r.places[page];
                        let at_once = r.comes_at_once(page);
                        let want = r.want(page);
                        let no_io = [Want::Here, Want::Rescued, Want::Come(Source::Nothing)];
                        prop_assert_eq!(at_once, no_io.contains(&want));
                        match want {
                            Want::Come(source) => {
                                prop_assert_eq!(source == Source::File, before == Place::Out);
                                coming.push(page);
                            }
                            Want::Here => prop_assert_eq!(before, Place::Active),
                            Want::Rescued => prop_assert_eq!(before, Place::Standby),
                            Want::Later => {}
                        }
                    }
                    2 => coming.drain(..).for_each(|page| r.came(page)),
                    3 => { r.retire(page); }
                    4 => leaving.extend(r.expel(page)),
                    5 => {
                        if r.can_forget(page) {
                            r.forget(page);
                            prop_assert_eq!(r.places[page], Place::Zero);
                        }
                    }
                    _ if page % 8 == 0 => {
                        found += u64::from(matches!(r.places[page], Place::Zero | Place::Out));
                        r.found(page);
                    }
                    _ => for page in leaving.drain(..) {
                        let place = [Place::Zero, Place::Out, Place::Active][page % 3];
                        r.left(page, place);
                    },
                }
                let count = |places: &[Place]| {
                    (0..PAGES).filter(|&page| places.contains(&r.places[page])).count() as u64
                };
                let resident = [Place::Coming, Place::Active, Place::Standby, Place::Leaving];
                let (out, zero) = (count(&[Place::Out]), count(&[Place::Zero]));
                let expected = Counts { resident: count(&resident), out, zero };
                prop_assert_eq!(r.counts(), expected);
                prop_assert_eq!(r.active.len(), count(&[Place::Active]));
                prop_assert_eq!(r.standby.len(), count(&[Place::Standby]));
                prop_assert!(r.counts().resident <= BUDGET + found);
            }
        }
    }
}
