//! Who derives something from code for several processors: it follows the change log, and holds
//! code beside them.

use crate::GuestRam;
use crate::log::{Change, ChangeLog};
use x86::addr::Gpa;

/// A cursor in the change log that nobody waits for. Whoever uses what is derived has it catch up
/// first, and is a reader itself.
///
/// It is one thread's at a time. Whoever drops it has released the code that it held.
#[derive(Debug)]
pub struct Follower {
    ram: GuestRam,
    seen: u64,
}

impl GuestRam {
    /// A follower that has seen everything so far. From now on a single processor posts its writes
    /// to code, too.
    pub fn follower(&self) -> Follower {
        Follower { seen: self.log().follow(), ram: self.clone() }
    }
}

impl Follower {
    fn log(&self) -> &ChangeLog {
        self.ram.log()
    }

    /// The epoch up to which it has taken note.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Calls `apply` with every change that was posted since the last time, oldest first. `apply`
    /// must not post.
    pub fn catch_up(&mut self, apply: impl FnMut(Change)) {
        self.seen = self.log().replay(None, self.seen, apply);
    }

    /// Holds code of the page of `gpa`, too, which some reader holds.
    pub fn hold_code(&self, gpa: Gpa) {
        let _state = self.log().lock();
        if let Some(n) = self.ram.page_number(gpa) {
            self.ram.attributes().hold_code(n);
        }
    }

    /// Holds no code any more on the page of `gpa`, of which it held some.
    pub fn release_code(&self, gpa: Gpa) {
        let _state = self.log().lock();
        if let Some(n) = self.ram.page_number(gpa) {
            self.ram.attributes().release_code(n);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.log().unfollow();
    }
}
