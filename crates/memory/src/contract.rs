//! What those who share a machine's memory do to it behind its processors' backs: devices write, a
//! pager takes pages away, a snapshot asks what has changed; and what keeps a page in its place.

use crate::log::State;
use crate::ram::PAGE;
use crate::{ABSENT, CODE, Change, DIRTY, Error, GuestRam, PINNED, Page, TRACK_DIRTY};
use std::ops::Range;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use x86::addr::Gpa;

impl GuestRam {
    /// Whoever is no processor (a device, a loader, a debugger) has written `len` bytes from `gpa`.
    /// To be called after the write and before the guest is told of it (used ring, interrupt).
    ///
    /// Costs an atomic addition and a look at each page, unless a page holds code.
    pub fn wrote(&self, gpa: Gpa, len: u64) {
        if len == 0 {
            return;
        }
        // Also the fence between the write and the look: a processor sets the attribute and then
        // reads the page.
        self.shared.writes.fetch_add(1, Ordering::SeqCst);
        self.told(gpa, len);
    }

    /// As [`GuestRam::wrote`], of what the page walk has changed.
    pub(crate) fn told(&self, gpa: Gpa, len: u64) {
        let mut code = false;
        for n in self.pages(gpa, len) {
            let attributes = self.attributes().get(n);
            code |= attributes & CODE != 0;
            if attributes & TRACK_DIRTY != 0 {
                self.attributes().touch(n);
            }
        }
        if code {
            self.log().post(Change::Wrote { gpa, len }, None);
        }
    }

