//! One processor's side of the change log, and of the attributes that it sets.

use crate::log::{Change, ChangeLog, Member, Notify, State};
use crate::{ABSENT, GuestRam};
use std::sync::Arc;
use x86::addr::Gpa;

/// What a processor reads the change log by. It is one thread's at a time; dropping it leaves the
/// log.
///
/// Whoever drops it has released the code that the processor held ([`Reader::release_code`]).
#[derive(Debug)]
pub struct Reader {
    ram: GuestRam,
    member: Arc<Member>,
    /// A copy of what the member has acknowledged.
    seen: u64,
}

impl GuestRam {
    /// A reader for a new processor, not active. `notify` interrupts the processor, so that it
    /// catches up soon.
    pub fn reader(&self, notify: Notify) -> Reader {
        let member = self.log().join(notify);
        Reader { ram: self.clone(), seen: member.acknowledged(), member }
    }
}

impl Reader {
    fn log(&self) -> &ChangeLog {
        self.ram.log()
    }

    /// The processor is about to run guest code. It must catch up before, if it
    /// [`Reader::is_behind`].
    pub fn activate(&self) {
        self.log().activate(&self.member);
    }

    /// The processor does not run guest code until [`Reader::activate`].
    pub fn deactivate(&self) {
        self.log().deactivate(&self.member);
    }

    /// Whether something was posted that the processor has not taken note of.
    #[inline(always)]
    pub fn is_behind(&self) -> bool {
        self.log().epoch() != self.seen
    }

    /// The epoch up to which the processor has taken note.
    #[inline(always)]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Calls `apply` with every change that others have posted since the last time, oldest first,
    /// and acknowledges them. `apply` drops what the change concerns; it must not post.
    pub fn catch_up(&mut self, apply: impl FnMut(Change)) {
        self.seen = self.log().replay(Some(self.member.id()), self.seen, apply);
        self.log().acknowledge(&self.member, self.seen);
    }

    /// Waits until every other processor has acknowledged `epoch` or does not run, and catches up
    /// meanwhile.
    pub fn wait(&mut self, epoch: u64, mut apply: impl FnMut(Change)) {
        while !self.log().wait(epoch, Some(&self.member)) {
            self.catch_up(&mut apply);
        }
    }

    /// Whether no other processor shares the memory.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.log().members() == 1
    }

    fn post(&mut self, change: Change) {
        self.log().post(change, Some(&self.member));
        self.seen = self.member.acknowledged();
    }

    /// This processor has changed `len` bytes at `gpa`, and has dropped what it held of them
    /// itself.
    pub fn wrote(&mut self, gpa: Gpa, len: u64) {
        if self.log().has_audience() && self.ram.holds_code(gpa, len) {
            self.post(Change::Wrote { gpa, len });
        }
    }

    /// This processor is about to decode code on the page of `gpa`, of which it holds none. It has
    /// no right to write there any more. Returns the epoch that has to be waited for before the
    /// page is read, if any.
    pub fn hold_code(&mut self, gpa: Gpa) -> Option<u64> {
        let n = self.ram.page_number(gpa)?;
        let log = self.ram.log();
        let state = log.lock();
        let first = self.ram.attributes().hold_code(n);
        if state.is_alone(self.member.id()) {
            return None;
        }
        if !first {
            // Who was the first may not have waited to the end yet.
            return Some(log.epoch());
        }
        let change = Change::Code { page: gpa.page() };
        let (epoch, members) = log.enter(state, change, Some(&self.member));
        log.interrupt(&members, epoch, Some(&self.member));
        self.seen = self.member.acknowledged();
        Some(epoch)
    }

    /// This processor holds no code any more on the pages of `gpas`, each of which it held.
    pub fn release_code(&mut self, gpas: impl IntoIterator<Item = Gpa>) {
        let _state = self.log().lock();
        for n in gpas.into_iter().filter_map(|gpa| self.ram.page_number(gpa)) {
            self.ram.attributes().release_code(n);
        }
    }

    /// Waits until the page of `gpa` is not absent, and catches up meanwhile. It may be taken again
    /// at any time after. It is absent still if memory is lost ([`GuestRam::lost`]).
    #[cold]
    pub fn await_page(&mut self, gpa: Gpa, mut apply: impl FnMut(Change)) {
        let Some(n) = self.ram.page_number(gpa) else { return };
        let present = |ram: &GuestRam| ram.attributes().get(n) & ABSENT == 0;
        while !present(&self.ram) && self.ram.lost().is_none() {
            let rooms = self.ram.rooms();
            self.ram.ask_for(gpa);
            let changed = |_: &State| {
                present(&self.ram) || self.ram.rooms() != rooms || self.ram.lost().is_some()
            };
            if !self.log().wait_until(Some(&self.member), changed) {
                self.catch_up(&mut apply);
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.log().part(&self.member);
    }
}
