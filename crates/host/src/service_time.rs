//! Processor time of the threads that serve one machine beside its processors: they are the host's,
//! but work for the guest.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The threads that serve a machine, and what they have used. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct ServiceTime(Arc<Mutex<Threads>>);

#[derive(Debug, Default)]
struct Threads {
    /// Their clocks.
    alive: Vec<libc::clockid_t>,
    /// What those have used that have ended.
    ended: Duration,
}

/// The calling thread's time counts as long as this lives.
#[derive(Debug)]
pub struct Counted {
    time: ServiceTime,
    clock: Option<libc::clockid_t>,
    /// A clock is good in its own thread's life only, so this stays there.
    _here: std::marker::PhantomData<*const ()>,
}

impl ServiceTime {
    /// Counts the calling thread from now on, with what it has used already.
    pub fn count(&self) -> Counted {
        let clock = own_clock();
        self.threads(|threads| threads.alive.extend(clock));
        Counted { time: self.clone(), clock, _here: std::marker::PhantomData }
    }

    /// What all its threads have used up to now.
    pub fn total(&self) -> Duration {
        self.threads(|threads| {
            threads.alive.iter().fold(threads.ended, |sum, clock| sum + read(*clock))
        })
    }

    fn threads<T>(&self, work: impl FnOnce(&mut Threads) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(clock) = self.clock else { return };
        self.time.threads(|threads| {
            threads.alive.retain(|other| *other != clock);
            threads.ended += read(clock);
        });
    }
}

/// The calling thread's processor-time clock, which other threads can read, too
/// (pthread_getcpuclockid(3)).
fn own_clock() -> Option<libc::clockid_t> {
    let mut clock = MaybeUninit::uninit();
    // SAFETY: the calling thread lives, and `clock` has room for what is written; it is written if
    // the call succeeds. Both hold by the lines around this one.
    unsafe {
        let error = libc::pthread_getcpuclockid(libc::pthread_self(), clock.as_mut_ptr());
        (error == 0).then(|| clock.assume_init())
    }
}

/// What the clock says; nothing if its thread has ended.
fn read(clock: libc::clockid_t) -> Duration {
    let mut time = MaybeUninit::uninit();
    // SAFETY: `time` has room for what is written, and is written if the call succeeds. Any clock's
    // number may be asked for.
    let time = unsafe {
        let failed = libc::clock_gettime(clock, time.as_mut_ptr()) != 0;
        if failed { None } else { Some(time.assume_init()) }
    };
    time.map_or(Duration::ZERO, |time: libc::timespec| {
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    fn use_up(time: Duration) {
        let clock = own_clock().expect("a clock");
        let began = read(clock);
        while read(clock) < began + time {}
    }

    #[test]
    fn threads_count_while_they_live_and_afterwards() {
        const SOME: Duration = Duration::from_millis(20);
        let time = ServiceTime::default();
        use_up(SOME);
        assert_eq!(time.total(), Duration::ZERO, "who is not counted");
        let (used, told) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let counted = time.clone();
        let thread = thread::spawn(move || {
            let _counted = counted.count();
            use_up(SOME);
            used.send(()).expect("it listens");
            let _ = wait.recv();
        });
        told.recv().expect("it has used some");
        let alive = time.total();
        assert!(alive >= SOME, "{alive:?}");
        drop(go_on);
        thread.join().expect("no panic");
        assert!(time.total() >= alive);
        assert_eq!(time.total(), time.total(), "it has ended");
    }
}
