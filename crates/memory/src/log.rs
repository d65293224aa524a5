//! The change log: what happened to memory that processors hold something of, until each has taken
//! note.
//!
//! A processor keeps what it derives from memory: decoded code, translations, host addresses in its
//! TLB. Whoever takes the ground from under that posts a [`Change`]; posting moves the log's
//! *epoch*. Each processor has a [`crate::Reader`]. It compares epochs wherever it may go on with
//! what it holds (one load), drops what is concerned ([`crate::Reader::catch_up`]), and thereby
//! *acknowledges* all epochs up to that one. Whoever must be sure waits until every processor has
//! acknowledged, or does not run.
//!
//! # The protocol
//! - A reader is *active* while its processor runs guest code. [`crate::Reader::activate`] sets the
//!   flag and then looks at the epoch; a poster moves the epoch and then looks at the flag. One of
//!   them sees the other (both are sequentially consistent): either the poster knows that it must
//!   wait, or the processor catches up before it begins.
//! - A processor acknowledges after it has dropped, and its stores through what it dropped precede
//!   that in its own order; x86 keeps that order for everybody. So who has seen the acknowledgement
//!   sees the stores.
//! - A poster interrupts the active readers (`notify`), so that code that does not look is made to.
//! - Who waits and is a reader itself catches up meanwhile: two that wait for each other do not
//!   deadlock.
//! - Who is no processor must not wait while it holds a lock that a processor may want.
//!
//! The log remembers [`REMEMBERED`] changes. A reader that is further behind is told
//! [`Change::Everything`].
//!
//! Any thread may post. The lock is a leaf: no callback is called while it is held. Nothing on the
//! instruction path takes it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use x86::addr::Gpa;

/// Changes that are remembered for processors that have not caught up yet.
pub const REMEMBERED: usize = 4096;
/// Changes that a reader takes out of the log at a time.
const BATCH: usize = 32;

/// Something that happened to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes changed on pages that hold code: what was decoded from them is stale.
    Wrote {
        /// Guest-physical address of the first.
        gpa: Gpa,
        /// How many; not 0.
        len: u64,
    },
    /// The page at this address holds code from now on: nobody may write to it unnoticed.
    Code {
        /// Guest-physical address of the page.
        page: Gpa,
    },
    /// Pages are taken away: nobody may keep a host address in them, or anything decoded from them.
    Revoke {
        /// Guest-physical address of the first.
        gpa: Gpa,
        /// Bytes.
        len: u64,
    },
    /// Pages were marked absent: nobody may keep a host address in an absent page. Their contents
    /// stay as they are, and so does what was decoded from them.
    Absent,
    /// The next write to each page must be noticed: nobody may write unnoticed.
    TrackDirty,
    /// The log does not reach back to what the reader has seen last: all of the above, everywhere.
    Everything,
}

/// Interrupts a processor, so that it looks at the log. Called from any thread, with no lock of
/// this crate held.
pub type Notify = Box<dyn Fn() + Send + Sync>;

/// What others see of a reader.
pub(crate) struct Member {
    id: u32,
    active: AtomicBool,
    /// The last epoch whose change it has taken note of.
    acknowledged: AtomicU64,
    notify: Notify,
}

