//! The pager: guest RAM larger than the host memory it may take.
//!
//! RAM is a shared mapping of a file without a name. At most so many of its pages are resident; the
//! least used leave for the file and come back when they are needed. The host's kernel moves the
//! bytes ([`store`]), gemello decides which ([`residency`]).
//!
//! Every page that no processor has asked for is [`ABSENT`]. A processor that misses it asks
//! ([`GuestRam::ask_for`]), on its own thread: it brings the page in itself, or waits until the
//! [`Reclaimer`] has made room. Or it goes elsewhere meanwhile, and has a [`Fetcher`] bring it
//! ([`GuestRam::request`]). Devices do not ask: they may hold what a processor waits for. The
//! host's kernel brings pages in for them, the pager counts these ([`GuestRam::note`]), and the
//! reclaimer makes up for it.
//!
//! Lock order: the residency, then the change log. The reclaimer waits for processors with neither.
//! See ADR 0030.

mod guard;
mod list;
mod requests;
mod residency;
mod store;
mod swap;

use crate::log::Change;
use crate::ram::{PAGE, Region, Shared};
use crate::{ABSENT, Error, GuestRam};
use guard::Guard;
use requests::Requests;
use residency::{Place, Residency, Want};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;
use store::Store;
use sync::lock;
use x86::addr::Gpa;

/// Pages that are taken from processors, or out of memory, at a time.
const BATCH: usize = 512;
/// Milliseconds between looks at what nobody has told of.
const LOOK: i64 = 100;
/// Pages that such a look covers.
const LOOKED_AT: usize = 8192;
/// A budget below this does not hold what a few instructions touch, tables included.
pub const LEAST_RESIDENT: u64 = 4 << 20;

/// What is said of a page that the host itself could not bring back.
const UNREADABLE: &str = "a page of the swap file could not be read";

pub use requests::{Arrival, Fetcher};
pub(crate) use store::runs;
pub use swap::swap_file;

/// Threads that bring pages in at a time: a disk serves several requests faster than one by one.
pub const FETCHERS: usize = 4;

/// Told once, when the memory of a machine is lost: why.
pub type OnLoss = Box<dyn Fn(&str) + Send + Sync>;

/// How much of a machine's memory is where, in bytes, and how many pages have moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagerStats {
    /// May be resident.
    pub budget: u64,
    /// Is resident.
    pub resident: u64,
    /// Is in the swap file alone.
    pub swapped: u64,
    /// Holds zeros, and is nowhere.
    pub zero: u64,
    /// Pages read from the swap file.
    pub page_ins: u64,
    /// Pages that have left for the swap file.
    pub page_outs: u64,
    /// Pages that were asked for while they waited to leave.
    pub rescued: u64,
}

/// What a machine's processors, devices and reclaimer have of the pager.
pub(crate) struct Inner {
    residency: Mutex<Residency>,
    budget: u64,
    guard: Guard,
    requests: Requests,
    /// Room was made so many times.
    rooms: AtomicU64,
    page_ins: AtomicU64,
    page_outs: AtomicU64,
    rescued: AtomicU64,
    /// Why the memory is lost.
    lost: OnceLock<String>,
    on_loss: OnLoss,
    stop: AtomicBool,
}

/// Keeps a machine's memory within its budget. Dropping it ends the [`Reclaimer`] and each
/// [`Fetcher`].
pub struct Pager {
    ram: GuestRam,
    inner: Arc<Inner>,
}

/// The pager's own thread, to be.
pub struct Reclaimer {
    ram: GuestRam,
    inner: Arc<Inner>,
    /// The page that the next look begins at.
    next: usize,
}

