//! The host's side of the balloon: how large it is to be, and what the guest says.
//!
//! Locks: the guest's side is a leaf, but for the interrupt.

use super::saved::BalloonState;
use super::stats::GuestStats;
use crate::saved::{Check, RestoreError};
use crate::virtio::attendant::Attendant;
use crate::virtio::{ConfigSpace, VirtioIrq};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use sync::lock;

/// Bytes of a page of the balloon, whatever the guest's pages are (5.5.6).
pub(super) const PAGE: u64 = 4096;
/// Bytes of the configuration (5.5.4): num_pages, actual, free_page_hint_cmd_id, poison_val.
const CONFIG: usize = 16;
/// Where `actual` is.
const ACTUAL: usize = 4;

/// What the device, its thread and the host share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Pages of the guest.
    pages: u32,
    pub(super) config: ConfigSpace,
    guest: Mutex<Guest>,
    /// New statistics have come.
    told: Condvar,
}

#[derive(Debug, Default)]
struct Guest {
    /// The driver has the device running.
    irq: Option<Arc<dyn VirtioIrq>>,
    /// The size has changed while nobody could be told.
    untold: bool,
    wants_stats: bool,
    stats: GuestStats,
    /// How often statistics have come.
    times: u64,
    reported: u64,
}

/// Changes and watches a machine's balloon. Clones do the same one.
#[derive(Clone, Debug)]
pub struct BalloonControl {
    shared: Arc<Shared>,
    attendant: Arc<Attendant>,
}

/// How it is with a balloon, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonReport {
    /// What the guest is to give.
    pub wanted: u64,
    /// What it says that it has given.
    pub given: u64,
    /// What it has reported as free and given back for the time being, all times together.
    pub reported: u64,
    /// What it says of its memory.
    pub stats: GuestStats,
}

impl Shared {
    pub(super) fn new(memory: u64) -> Self {
        let pages = u32::try_from(memory / PAGE).unwrap_or(u32::MAX);
        let config = ConfigSpace::new([0; CONFIG]);
        Self { pages, config, guest: Mutex::default(), told: Condvar::new() }
    }

    fn word(&self, offset: usize) -> u32 {
        let mut word = [0; 4];
        self.config.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn set_word(&self, offset: usize, value: u32) {
        let place = offset..offset + 4;
        self.config.update(|bytes| bytes[place].copy_from_slice(&value.to_le_bytes()));
    }

    /// The driver writes to the configuration: it may say how many pages it has given.
    pub(super) fn write_actual(&self, offset: usize, bytes: &[u8]) {
        self.config.update(|config| {
            for (at, byte) in (offset..).zip(bytes) {
                if let Some(place) = config.get_mut(at)
                    && (ACTUAL..ACTUAL + 4).contains(&at)
                {
                    *place = *byte;
                }
            }
        });
    }

    /// The driver has the device running, and hears by `irq`.
    pub(super) fn begin(&self, irq: Arc<dyn VirtioIrq>) {
        let mut guest = lock(&self.guest);
        if std::mem::take(&mut guest.untold) {
            irq.config();
        }
        guest.irq = Some(irq);
    }

    /// It has not any more.
    pub(super) fn rest(&self) {
        lock(&self.guest).irq = None;
    }

    pub(super) fn reset(&self) {
        self.set_word(ACTUAL, 0);
        let mut guest = lock(&self.guest);
        (guest.untold, guest.stats) = (false, GuestStats::default());
    }

    pub(super) fn reported(&self, bytes: u64) {
        lock(&self.guest).reported += bytes;
    }

    pub(super) fn tell(&self, stats: GuestStats) {
        let mut guest = lock(&self.guest);
        guest.stats = stats;
        guest.times += 1;
        self.told.notify_all();
    }

    /// Whether the host wants new statistics; it is told once.
    pub(super) fn wants_stats(&self) -> bool {
        std::mem::take(&mut lock(&self.guest).wants_stats)
    }

    pub(super) fn save(&self) -> BalloonState {
        let (wanted, given) = (self.word(0), self.word(ACTUAL));
        let untold = lock(&self.guest).untold;
        BalloonState { version: BalloonState::VERSION, wanted, given, untold }
    }

    pub(super) fn restore(&self, check: Check, state: &BalloonState) -> Result<(), RestoreError> {
        let &BalloonState { version: _, wanted, given, untold } = state;
        check.that(wanted <= self.pages, "wanted", wanted, self.pages)?;
        self.set_word(0, wanted);
        self.set_word(ACTUAL, given);
        lock(&self.guest).untold = untold;
        Ok(())
    }
}

impl BalloonControl {
    pub(super) fn new(shared: &Arc<Shared>, attendant: &Arc<Attendant>) -> Self {
        Self { shared: Arc::clone(shared), attendant: Arc::clone(attendant) }
    }

    /// Has the guest give `bytes` of its memory, whole pages, in its own time. More than it has is
    /// all.
    pub fn want(&self, bytes: u64) {
        let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX).min(self.shared.pages);
        self.shared.set_word(0, pages);
        let mut guest = lock(&self.shared.guest);
        match guest.irq.clone() {
            Some(irq) => irq.config(),
            None => guest.untold = true,
        }
    }

    /// How it is now. A guest that says nothing of its memory within `patience` has said it before.
    pub fn report(&self, patience: Duration) -> BalloonReport {
        let shared = &*self.shared;
        let deadline = Instant::now() + patience;
        let mut guest = lock(&shared.guest);
        let before = guest.times;
        guest.wants_stats = true;
        let listens = guest.irq.is_some();
        drop(guest);
        self.attendant.ring();
        let mut guest = lock(&shared.guest);
        while listens && guest.times == before {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            guest = sync::wait_for(&shared.told, guest, left).0;
        }
        let (stats, reported) = (guest.stats, guest.reported);
        drop(guest);
        let bytes = |offset| u64::from(shared.word(offset)) * PAGE;
        BalloonReport { wanted: bytes(0), given: bytes(ACTUAL), reported, stats }
    }
}
