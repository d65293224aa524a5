//! Tells a processor that its thread was away in the midst of guest code: the process was stopped,
//! or the host had no time for it.
//!
//! Each thread that runs processors has a timer that sends it a signal each second. After a stop
//! the signal is there before the thread goes on, and the timer knows how many it had no room to
//! send (timer_getoverrun(2)). So a guest can be told before it looks at its clock again, and takes
//! itself for locked up. The timer of the guest's own comes too late for that, if the guest was
//! stopped while it handled it.
#![allow(unsafe_code)] // timers of the host's; see docs/UNSAFE.md

use std::cell::Cell;
use std::ptr;

/// Between two signals. One that is missed tells of an absence of more than that.
const PERIOD: libc::timespec = libc::timespec { tv_sec: 1, tv_nsec: 0 };

/// `si_code` of a timer's signal.
const SI_TIMER: i32 = -2;

thread_local! {
    /// This thread's timer, for its handler; null: there is none.
    static TIMER: Cell<libc::timer_t> = const { Cell::new(ptr::null_mut()) };
    static OWNER: Owner = const { Owner };
    static TRIED: Cell<bool> = const { Cell::new(false) };
}

/// Deletes the timer with its thread.
struct Owner;

impl Drop for Owner {
    fn drop(&mut self) {
        let timer = TIMER.replace(ptr::null_mut());
        if !timer.is_null() {
            // SAFETY: it is this thread's own, and named nowhere else any more.
            unsafe { libc::timer_delete(timer) };
        }
    }
}

/// Has this thread, which the host calls `thread`, get `signal` each second from now on. Where the
/// host has no timer left, absences go unnoticed here.
pub(super) fn arm(thread: i32, signal: i32) {
    if TRIED.replace(true) || OWNER.try_with(|_| ()).is_err() {
        return;
    }
    // SAFETY: zeros are a sigevent: its fields are integers, and padding that is never read here.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_notify_thread_id = thread;
    let mut timer = ptr::null_mut();
    let each = libc::itimerspec { it_interval: PERIOD, it_value: PERIOD };
    // SAFETY: `event`, `timer` and `each` outlive the calls; the second is made with a timer that
    // the first has filled in.
    unsafe {
        if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0 {
            TIMER.set(timer);
            libc::timer_settime(timer, 0, &raw const each, ptr::null_mut());
        }
    }
}

/// What a signal that has come tells.
pub(super) enum Tells {
    /// Somebody wants the processor.
    Wanted,
    /// A second has passed.
    Second,
    /// The thread was away for more than a second.
    Away,
}

/// What the signal tells whose `si_code` is this. For its handler.
pub(super) fn tells(code: i32) -> Tells {
    if code != SI_TIMER {
        return Tells::Wanted;
    }
    // SAFETY: the timer is this thread's own; the call is safe in handlers (signal-safety(7)).
    match unsafe { libc::timer_getoverrun(TIMER.get()) } {
        1.. => Tells::Away,
        _ => Tells::Second,
    }
}