    /// How often devices have written ([`GuestRam::wrote`]): a number that only grows.
    #[inline]
    pub fn device_writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Acquire)
    }

    /// Whether any processor holds code on the pages of `len` bytes at `gpa`.
    pub(crate) fn holds_code(&self, gpa: Gpa, len: u64) -> bool {
        self.pages(gpa, len).any(|n| self.attributes().get(n) & CODE != 0)
    }

    /// The numbers of the pages of `len` bytes at `gpa` that are RAM.
    pub(crate) fn pages(&self, gpa: Gpa, len: u64) -> impl Iterator<Item = usize> + '_ {
        let (first, last) = (gpa.0 / PAGE, gpa.saturating_add(len.max(1) - 1).0 / PAGE);
        self.regions().iter().flat_map(move |region| {
            let (start, end) = (region.gpa.0 / PAGE, (region.gpa.0 + region.len) / PAGE);
            let (from, to) = (first.max(start), (last + 1).min(end));
            (from..to).filter_map(|page| self.page_number(Gpa(page * PAGE)))
        })
    }

    /// As [`GuestRam::pages`], all of which must be RAM.
    fn all_pages(&self, gpa: Gpa, len: u64) -> Result<Vec<usize>, Error> {
        let outside = Error::OutsideRam { gpa, len };
        let Some(last) = gpa.checked_add(len.max(1) - 1) else { return Err(outside) };
        let pages: Vec<_> = self.pages(gpa, len).collect();
        let wanted = last.0 / PAGE - gpa.0 / PAGE + 1;
        if pages.len() as u64 == wanted { Ok(pages) } else { Err(outside) }
    }

    fn first_with(&self, pages: &[usize], attribute: u8) -> Option<Gpa> {
        let found = pages.iter().find(|&&n| self.attributes().get(n) & attribute != 0);
        found.and_then(|&n| self.page_address(n))
    }

    /// Takes all pages of `len` bytes at `gpa` away from every processor. When it returns none
    /// touches them, and none will until [`GuestRam::restore`]: one that needs one of them waits.
    ///
    /// Not to be called by a processor's thread, nor with a lock held that one may want.
    ///
    /// # Errors
    /// One of them is pinned, or no RAM; nothing was taken.
    pub fn revoke(&self, gpa: Gpa, len: u64) -> Result<(), Error> {
        let pages = self.all_pages(gpa, len)?;
        let state = self.log().lock();
        if let Some(gpa) = self.first_with(&pages, PINNED) {
            return Err(Error::Pinned { gpa });
        }
        let taken =
            pages.iter().filter(|&&n| self.attributes().set(n, ABSENT) & ABSENT == 0).count();
        self.shared.absent.fetch_add(taken as u64, Ordering::SeqCst);
        let (epoch, members) = self.log().enter(state, Change::Revoke { gpa, len }, None);
        self.log().interrupt(&members, epoch, None);
        self.log().wait(epoch, None);
        Ok(())
    }

    /// The contents of all pages of `len` bytes at `gpa` are in their place again.
    ///
    /// # Errors
    /// Some are no RAM; nothing was changed.
    pub fn restore(&self, gpa: Gpa, len: u64) -> Result<(), Error> {
        let pages = self.all_pages(gpa, len)?;
        let back =
            pages.iter().filter(|&&n| self.attributes().clear(n, ABSENT) & ABSENT != 0).count();
        self.shared.absent.fetch_sub(back as u64, Ordering::SeqCst);
        self.log().wake();
        Ok(())
    }

    /// Whether any page is absent.
    #[inline]
    pub fn has_absent(&self) -> bool {
        self.shared.absent.load(Ordering::SeqCst) != 0
    }

    /// Whether the page of `gpa` is absent.
    #[inline]
    pub fn is_absent(&self, gpa: Gpa) -> bool {
        self.has_absent()
            && self.page_number(gpa).is_some_and(|n| self.attributes().get(n) & ABSENT != 0)
    }

    /// Keeps all pages of `len` bytes at `gpa` where they are until what it returns is dropped: for
    /// I/O that is under way.
    ///
    /// # Errors
    /// One of them is absent, or no RAM; nothing was pinned.
    pub fn pin(&self, gpa: Gpa, len: u64) -> Result<Pin, Error> {
        let pages = self.all_pages(gpa, len)?;
        let state = self.log().lock();
        if let Some(gpa) = self.first_with(&pages, ABSENT) {
            return Err(Error::Absent { gpa });
        }
        Ok(self.pinned(state, pages))
    }

    /// As [`GuestRam::pin`], of pages that may be absent: for those that reach them by the host's
    /// own mapping, and do not wait for the pager.
    ///
    /// # Errors
    /// One of them is no RAM; nothing was pinned.
    pub fn hold(&self, gpa: Gpa, len: u64) -> Result<Pin, Error> {
        let pages = self.all_pages(gpa, len)?;
        self.note(pages.iter().copied());
        Ok(self.pinned(self.log().lock(), pages))
    }

    fn pinned(&self, mut state: MutexGuard<'_, State>, pages: Vec<usize>) -> Pin {
        for &n in &pages {
            *state.pins.entry(n).or_default() += 1;
            self.attributes().set(n, PINNED);
        }
        drop(state);
        Pin { ram: self.clone(), pages }
    }

    /// Notes from now on which pages are written to, by processors and by devices.
    ///
    /// Not to be called by a processor's thread, nor with a lock held that one may want.
    pub fn track_dirty(&self) {
        for n in 0..self.attributes().len() {
            self.attributes().set(n, TRACK_DIRTY);
            self.attributes().clear(n, DIRTY);
        }
        self.take_rights();
    }

    /// Does not note it any more.
    pub fn stop_tracking(&self) {
        (0..self.attributes().len()).for_each(|n| {
            self.attributes().clear(n, TRACK_DIRTY | DIRTY);
        });
    }

    /// The pages that were written to since [`GuestRam::track_dirty`] or the last call, as
    /// ascending ranges of guest-physical addresses. Writes to them that come after this returns
    /// make them dirty again.
    ///
    /// Not to be called by a processor's thread, nor with a lock held that one may want.
    pub fn take_dirty(&self) -> Vec<Range<Gpa>> {
        let mut dirty: Vec<Range<Gpa>> = Vec::new();
        for n in (0..self.attributes().len()).filter(|&n| self.attributes().take_dirty(n)) {
            let Some(gpa) = self.page_address(n) else { continue };
            match dirty.last_mut().filter(|last| last.end == gpa) {
                Some(last) => last.end = gpa.wrapping_add(PAGE),
                None => dirty.push(gpa..gpa.wrapping_add(PAGE)),
            }
        }
        if !dirty.is_empty() {
            self.take_rights();
        }
        dirty
    }

    /// Makes sure that no processor writes to a tracked page unnoticed.
    fn take_rights(&self) {
        let epoch = self.log().post(Change::TrackDirty, None);
        self.log().wait(epoch, None);
    }

    /// A processor is about to enter `page` into its TLB for writing.
    #[inline]
    pub fn touch(&self, page: &Page) {
        if page.attributes & TRACK_DIRTY != 0 {
            self.attributes().touch(page.number);
        }
    }
}

/// Pages that stay where they are as long as this lives.
#[derive(Debug)]
pub struct Pin {
    ram: GuestRam,
    pages: Vec<usize>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.ram.log().lock();
        for n in &self.pages {
            let Some(count) = state.pins.get_mut(n) else { continue };
            *count -= 1;
            if *count == 0 {
                state.pins.remove(n);
                self.ram.attributes().clear(*n, PINNED);
            }
        }
    }
}
