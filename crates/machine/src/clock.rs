//! The machine's time: VM nanoseconds that can be paused, and the guest's TSC.
//!
//! VM time is the host's CLOCK_MONOTONIC less what was spent paused. The guest's TSC is the host's
//! plus an offset that the guest may change; engines read the host's TSC themselves, so while the
//! machine runs the two are tied by hardware alone. One leaf mutex guards pausing; readers of a
//! running clock take it only for the length of an addition.
//!
//! A deterministic machine's time is its instructions: each lasts a nanosecond, and is a tick of
//! the TSC. Its wall time begins on a fixed day.

use devices::chipset::{SystemWallClock, WallClock};
use devices::time::{self, Clock, SECOND, Tsc};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use vcpu::InstructionClock;

/// Ticks of a deterministic machine's TSC in a second.
pub(crate) const COUNTED_HZ: u64 = SECOND;
/// Wall time at VM time 0 of a deterministic machine: 2026-01-01 00:00 UTC.
const EPOCH: i128 = 1_767_225_600 * SECOND as i128;

/// The clock of one machine.
#[derive(Debug)]
pub struct VmClock {
    source: Source,
    tsc_hz: u64,
    tsc_offset: AtomicU64,
}

/// What makes time go on.
#[derive(Debug)]
enum Source {
    /// The host's clocks.
    Host(Mutex<State>),
    /// The processors' instructions.
    Counted(Arc<InstructionClock>),
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// VM time at `since`.
    base: u64,
    /// When the clock was started last; `None` while it stands still.
    since: Option<Instant>,
    /// Host TSC when it was stopped.
    stopped_tsc: u64,
}

impl VmClock {
    /// A clock that stands still at VM time `now`; the guest's TSC, at `tsc_hz`, stands at
    /// `guest_tsc`.
    pub fn new(tsc_hz: u64, now: u64, guest_tsc: u64) -> Self {
        let stopped_tsc = vcpu::host_tsc();
        let state = State { base: now, since: None, stopped_tsc };
        Self {
            source: Source::Host(Mutex::new(state)),
            tsc_hz: tsc_hz.max(1),
            tsc_offset: AtomicU64::new(guest_tsc.wrapping_sub(stopped_tsc)),
        }
    }

    /// Time that is counted in instructions, from 0.
    pub(crate) fn counted() -> Self {
        Self {
            source: Source::Counted(Arc::default()),
            tsc_hz: COUNTED_HZ,
            tsc_offset: AtomicU64::new(0),
        }
    }

    /// What the processors move on, if time is counted in instructions.
    pub(crate) fn instructions(&self) -> Option<&Arc<InstructionClock>> {
        match &self.source {
            Source::Host(_) => None,
            Source::Counted(clock) => Some(clock),
        }
    }

    /// Lets time run on. The TSC's offset changes by what was spent paused.
    pub fn start(&self) {
        let Some(mut state) = self.state() else { return };
        if state.since.is_none() {
            state.since = Some(Instant::now());
            let change = state.stopped_tsc.wrapping_sub(vcpu::host_tsc());
            self.tsc_offset.fetch_add(change, Ordering::SeqCst);
        }
    }

    /// Stops time.
    pub fn stop(&self) {
        let Some(mut state) = self.state() else { return };
        if let Some(since) = state.since.take() {
            state.base = state.base.saturating_add(nanoseconds(since.elapsed()));
            state.stopped_tsc = vcpu::host_tsc();
        }
    }

    /// Sets VM time and the guest's TSC. The clock stands still then.
    pub fn set(&self, now: u64, guest_tsc: u64) {
        let ticks = match &self.source {
            Source::Host(state) => {
                let stopped_tsc = vcpu::host_tsc();
                *sync::lock(state) = State { base: now, since: None, stopped_tsc };
                stopped_tsc
            }
            Source::Counted(clock) => {
                clock.set(now);
                now
            }
        };
        self.tsc_offset.store(guest_tsc.wrapping_sub(ticks), Ordering::SeqCst);
    }

    /// Has counted time jump to `now`, unless it is later. No processor runs.
    pub(crate) fn skip_to(&self, now: u64) {
        if let Source::Counted(clock) = &self.source {
            clock.set(clock.now().max(now));
        }
    }

    /// Whether the host's time makes this one go on.
    pub fn is_running(&self) -> bool {
        self.state().is_some_and(|state| state.since.is_some())
    }

    /// Guest TSC minus host TSC (or counted time), for processors that have not moved theirs.
    pub fn tsc_offset(&self) -> u64 {
        self.tsc_offset.load(Ordering::SeqCst)
    }

    /// Ticks of the guest's TSC in a second.
    pub fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        match &self.source {
            Source::Host(state) => Some(sync::lock(state)),
            Source::Counted(_) => None,
        }
    }
}

impl Clock for VmClock {
    fn now(&self) -> u64 {
        match &self.source {
            Source::Host(state) => sync::lock(state).now(),
            Source::Counted(clock) => clock.now(),
        }
    }
}

impl State {
    fn now(&self) -> u64 {
        self.since.map_or(self.base, |since| self.base.saturating_add(nanoseconds(since.elapsed())))
    }

    fn host_tsc(&self) -> u64 {
        if self.since.is_some() { vcpu::host_tsc() } else { self.stopped_tsc }
    }
}

impl VmClock {
    /// What RDTSC would give on a processor that has not moved its TSC.
    pub fn guest_tsc(&self) -> u64 {
        self.instant().tsc
    }

