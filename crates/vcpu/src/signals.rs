//! Events raised towards a virtual processor by other threads, and where that processor is.
//!
//! One atomic word says both. Its low half has the signals and the reasons of kicks: an engine
//! reads it at every block boundary. Its high half says where the processor is: queued (nothing
//! runs it), running on a thread, or parked until one of certain signals is up. Who raises a signal
//! learns both at once and does what is needed: nothing, interrupt the thread, or wake it.
//!
//! Lock order: the mutexes here are leaves; raise signals while holding any other lock. The
//! callbacks take leaf locks only.

use std::sync::Arc;
use std::time::{Duration, Instant};
use sync::atomic::{AtomicU64, Ordering};
use sync::{Condvar, Mutex, lock};
use x86::regs::Rflags;
use x86::state::{Activity, CpuState};

/// One kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Signal {
    /// The local APIC (or the 8259 through it) has a deliverable interrupt: level, kept by the
    /// interrupt chip.
    Intr = 1 << 0,
    /// A non-maskable interrupt: edge, cleared on delivery.
    Nmi = 1 << 1,
    /// INIT: the machine resets the processor.
    Init = 1 << 2,
    /// Start-up IPI.
    Sipi = 1 << 3,
    /// Leave `run` as soon as possible; see [`Kicks`] for why.
    Kick = 1 << 4,
    /// Something was posted to the memory's change log: the engine takes note, and clears this.
    Changes = 1 << 5,
    /// Another processor has ended this one's next HLT (KVM_HC_KICK_CPU): leave `run` as for a
    /// kick. The machine takes note, and clears this.
    Unhalt = 1 << 6,
    /// A page has come that the processor waits for ([`crate::Exit::Absent`]), or that its guest
    /// was told to wait for: leave `run` as for a kick. The machine takes note, and clears this.
    Arrival = 1 << 7,
}

/// A set of signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u32);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);

    /// This set and `signal`.
    #[must_use]
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | signal as u32)
    }

    /// What ends the halt of a processor in `state`. A kick counts always, and so does an arrival.
    /// HLT with interrupts masked ends by NMI, INIT and [`Signal::Unhalt`] only, and the wait for a
    /// start-up IPI by nothing else (SDM vol. 3, 9.4.4).
    pub fn waking(state: &CpuState) -> Self {
        let always = Self::EMPTY.with(Signal::Kick).with(Signal::Init).with(Signal::Arrival);
        let halted = always.with(Signal::Nmi).with(Signal::Unhalt);
        match state.activity {
            Activity::WaitForSipi => always.with(Signal::Sipi),
            _ if state.flags.has(Rflags::IF) => halted.with(Signal::Intr),
            _ => halted,
        }
    }

    /// Whether `signal` is in the set.
    pub const fn has(self, signal: Signal) -> bool {
        self.0 & signal as u32 != 0
    }
}

/// Why a processor was kicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kick {
    /// The machine ends.
    Stop = 1 << 8,
    /// The machine pauses, or asks something of its processors.
    Command = 1 << 9,
    /// The processor's time on this host processor is over.
    Quantum = 1 << 10,
    /// Its thread was away for more than a second in the midst of guest code: the process was
    /// stopped, or the host had no time.
    Away = 1 << 11,
}

/// The reasons of the kicks since the last exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kicks(u32);

impl Kicks {
    const ALL: u32 =
        Kick::Stop as u32 | Kick::Command as u32 | Kick::Quantum as u32 | Kick::Away as u32;

    /// Whether `kick` is among them.
    pub const fn has(self, kick: Kick) -> bool {
        self.0 & kick as u32 != 0
    }
}

/// Where a processor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// It may run and nothing runs it.
    Queued,
    /// It runs on the host thread with this id (gettid).
    Running(u32),
    /// It waits until one of these signals is up.
    Parked(SignalSet),
}

const PLACE: u32 = 32;
const RUNNING: u64 = 1 << 62;
const PARKED: u64 = 2 << 62;
const RAISED: u64 = 0xffff_ffff;

impl Residence {
    const fn bits(self) -> u64 {
        match self {
            Self::Queued => 0,
            Self::Running(thread) => RUNNING | (thread as u64 & 0x3fff_ffff) << PLACE,
            Self::Parked(set) => PARKED | (set.0 as u64) << PLACE,
        }
    }

