//! Pages that are to be brought in while nobody waits on his own thread: a queue, who is told of
//! each, and the threads that serve it.
//!
//! Lock order: the lock here is a leaf. Whoever is told is called without it.

use super::Inner;
use crate::GuestRam;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use sync::lock;
use x86::addr::Gpa;

/// Told by a [`Fetcher`]'s thread that the page at this address has come, or that memory is lost.
pub type Arrival = Arc<dyn Fn(Gpa) + Send + Sync>;

/// A thread that brings pages in, to be.
pub struct Fetcher {
    pub(super) ram: GuestRam,
    pub(super) inner: Arc<Inner>,
}

#[derive(Default)]
struct Queue {
    /// In the order of their requests; those that are being brought are here no more.
    pages: VecDeque<usize>,
    told: HashMap<usize, Vec<Arrival>>,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Requests {
    queue: Mutex<Queue>,
    posted: Condvar,
}

impl Requests {
    /// Has `page` brought in, and `arrival` told, once for all its requests until then.
    fn post(&self, page: usize, arrival: &Arrival) {
        let mut queue = lock(&self.queue);
        if !queue.told.contains_key(&page) {
            queue.pages.push_back(page);
        }
        let told = queue.told.entry(page).or_default();
        if !told.iter().any(|other| Arc::ptr_eq(other, arrival)) {
            told.push(Arc::clone(arrival));
        }
        drop(queue);
        self.posted.notify_one();
    }

    /// Waits for a request. `None`: there will be none.
    fn next(&self) -> Option<usize> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(page) = queue.pages.pop_front() {
                return Some(page);
            }
            queue = sync::wait(&self.posted, queue);
        }
    }

    /// Who is to be told of `page`, which has come.
    fn finish(&self, page: usize) -> Vec<Arrival> {
        lock(&self.queue).told.remove(&page).unwrap_or_default()
    }

    /// Ends each [`Fetcher`].
    pub(super) fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        queue.told.clear();
        drop(queue);
        self.posted.notify_all();
    }
}

impl Fetcher {
    /// Brings in what is asked for, until the [`super::Pager`] is dropped: the body of a thread of
    /// its own, which is no processor's.
    pub fn run(self) {
        let Self { ram, inner } = self;
        while let Some(page) = inner.requests.next() {
            inner.bring(&ram, page);
            let told = inner.requests.finish(page);
            if let Some(gpa) = ram.page_address(page) {
                told.iter().for_each(|arrival| arrival(gpa));
            }
        }
    }
}

impl GuestRam {
    /// Brings the absent page of `gpa` in if that takes no time: it is resident still, or holds
    /// zeros. False: it has to be waited for, or requested.
    pub fn bring_at_once(&self, gpa: Gpa) -> bool {
        let (Some(pager), Some(page)) = (self.shared.pager(), self.page_number(gpa)) else {
            return false;
        };
        let at_once = lock(&pager.residency).comes_at_once(page);
        if at_once {
            pager.ask(self, page);
        }
        at_once
    }

    /// Has the absent page of `gpa` brought in by another thread, which then tells `arrival`. It
    /// may be absent again by that time. False: it is there, or has no pager.
    pub fn request(&self, gpa: Gpa, arrival: &Arrival) -> bool {
        let (Some(pager), Some(page)) = (self.shared.pager(), self.page_number(gpa)) else {
            return false;
        };
        if !self.is_absent(gpa) {
            return false;
        }
        pager.requests.post(page, arrival);
        true
    }

    /// Whether a pager keeps the memory within a budget.
    #[inline]
    pub fn has_pager(&self) -> bool {
        self.shared.pager.get().is_some()
    }
}