impl Member {
    /// Whether somebody who waits for `epoch` must wait for this reader.
    fn holds_up(&self, epoch: u64) -> bool {
        self.active.load(Ordering::SeqCst) && self.acknowledged.load(Ordering::SeqCst) < epoch
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A change, and which reader posted it: to that one it is no news.
#[derive(Clone, Copy, Debug)]
struct Posted {
    change: Change,
    by: Option<u32>,
}

/// What the lock protects.
#[derive(Debug, Default)]
pub(crate) struct State {
    recent: VecDeque<Posted>,
    members: Vec<Arc<Member>>,
    /// The next reader's.
    id: u32,
    /// How often each page is pinned, by page number within RAM.
    pub(crate) pins: HashMap<usize, u32>,
}

impl State {
    /// Whether no reader but the one with this number holds anything.
    pub(crate) fn is_alone(&self, id: u32) -> bool {
        self.members.iter().all(|member| member.id == id)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ChangeLog {
    /// Changes posted since the machine was made. Moved under the lock, read without it.
    epoch: AtomicU64,
    members: AtomicU32,
    /// See [`crate::Follower`].
    followers: AtomicU32,
    /// Threads that wait for `progress`.
    waiting: AtomicU32,
    state: Mutex<State>,
    /// A reader has acknowledged or left, something was posted, or an absent page has come.
    progress: Condvar,
}

impl ChangeLog {
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// How many readers there are.
    #[inline]
    pub(crate) fn members(&self) -> u32 {
        self.members.load(Ordering::Relaxed)
    }

    /// Whether anybody but a reader of its own wants to know of a change.
    #[inline]
    pub(crate) fn has_audience(&self) -> bool {
        self.members() > 1 || self.followers.load(Ordering::Relaxed) != 0
    }

    /// One more follower, which has seen everything so far. Returns the epoch.
    pub(crate) fn follow(&self) -> u64 {
        let _state = self.lock();
        self.followers.fetch_add(1, Ordering::Relaxed);
        self.epoch()
    }

    /// One follower less.
    pub(crate) fn unfollow(&self) {
        let _state = self.lock();
        self.followers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// A new reader, not active, that has seen everything so far.
    pub(crate) fn join(&self, notify: Notify) -> Arc<Member> {
        let mut state = self.lock();
        let id = state.id;
        state.id += 1;
        let member = Arc::new(Member {
            id,
            active: AtomicBool::new(false),
            acknowledged: AtomicU64::new(self.epoch()),
            notify,
        });
        state.members.push(member.clone());
        self.members.store(state.members.len() as u32, Ordering::Relaxed);
        member
    }

    /// The reader is gone, and whatever it held.
    pub(crate) fn part(&self, member: &Member) {
        let mut state = self.lock();
        state.members.retain(|other| other.id != member.id);
        self.members.store(state.members.len() as u32, Ordering::Relaxed);
        drop(state);
        self.progress.notify_all();
    }

    /// Posts `change` by reader `by` and interrupts the others. Returns its epoch.
    pub(crate) fn post(&self, change: Change, by: Option<&Member>) -> u64 {
        let (epoch, members) = self.enter(self.lock(), change, by);
        self.interrupt(&members, epoch, by);
        epoch
    }

    /// The part of [`ChangeLog::post`] that is done under the lock; [`ChangeLog::interrupt`] is the
    /// rest.
    pub(crate) fn enter(
        &self,
        mut state: MutexGuard<'_, State>,
        change: Change,
        by: Option<&Member>,
    ) -> (u64, Vec<Arc<Member>>) {
        if state.recent.len() == REMEMBERED {
            state.recent.pop_front();
        }
        state.recent.push_back(Posted { change, by: by.map(|member| member.id) });
        let before = self.epoch.fetch_add(1, Ordering::SeqCst);
        let epoch = before + 1;
        if let Some(member) = by {
            // Who has seen everything else has seen its own.
            let _ = member.acknowledged.compare_exchange(
                before,
                epoch,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
        }
        let others = by.is_none_or(|by| !state.is_alone(by.id));
        (epoch, if others { state.members.clone() } else { Vec::new() })
    }

    /// Interrupts those of `members` that run and have not acknowledged `epoch`, and wakes who
    /// waits, to catch up.
    pub(crate) fn interrupt(&self, members: &[Arc<Member>], epoch: u64, by: Option<&Member>) {
        let other = |m: &&Arc<Member>| by.is_none_or(|by| by.id != m.id);
        members.iter().filter(other).filter(|m| m.holds_up(epoch)).for_each(|m| (m.notify)());
        self.wake();
    }

    /// Wakes those that wait for progress.
    pub(crate) fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) != 0 {
            // Who has looked, and is about to sleep, holds the lock.
            drop(self.lock());
            self.progress.notify_all();
        }
    }

    /// Waits until `done`. False: the reader `own` must catch up first.
    pub(crate) fn wait_until(
        &self,
        own: Option<&Member>,
        mut done: impl FnMut(&State) -> bool,
    ) -> bool {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut state = self.lock();
        let done = loop {
            if done(&state) {
                break true;
            }
            if own.is_some_and(|own| own.acknowledged() != self.epoch()) {
                break false;
            }
            state = sync::wait(&self.progress, state);
        };
        drop(state);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        done
    }

    /// Waits until every reader but `own` has acknowledged `epoch` or is not active. False: `own`
    /// must catch up first.
    pub(crate) fn wait(&self, epoch: u64, own: Option<&Member>) -> bool {
        let other = |m: &Member| own.is_none_or(|own| own.id != m.id);
        self.wait_until(own, |state| !state.members.iter().any(|m| other(m) && m.holds_up(epoch)))
    }

    /// `member` runs guest code from now on. It has to catch up if it is behind.
    pub(crate) fn activate(&self, member: &Member) {
        member.active.store(true, Ordering::SeqCst);
    }

    /// `member` runs no guest code any more, and counts as caught up.
    pub(crate) fn deactivate(&self, member: &Member) {
        member.active.store(false, Ordering::SeqCst);
        self.wake();
    }

    /// `member` has dropped all that changes up to `epoch` concern.
    pub(crate) fn acknowledge(&self, member: &Member, epoch: u64) {
        member.acknowledged.store(epoch, Ordering::SeqCst);
        self.wake();
    }

    /// Calls `apply` with every change after epoch `seen`, oldest first, but for those that reader
    /// `own` posted. Returns the epoch up to which that is.
    pub(crate) fn replay(
        &self,
        own: Option<u32>,
        mut seen: u64,
        mut apply: impl FnMut(Change),
    ) -> u64 {
        while seen != self.epoch() {
            match self.next(own, seen) {
                Some(batch) => {
                    batch.list.into_iter().flatten().for_each(&mut apply);
                    seen = batch.until;
                }
                None => {
                    seen = self.epoch();
                    apply(Change::Everything);
                }
            }
        }
        seen
    }

    /// The next changes after epoch `seen`, at most [`BATCH`], without those that reader `own`
    /// posted; and the epoch of the last. `None`: the log does not reach back so far.
    fn next(&self, own: Option<u32>, seen: u64) -> Option<Batch> {
        let state = self.lock();
        let missed = usize::try_from(self.epoch().wrapping_sub(seen)).ok()?;
        let first = state.recent.len().checked_sub(missed)?;
        let count = missed.min(BATCH);
        let mut batch = Batch { list: [None; BATCH], until: seen + count as u64 };
        for (place, posted) in batch.list.iter_mut().zip(state.recent.iter().skip(first)) {
            *place = (own.is_none() || posted.by != own).then_some(posted.change);
        }
        Some(batch)
    }
}

/// Some changes, in the order they were posted.
struct Batch {
    list: [Option<Change>; BATCH],
    /// The epoch of the last.
    until: u64,
}

impl Member {
    pub(crate) const fn id(&self) -> u32 {
        self.id
    }
}