    const fn of(word: u64) -> Self {
        let place = (word >> PLACE) as u32 & 0x3fff_ffff;
        match word >> 62 {
            1 => Self::Running(place),
            2 => Self::Parked(SignalSet(place)),
            _ => Self::Queued,
        }
    }
}

/// Interrupts the code that a host thread (by its id) runs for a processor, so that it looks at the
/// word. Engines that do not look at it at every block install one.
pub type Interrupt = Arc<dyn Fn(u32) + Send + Sync>;

/// Makes a parked processor run again. A scheduler installs one; without, [`Signals::wait`] is what
/// wakes.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The word and who is told.
#[derive(Default)]
pub struct Signals {
    word: AtomicU64,
    interrupt: Mutex<Option<Interrupt>>,
    waker: Mutex<Option<Waker>>,
    parked: Mutex<()>,
    awake: Condvar,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = self.word.load(Ordering::SeqCst);
        f.debug_struct("Signals")
            .field("raised", &(word & RAISED))
            .field("residence", &Residence::of(word))
            .finish_non_exhaustive()
    }
}

impl Signals {
    /// Raises `signal`, and wakes or interrupts the processor if that is needed.
    pub fn raise(&self, signal: Signal) {
        self.raise_bits(signal as u32);
    }

    /// Has the processor leave `run`, and tells why.
    pub fn kick(&self, why: Kick) {
        self.raise_bits(Signal::Kick as u32 | why as u32);
    }

    /// As [`Signals::kick`], by a signal's handler on the processor's own thread: no lock is taken,
    /// and nobody is interrupted.
    pub fn kick_here(&self, why: Kick) {
        self.word.fetch_or((Signal::Kick as u32 | why as u32).into(), Ordering::SeqCst);
    }

    fn raise_bits(&self, bits: u32) {
        let before = self.word.fetch_or(bits.into(), Ordering::SeqCst);
        if before & u64::from(bits) == u64::from(bits) {
            return;
        }
        match Residence::of(before) {
            Residence::Queued => {}
            // What was raised before has interrupted it already.
            Residence::Running(thread) if before & RAISED == 0 => {
                let interrupt = lock(&self.interrupt).clone();
                if let Some(interrupt) = interrupt {
                    interrupt(thread);
                }
            }
            Residence::Running(_) => {}
            Residence::Parked(set) if set.0 & bits != 0 => self.wake(),
            Residence::Parked(_) => {}
        }
    }