    /// VM time and [`VmClock::guest_tsc`], with one look at the clock.
    fn instant(&self) -> time::Instant {
        let (ns, ticks) = match &self.source {
            Source::Host(state) => {
                let state = *sync::lock(state);
                (state.now(), state.host_tsc())
            }
            Source::Counted(clock) => (clock.now(), clock.now()),
        };
        time::Instant { ns, tsc: ticks.wrapping_add(self.tsc_offset()) }
    }

    /// The wall clock that goes with it.
    pub(crate) fn wall(self: &Arc<Self>) -> Arc<dyn WallClock> {
        match self.source {
            Source::Host(_) => Arc::new(SystemWallClock),
            Source::Counted(_) => Arc::new(CountedWallClock(Arc::clone(self))),
        }
    }
}

/// Wall time of a deterministic machine.
#[derive(Debug)]
struct CountedWallClock(Arc<VmClock>);

impl WallClock for CountedWallClock {
    fn unix_ns(&self) -> i128 {
        EPOCH + i128::from(self.0.now())
    }
}

/// The TSC of one processor: the machine's, and what the guest has moved this one by
/// (IA32_TSC_ADJUST in effect).
#[derive(Debug)]
pub(crate) struct ProcessorTsc {
    clock: Arc<VmClock>,
    moved: AtomicU64,
}

impl ProcessorTsc {
    pub(crate) fn new(clock: &Arc<VmClock>) -> Arc<Self> {
        Arc::new(Self { clock: Arc::clone(clock), moved: AtomicU64::new(0) })
    }

    /// Guest TSC minus host TSC.
    pub(crate) fn offset(&self) -> u64 {
        self.clock.tsc_offset().wrapping_add(self.moved())
    }

    /// The guest has moved this processor's TSC.
    pub(crate) fn set_offset(&self, offset: u64) {
        self.set_moved(offset.wrapping_sub(self.clock.tsc_offset()));
    }

    pub(crate) fn set_moved(&self, moved: u64) {
        self.moved.store(moved, Ordering::SeqCst);
    }
}

impl Tsc for ProcessorTsc {
    fn instant(&self) -> time::Instant {
        let time::Instant { ns, tsc } = self.clock.instant();
        time::Instant { ns, tsc: tsc.wrapping_add(self.moved()) }
    }

    fn guest_tsc(&self) -> u64 {
        self.clock.guest_tsc().wrapping_add(self.moved())
    }

    fn moved(&self) -> u64 {
        self.moved.load(Ordering::SeqCst)
    }

    fn ns_until(&self, tsc: u64) -> u64 {
        let ticks = tsc.saturating_sub(self.guest_tsc());
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(self.clock.tsc_hz);
        // Rounded up, so that a deadline is never met early.
        u64::try_from(ns).unwrap_or(u64::MAX - 1) + u64::from(ticks > 0)
    }
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    const HZ: u64 = 1_000_000_000;

    #[test]
    fn a_stopped_clock_stands_still_and_goes_on_where_it_stood() {
        let clock = VmClock::new(HZ, 500, 7000);
        assert_eq!((clock.now(), clock.guest_tsc()), (500, 7000));
        clock.start();
        sleep(Duration::from_millis(5));
        clock.stop();
        let (now, tsc) = (clock.now(), clock.guest_tsc());
        assert!(now >= 5_000_500 && tsc > 7000);
        sleep(Duration::from_millis(5));
        assert_eq!((clock.now(), clock.guest_tsc()), (now, tsc));
        clock.start();
        let gap = clock.guest_tsc() - tsc;
        assert!(gap < 100_000_000, "the TSC jumped by {gap} over a pause");
    }

    #[test]
    fn deadlines_convert_and_round_up() {
        let tsc = |hz, at| ProcessorTsc::new(&Arc::new(VmClock::new(hz, 0, at)));
        let clock = tsc(3 * HZ, 1000);
        assert_eq!(clock.ns_until(1000), 0);
        assert_eq!(clock.ns_until(10), 0);
        assert_eq!(clock.ns_until(1001), 1);
        assert_eq!(clock.ns_until(4000), 1001);
        assert!(clock.ns_until(u64::MAX) > 1 << 60);
        assert!(tsc(0, 0).ns_until(u64::MAX) > 1 << 60);
    }

    #[test]
    fn counted_time_is_what_the_processors_make_it() {
        let clock = Arc::new(VmClock::counted());
        clock.start();
        let wall = clock.wall();
        assert_eq!((clock.now(), clock.guest_tsc(), wall.unix_ns()), (0, 0, EPOCH));
        clock.instructions().expect("it is counted").set(70);
        assert_eq!((clock.now(), clock.guest_tsc(), wall.unix_ns()), (70, 70, EPOCH + 70));
        clock.set(1000, 5000);
        assert_eq!((clock.now(), clock.guest_tsc()), (1000, 5000));
        assert!(!clock.is_running());
    }

    #[test]
    fn each_processor_has_its_own_tsc() {
        let clock = Arc::new(VmClock::new(HZ, 0, 1000));
        let (one, two) = (ProcessorTsc::new(&clock), ProcessorTsc::new(&clock));
        two.set_offset(clock.tsc_offset().wrapping_add(500));
        assert_eq!((one.guest_tsc(), two.guest_tsc(), two.moved()), (1000, 1500, 500));
        clock.start();
        clock.stop();
        assert_eq!(two.guest_tsc() - one.guest_tsc(), 500, "also after a pause");
    }
}
