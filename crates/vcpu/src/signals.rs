//! Events raised towards a virtual processor by other threads.
//!
//! One atomic word that the engine reads at every block boundary, a call that makes it do so where it runs code that does not,
//! and a condition variable for when the processor is halted. Lock order: the mutex here is a leaf; raise signals while holding any other lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// One kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Signal {
    /// The local APIC (or the 8259 through it) has a deliverable interrupt: level, kept by the interrupt chip.
    Intr = 1 << 0,
    /// A non-maskable interrupt: edge, cleared on delivery.
    Nmi = 1 << 1,
    /// INIT: the machine resets the processor.
    Init = 1 << 2,
    /// Start-up IPI.
    Sipi = 1 << 3,
    /// Leave `run` as soon as possible.
    Kick = 1 << 4,
}

/// No page is ever mapped there.
const UNREADABLE: u64 = 1;

/// Makes a running processor look at the word, from any thread.
pub type Interrupt = Box<dyn Fn() + Send + Sync>;

/// The word and the bell.
#[derive(Default)]
pub struct Signals {
    word: AtomicU32,
    /// Holds the address of a readable word while nothing is raised, of an unreadable one otherwise: code that polls by
    /// reading through it needs no compare, and faults when it is wanted.
    poll: AtomicU64,
    interrupt: OnceLock<Interrupt>,
    /// The processor sleeps.
    asleep: Mutex<bool>,
    bell: Condvar,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signals").field("word", &self.word).finish_non_exhaustive()
    }
}

impl Signals {
    /// Raises `signal`, and wakes or interrupts the processor.
    pub fn raise(&self, signal: Signal) {
        let before = self.word.fetch_or(signal as u32, Ordering::SeqCst);
        self.poll.store(UNREADABLE, Ordering::SeqCst);
        if before & signal as u32 != 0 {
            return;
        }
        let asleep = *self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if asleep {
            self.bell.notify_all();
        } else if before == 0
            && let Some(interrupt) = self.interrupt.get()
        {
            interrupt();
        }
    }

    /// From now on `interrupt` is called when the first signal is raised while the processor does not sleep. Once only.
    pub fn interrupt_by(&self, interrupt: Interrupt) {
        let _ = self.interrupt.set(interrupt);
    }

    /// Withdraws `signal`.
    pub fn clear(&self, signal: Signal) {
        self.word.fetch_and(!(signal as u32), Ordering::SeqCst);
        self.open_poll();
    }

    /// Makes the poll word unreadable until [`Signals::open_poll`], whatever is raised.
    pub fn close_poll(&self) {
        self.poll.store(UNREADABLE, Ordering::SeqCst);
    }

    /// Makes the poll word readable if nothing is raised.
    pub fn open_poll(&self) {
        let readable = (&raw const self.word) as u64;
        self.poll.store(readable, Ordering::SeqCst);
        if self.word.load(Ordering::SeqCst) != 0 {
            self.poll.store(UNREADABLE, Ordering::SeqCst);
        }
    }

    /// The address of the poll word. The value must not move from here on (keep it in an `Arc`).
    pub fn poll_address(&self) -> u64 {
        self.open_poll();
        (&raw const self.poll) as u64
    }

    /// Whether `signal` is up.
    pub fn is_raised(&self, signal: Signal) -> bool {
        self.bits() & signal as u32 != 0
    }

    /// All signals at once, as the engine's loop tests them.
    #[inline]
    pub fn bits(&self) -> u32 {
        self.word.load(Ordering::Relaxed)
    }

    /// Sleeps until any signal of `mask` is up, or `timeout` has passed. True if one is.
    pub fn wait(&self, mask: u32, timeout: Option<Duration>) -> bool {
        let mut guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        *guard = true;
        let asleep = |_: &mut bool| self.word.load(Ordering::SeqCst) & mask == 0;
        let (mut guard, up) = match timeout {
            None => {
                let guard = self.bell.wait_while(guard, asleep);
                (guard.unwrap_or_else(PoisonError::into_inner), true)
            }
            Some(limit) => {
                let waited = self.bell.wait_timeout_while(guard, limit, asleep);
                let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
                (guard, !result.timed_out())
            }
        };
        *guard = false;
        up
    }
}