    fn wake(&self) {
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            return waker();
        }
        // The waiter either holds this lock until it sleeps, or has not looked at the word yet.
        drop(lock(&self.parked));
        self.awake.notify_all();
    }

    /// From now on `interrupt` is called when the first signal is raised while the processor runs.
    pub fn set_interrupt(&self, interrupt: Interrupt) {
        *lock(&self.interrupt) = Some(interrupt);
    }

    /// From now on `waker` is called when a signal is raised that a parked processor waits for;
    /// `None`: [`Signals::wait`] wakes by itself.
    pub fn set_waker(&self, waker: Option<Waker>) {
        *lock(&self.waker) = waker;
    }

    /// Withdraws `signal`.
    pub fn clear(&self, signal: Signal) {
        self.word.fetch_and(!u64::from(signal as u32), Ordering::SeqCst);
    }

    /// Withdraws all kicks and tells their reasons.
    pub fn take_kicks(&self) -> Kicks {
        let all = Signal::Kick as u32 | Kicks::ALL;
        let before = self.word.fetch_and(!u64::from(all), Ordering::SeqCst);
        Kicks(before as u32 & Kicks::ALL)
    }

    /// Withdraws the kick for this reason. Another reason's kick stays.
    pub fn retract(&self, why: Kick) {
        let less = |word: u64| {
            let rest = word & !u64::from(why as u32);
            let none = rest & u64::from(Kicks::ALL) == 0;
            Some(if none { rest & !u64::from(Signal::Kick as u32) } else { rest })
        };
        let _ = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }

    /// Whether `signal` is up.
    pub fn is_raised(&self, signal: Signal) -> bool {
        self.bits() & signal as u32 != 0
    }

    /// All signals at once, as the engine's loop tests them.
    #[inline(always)]
    pub fn bits(&self) -> u32 {
        self.word.load(Ordering::Relaxed) as u32
    }

    /// Where the processor is.
    pub fn residence(&self) -> Residence {
        Residence::of(self.word.load(Ordering::SeqCst))
    }

    /// The processor is somewhere else from now on. To be called by the thread that runs it, or by
    /// its scheduler while none does. What was raised before is not told again.
    pub fn settle(&self, residence: Residence) {
        let set = |word| Some(word & RAISED | residence.bits());
        let _ = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set);
    }

    /// Parks the processor until a signal of `set` is up. False: one is already, and the processor
    /// is not parked.
    pub fn park(&self, set: SignalSet) -> bool {
        let parked = |word: u64| {
            let open = word & u64::from(set.0) == 0;
            open.then_some(word & RAISED | Residence::Parked(set).bits())
        };
        self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, parked).is_ok()
    }

    /// Sleeps on this thread until any signal of `set` is up, or `timeout` has passed. True if one
    /// is.
    pub fn wait(&self, set: SignalSet, timeout: Option<Duration>) -> bool {
        let end = timeout.map(|limit| Instant::now() + limit);
        let mut guard = lock(&self.parked);
        let up = loop {
            if !self.park(set) {
                break true;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            guard = match left {
                None => sync::wait(&self.awake, guard),
                Some(Duration::ZERO) => break false,
                Some(left) => sync::wait_for(&self.awake, guard, left).0,
            };
        };
        drop(guard);
        self.settle(Residence::Queued);
        up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    const INTR: SignalSet = SignalSet::EMPTY.with(Signal::Intr);

    #[test]
    fn kicks_keep_their_reasons_until_they_are_taken() {
        let signals = Signals::default();
        signals.kick(Kick::Quantum);
        signals.kick(Kick::Stop);
        assert!(signals.is_raised(Signal::Kick));
        let kicks = signals.take_kicks();
        assert!(kicks.has(Kick::Quantum) && kicks.has(Kick::Stop) && !kicks.has(Kick::Command));
        assert_eq!((signals.bits(), signals.take_kicks()), (0, Kicks::default()));
    }

    #[test]
    fn a_kick_is_retracted_with_its_last_reason() {
        let signals = Signals::default();
        signals.raise(Signal::Intr);
        signals.kick(Kick::Quantum);
        signals.kick(Kick::Command);
        signals.retract(Kick::Quantum);
        assert!(signals.is_raised(Signal::Kick));
        signals.retract(Kick::Command);
        assert_eq!(signals.bits(), Signal::Intr as u32);
    }

    #[test]
    fn only_a_running_processor_is_interrupted_and_once() {
        let (signals, seen) = (Signals::default(), Arc::new(AtomicU32::new(0)));
        let told = seen.clone();
        signals.set_interrupt(Arc::new(move |thread| {
            told.fetch_add(thread, Ordering::SeqCst);
        }));
        signals.raise(Signal::Nmi);
        assert_eq!(seen.load(Ordering::SeqCst), 0, "it is queued");
        signals.clear(Signal::Nmi);
        signals.settle(Residence::Running(7));
        signals.raise(Signal::Nmi);
        signals.raise(Signal::Nmi);
        signals.raise(Signal::Intr);
        assert_eq!(seen.load(Ordering::SeqCst), 7);
        assert_eq!(signals.residence(), Residence::Running(7));
    }

    #[test]
    fn a_parked_processor_is_woken_by_what_it_waits_for_alone() {
        let (signals, woken) = (Signals::default(), Arc::new(AtomicU32::new(0)));
        let told = woken.clone();
        signals.set_waker(Some(Arc::new(move || {
            told.fetch_add(1, Ordering::SeqCst);
        })));
        assert!(signals.park(INTR));
        assert_eq!(signals.residence(), Residence::Parked(INTR));
        signals.raise(Signal::Nmi);
        assert_eq!(woken.load(Ordering::SeqCst), 0);
        signals.raise(Signal::Intr);
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        signals.settle(Residence::Queued);
        assert!(!signals.park(INTR), "it is up");
    }

    #[test]
    fn waiting_ends_by_time_and_by_signal() {
        let signals = Signals::default();
        assert!(!signals.wait(INTR, Some(Duration::from_millis(5))));
        assert_eq!(signals.residence(), Residence::Queued);
        std::thread::scope(|scope| {
            // However the raises fall between looking and sleeping: each wakes.
            scope.spawn(|| {
                for _ in 0..2000 {
                    while signals.is_raised(Signal::Intr) {
                        std::hint::spin_loop();
                    }
                    signals.raise(Signal::Intr);
                }
            });
            for _ in 0..2000 {
                assert!(signals.wait(INTR, Some(Duration::from_secs(20))), "a wake-up was lost");
                signals.clear(Signal::Intr);
            }
        });
    }
}