impl Pager {
    /// Keeps at most `resident` bytes of `ram` in memory, which is backed by a file of
    /// [`swap_file`]'s and was touched by nobody. `on_loss` is called if the file fails.
    ///
    /// # Errors
    /// `resident` is below [`LEAST_RESIDENT`], or the host refuses.
    pub fn new(ram: &GuestRam, resident: u64, on_loss: OnLoss) -> Result<(Self, Reclaimer), Error> {
        let refused = |why: String| Error::Pager { resident, why };
        if resident < LEAST_RESIDENT {
            return Err(refused(format!("the least is {} MiB", LEAST_RESIDENT >> 20)));
        }
        let Some(store) = Store::of(ram) else {
            return Err(refused("memory is not backed by a file".into()));
        };
        let pages = ram.attributes().len();
        store.single_pages(pages).map_err(|error| refused(error.to_string()))?;
        let regions = ram.regions().iter().map(Region::host_range);
        let inner = Arc::new(Inner {
            residency: Mutex::new(Residency::new(pages, resident / PAGE)),
            budget: resident,
            guard: Guard::new(regions).map_err(|error| refused(error.to_string()))?,
            requests: Requests::default(),
            rooms: AtomicU64::new(0),
            page_ins: AtomicU64::new(0),
            page_outs: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
            lost: OnceLock::new(),
            on_loss,
            stop: AtomicBool::new(false),
        });
        if ram.shared.pager.set(inner.clone()).is_err() {
            return Err(refused("the memory has a pager already".into()));
        }
        (0..pages).for_each(|n| ram.mark_absent(n));
        let reclaimer = Reclaimer { ram: ram.clone(), inner: inner.clone(), next: 0 };
        Ok((Self { ram: ram.clone(), inner }, reclaimer))
    }

    /// One that brings in what is requested ([`GuestRam::request`]). Without any, nothing comes.
    pub fn fetcher(&self) -> Fetcher {
        Fetcher { ram: self.ram.clone(), inner: self.inner.clone() }
    }

    /// The counters up to now.
    pub fn stats(&self) -> PagerStats {
        let counts = lock(&self.inner.residency).counts();
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        PagerStats {
            budget: self.inner.budget,
            resident: counts.resident * PAGE,
            swapped: counts.out * PAGE,
            zero: counts.zero * PAGE,
            page_ins: count(&self.inner.page_ins),
            page_outs: count(&self.inner.page_outs),
            rescued: count(&self.inner.rescued),
        }
    }
}

impl std::fmt::Debug for Pager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pager").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        self.inner.guard.ring();
        self.inner.requests.close();
        self.ram.log().wake();
    }
}

impl Reclaimer {
    /// Makes room whenever little is left, until the [`Pager`] is dropped: the body of a thread of
    /// its own, which is no processor's.
    pub fn run(mut self) {
        let mut looked = Instant::now();
        while !self.inner.stop.load(Ordering::SeqCst) {
            self.tell_of_hit();
            if looked.elapsed().as_millis() >= LOOK as u128 {
                self.look();
                looked = Instant::now();
            }
            match self.make_room() {
                Ok(0) => self.inner.guard.wait(LOOK),
                Ok(_) => {}
                Err(error) => {
                    let why = format!("pages could not be written to the swap file: {error}");
                    self.inner.lose(&self.ram, &why);
                    self.inner.guard.wait(LOOK);
                }
            }
        }
        // A page may have been hit since the last look.
        self.tell_of_hit();
    }

    /// Loses the memory if a page could not be brought back for an access that nobody told of.
    fn tell_of_hit(&self) {
        if self.inner.guard.is_hit() {
            self.inner.lose(&self.ram, UNREADABLE);
        }
    }

    /// Takes pages out of memory if too few are free. How many.
    fn make_room(&self) -> io::Result<usize> {
        if self.inner.lost.get().is_some() || !lock(&self.inner.residency).is_short() {
            return Ok(0);
        }
        self.retire();
        let gone = self.expel()?;
        self.inner.rooms.fetch_add(1, Ordering::SeqCst);
        self.ram.log().wake();
        Ok(gone)
    }

    /// Takes the oldest pages away from processors. Their contents stay in place.
    fn retire(&self) {
        let mut residency = lock(&self.inner.residency);
        let pages = residency.retire(BATCH);
        let state = self.ram.log().lock();
        let mut taken = 0;
        for page in pages {
            if state.pins.contains_key(&page) {
                // Active again, as if a processor had asked for it.
                let _ = residency.want(page);
            } else {
                self.ram.mark_absent(page);
                taken += 1;
            }
        }
        if taken == 0 {
            return;
        }
        let (epoch, members) = self.ram.log().enter(state, Change::Absent, None);
        drop(residency);
        self.ram.log().interrupt(&members, epoch, None);
        self.ram.log().wait(epoch, None);
    }

