//! The machine's time: VM nanoseconds that can be paused, and the guest's TSC.
//!
//! VM time is the host's CLOCK_MONOTONIC less what was spent paused. The guest's TSC is the host's
//! plus an offset that the guest may change; engines read the host's TSC themselves, so while the
//! machine runs the two are tied by hardware alone. One leaf mutex guards pausing; readers of a
//! running clock take it only for the length of an addition.

use devices::time::{self, Clock, Tsc};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// The clock of one machine.
#[derive(Debug)]
pub struct VmClock {
    state: Mutex<State>,
    tsc_hz: u64,
    tsc_offset: AtomicU64,
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
        Self {
            state: Mutex::new(State { base: now, since: None, stopped_tsc }),
            tsc_hz: tsc_hz.max(1),
            tsc_offset: AtomicU64::new(guest_tsc.wrapping_sub(stopped_tsc)),
        }
    }

    /// Lets time run on. The TSC's offset changes by what was spent paused.
    pub fn start(&self) {
        let mut state = self.lock();
        if state.since.is_none() {
            state.since = Some(Instant::now());
            let change = state.stopped_tsc.wrapping_sub(vcpu::host_tsc());
            self.tsc_offset.fetch_add(change, Ordering::SeqCst);
        }
    }

    /// Stops time.
    pub fn stop(&self) {
        let mut state = self.lock();
        if let Some(since) = state.since.take() {
            state.base = state.base.saturating_add(nanoseconds(since));
            state.stopped_tsc = vcpu::host_tsc();
        }
    }

    /// Sets VM time and the guest's TSC. The clock stands still then.
    pub fn set(&self, now: u64, guest_tsc: u64) {
        let mut state = self.lock();
        let stopped_tsc = vcpu::host_tsc();
        *state = State { base: now, since: None, stopped_tsc };
        self.tsc_offset.store(guest_tsc.wrapping_sub(stopped_tsc), Ordering::SeqCst);
    }

    /// Whether time is running.
    pub fn is_running(&self) -> bool {
        self.lock().since.is_some()
    }

    /// Guest TSC minus host TSC, for processors that have not moved theirs.
    pub fn tsc_offset(&self) -> u64 {
        self.tsc_offset.load(Ordering::SeqCst)
    }

    /// Ticks of the guest's TSC in a second.
    pub fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

impl Clock for VmClock {
    fn now(&self) -> u64 {
        let state = *self.lock();
        state.now()
    }
}

impl State {
    fn now(&self) -> u64 {
        self.since.map_or(self.base, |since| self.base.saturating_add(nanoseconds(since)))
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
        let state = *self.lock();
        let tsc = state.host_tsc().wrapping_add(self.tsc_offset());
        time::Instant { ns: state.now(), tsc }
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

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;
    use std::time::Duration;

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
