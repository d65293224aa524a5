//! Queues of page numbers from whose middle a page can be taken, without an allocation.

/// No page.
const NONE: u32 = u32::MAX;

/// Before and after each page, in the one queue that it may be in.
#[derive(Debug)]
pub(super) struct Links(Box<[(u32, u32)]>);

/// A queue.
#[derive(Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
    len: u64,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE, len: 0 }
    }
}

impl Links {
    /// Links of `pages` pages, at most 2^32 - 1.
    pub(super) fn new(pages: usize) -> Self {
        Self(vec![(NONE, NONE); pages].into())
    }
}

impl List {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds `page`, which is in no queue, at the end.
    pub(super) fn push(&mut self, links: &mut Links, page: usize) {
        let last = std::mem::replace(&mut self.last, page as u32);
        links.0[page] = (last, NONE);
        match last {
            NONE => self.first = page as u32,
            last => links.0[last as usize].1 = page as u32,
        }
        self.len += 1;
    }

    /// Takes the first.
    pub(super) fn pop(&mut self, links: &mut Links) -> Option<usize> {
        let first = (self.first != NONE).then_some(self.first as usize)?;
        self.remove(links, first);
        Some(first)
    }

    /// Takes `page`, which is in this queue.
    pub(super) fn remove(&mut self, links: &mut Links, page: usize) {
        let (before, after) = std::mem::replace(&mut links.0[page], (NONE, NONE));
        match before {
            NONE => self.first = after,
            before => links.0[before as usize].1 = after,
        }
        match after {
            NONE => self.last = before,
            after => links.0[after as usize].0 = before,
        }
        self.len -= 1;
    }
}