    /// Takes the pages that have been on standby for longest out of memory. How many have gone.
    fn expel(&self) -> io::Result<usize> {
        let mut pages = lock(&self.inner.residency).expel(BATCH);
        pages.sort_unstable();
        let store = self.store()?;
        let (zero, mut rest): (Vec<_>, Vec<_>) =
            pages.into_iter().partition(|&page| store.is_zero(page));
        let zero = self.discard(store, &zero, &mut rest)?;
        rest.sort_unstable();
        let runs = store::runs(&self.ram, &rest);
        let mut gone = 0;
        runs.iter().try_for_each(|run| store.begin_to_write(run))?;
        for run in runs {
            store.finish_writing(&run)?;
            store.take_out(&run)?;
            let resident = store.resident(&run)?;
            let mut residency = lock(&self.inner.residency);
            for (page, stays) in run.zip(resident) {
                gone += usize::from(!stays);
                residency.left(page, if stays { Place::Active } else { Place::Out });
            }
        }
        self.inner.page_outs.fetch_add(gone as u64, Ordering::Relaxed);
        Ok(zero + gone)
    }

    /// Frees `pages`, which held zeros, unless a device writes to one now: those go to `rest`.
    fn discard(&self, store: Store, pages: &[usize], rest: &mut Vec<usize>) -> io::Result<usize> {
        let mut gone = 0;
        for run in store::runs(&self.ram, pages) {
            let mut residency = lock(&self.inner.residency);
            // A device that is about to write pins the page under this lock.
            let state = self.ram.log().lock();
            if run.clone().any(|page| state.pins.contains_key(&page) || !store.is_zero(page)) {
                rest.extend(run);
                continue;
            }
            store.discard(&run)?;
            gone += run.len();
            run.for_each(|page| residency.left(page, Place::Zero));
        }
        Ok(gone)
    }

    /// Counts pages that the host has brought for an access that nobody told of.
    fn look(&mut self) {
        let all = self.ram.attributes().len();
        let pages: Vec<_> = (self.next..all.min(self.next + LOOKED_AT)).collect();
        self.next = if self.next + LOOKED_AT >= all { 0 } else { self.next + LOOKED_AT };
        let Ok(store) = self.store() else { return };
        for run in store::runs(&self.ram, &pages) {
            let Ok(resident) = store.resident(&run) else { continue };
            let mut residency = lock(&self.inner.residency);
            run.zip(resident).filter(|&(_, here)| here).for_each(|(page, _)| residency.found(page));
        }
    }

