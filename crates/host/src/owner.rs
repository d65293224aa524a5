//! For whom a thread works: who is told if it panics.
//!
//! A panic is a defect of gemello's. In a process of several machines it is the end of the machine
//! that met it, not of the others. So what a thread does for a machine, it does in the machine's
//! name: a panic ends there, and the machine is told. Threads that do nothing else have their
//! processor time counted as the machine's ([`ServiceTime`]).

use crate::service_time::{Counted, ServiceTime};
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Who is told of a panic. Clones are the same one.
#[derive(Clone)]
pub struct Owner {
    tell: Arc<dyn Fn(&str) + Send + Sync>,
    service: ServiceTime,
}

thread_local! {
    static CURRENT: RefCell<Option<Owner>> = const { RefCell::new(None) };
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").finish_non_exhaustive()
    }
}

impl Owner {
    /// One that `tell` tells what a panic said. It has to see to it that what the work has left
    /// half done is not used any more.
    /// `service` is told of the threads that serve it.
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static, service: ServiceTime) -> Self {
        Self { tell: Arc::new(tell), service }
    }

    /// Counts the calling thread's processor time as this one's, as long as the result lives.
    pub fn count_thread(&self) -> Counted {
        self.service.count()
    }

    /// In whose name this thread works now: for a thread that it starts.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// Does `work` in this one's name. `None`: it panicked, and the owner has been told.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let before = CURRENT.replace(Some(self.clone()));
        let result = catch_unwind(AssertUnwindSafe(work));
        CURRENT.set(before);
        result.map_err(|panic| (self.tell)(said(&*panic))).ok()
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_panic_is_told_to_the_innermost_owner_alone() {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let owner = |name: &'static str| {
            let told = Arc::clone(&told);
            let tell = move |why: &str| told.lock().expect("sound").push(format!("{name}: {why}"));
            Owner::new(tell, ServiceTime::default())
        };
        let (outer, inner) = (owner("outer"), owner("inner"));
        assert!(Owner::current().is_none());
        let result = outer.run(|| {
            assert_eq!(inner.run(|| panic!("number {}", 1)), None::<()>);
            assert!(Owner::current().is_some());
            7
        });
        assert_eq!(result, Some(7));
        assert_eq!(outer.run(|| panic!("two")), None::<()>);
        assert!(Owner::current().is_none());
        assert_eq!(*told.lock().expect("sound"), ["inner: number 1", "outer: two"]);
    }
}