    fn store(&self) -> io::Result<Store<'_>> {
        Store::of(&self.ram).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Inner {
    /// The machine's memory cannot be relied on any more.
    fn lose(&self, ram: &GuestRam, why: &str) {
        if self.lost.set(why.into()).is_ok() {
            (self.on_loss)(why);
            ram.log().wake();
        }
    }

    /// Brings `page` in, however long that takes; not at all once memory is lost or the pager gone.
    fn bring(&self, ram: &GuestRam, page: usize) {
        let done = || {
            let present = ram.attributes().get(page) & ABSENT == 0;
            present || self.lost.get().is_some() || self.stop.load(Ordering::SeqCst)
        };
        while !done() {
            let rooms = self.rooms.load(Ordering::SeqCst);
            self.ask(ram, page);
            let changed = |_: &_| done() || self.rooms.load(Ordering::SeqCst) != rooms;
            ram.log().wait_until(None, changed);
        }
    }

    /// Makes of ascending `pages` what they were in the beginning: zeros, absent and nowhere. Those
    /// that a device holds, or that are on their way, stay. What was done.
    pub(crate) fn give_up(&self, ram: &GuestRam, pages: &[usize]) -> io::Result<Vec<Range<usize>>> {
        let store = Store::of(ram).ok_or(io::ErrorKind::NotFound)?;
        let mut residency = lock(&self.residency);
        // A device that is about to write pins the page under this lock.
        let state = ram.log().lock();
        let free = |&page: &usize| !state.pins.contains_key(&page) && residency.can_forget(page);
        let pages: Vec<_> = pages.iter().copied().filter(free).collect();
        let runs = runs(ram, &pages);
        for run in &runs {
            store.discard(run)?;
            for page in run.clone() {
                residency.forget(page);
                ram.mark_absent(page);
            }
        }
        if runs.is_empty() {
            return Ok(runs);
        }
        // Not waited for: who still writes there finds a page of zeros, which is counted later.
        let (epoch, members) = ram.log().enter(state, Change::Absent, None);
        self.rooms.fetch_add(1, Ordering::SeqCst);
        drop(residency);
        ram.log().interrupt(&members, epoch, None);
        ram.log().wake();
        Ok(runs)
    }

    /// A processor needs `page`, and tries again if it is absent after this.
    fn ask(&self, ram: &GuestRam, page: usize) {
        let mut residency = lock(&self.residency);
        let want = residency.want(page);
        if residency.is_short() {
            self.guard.ring();
        }
        let source = match want {
            Want::Here | Want::Rescued => {
                self.rescued.fetch_add(u64::from(want == Want::Rescued), Ordering::Relaxed);
                return ram.mark_present(page);
            }
            Want::Later => return,
            Want::Come(source) => source,
        };
        drop(residency);
        let brought = match Store::of(ram) {
            Some(store) => store.bring(page, source),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = brought {
            return self
                .lose(ram, &format!("a page could not be brought from the swap file: {error}"));
        }
        self.page_ins.fetch_add(u64::from(source == residency::Source::File), Ordering::Relaxed);
        let mut residency = lock(&self.residency);
        residency.came(page);
        ram.mark_present(page);
    }
}

impl Shared {
    /// Whether a pager keeps the memory within a budget.
    fn pager(&self) -> Option<&Inner> {
        self.pager.get().map(|inner| &**inner)
    }
}

impl GuestRam {
    /// A processor needs the absent page of `gpa`: it is there after this, or must be asked for
    /// again once [`GuestRam::rooms`] has changed.
    pub(crate) fn ask_for(&self, gpa: Gpa) {
        if let (Some(pager), Some(page)) = (self.shared.pager(), self.page_number(gpa)) {
            pager.ask(self, page);
        }
    }

    /// How often the pager has made room.
    pub(crate) fn rooms(&self) -> u64 {
        self.shared.pager().map_or(0, |pager| pager.rooms.load(Ordering::SeqCst))
    }

    /// Why the memory cannot be relied on any more, if so: the swap file has failed.
    pub fn lost(&self) -> Option<&str> {
        let pager = self.shared.pager()?;
        let told = pager.lost.get().map(String::as_str);
        told.or_else(|| pager.guard.is_hit().then_some(UNREADABLE))
    }

    /// A device is about to touch pages `pages`, whether they are resident or not.
    pub(crate) fn note(&self, pages: impl Iterator<Item = usize>) {
        let Some(pager) = self.shared.pager() else { return };
        let mut residency = lock(&pager.residency);
        pages.for_each(|page| residency.found(page));
        if residency.is_short() {
            pager.guard.ring();
        }
    }

    /// Waits until no more is resident than may be. For those that go through much of the memory:
    /// not a processor's thread, nor one with a lock that a processor may want.
    pub fn settle(&self) {
        let Some(pager) = self.shared.pager() else { return };
        while self.lost().is_none() && !pager.stop.load(Ordering::SeqCst) {
            let rooms = self.rooms();
            if lock(&pager.residency).is_within() {
                return;
            }
            pager.guard.ring();
            self.log().wait_until(None, |_| self.rooms() != rooms || self.lost().is_some());
        }
    }

    fn mark_absent(&self, page: usize) {
        if self.attributes().set(page, ABSENT) & ABSENT == 0 {
            self.shared.absent.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn mark_present(&self, page: usize) {
        if self.attributes().clear(page, ABSENT) & ABSENT != 0 {
            self.shared.absent.fetch_sub(1, Ordering::SeqCst);
        }
        self.log().wake();
    }
}
