//! What passes through a cable: counted, and written down where somebody wants that.

use crate::capture::{Capture, Sink};
use crate::{Abilities, Activity, Backend, BackendState, Delivery, Frame, Guest, Link, Offload};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use sync::lock;

/// How old the figures of the other end may be: to gather them may take a while.
const FRESH: Duration = Duration::from_millis(100);

/// Frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many: a long one, to be cut by who takes it, is one.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Traffic {
    fn count(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// What has passed through a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetStats {
    /// To the guest.
    pub received: Traffic,
    /// From the guest.
    pub sent: Traffic,
    /// Whether it leads anywhere.
    pub link: Link,
    /// What the other end has open, and has lost.
    pub activity: Activity,
}

/// Looks at a cable from any thread. Clones look at the same one.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Shared>);

/// The lock is held for moments only.
#[derive(Debug)]
struct Shared {
    stats: Mutex<NetStats>,
    capture: OnceLock<Mutex<Capture>>,
}

impl Watch {
    /// What has passed through; the other end's figures are a tenth of a second old at the most.
    pub fn stats(&self) -> NetStats {
        *lock(&self.0.stats)
    }

    /// Has all frames from now on written to `sink`, in the format of pcap. False: there is another
    /// already.
    pub fn capture(&self, sink: Sink) -> bool {
        self.0.capture.set(Mutex::new(Capture::new(sink))).is_ok()
    }
}

/// A backend that is watched.
pub(crate) struct Watched {
    inner: Box<dyn Backend>,
    stats: NetStats,
    /// When the other end's figures were taken, and whether they may have changed since.
    told: Instant,
    changed: bool,
    watch: Watch,
}

impl Watched {
    /// `inner`, and who looks at it.
    pub(crate) fn new(inner: Box<dyn Backend>) -> (Self, Watch) {
        let (link, activity) = (inner.link(), inner.activity());
        let (received, sent) = Default::default();
        let stats = NetStats { received, sent, link, activity };
        let shared = Shared { stats: Mutex::new(stats), capture: OnceLock::new() };
        let watch = Watch(Arc::new(shared));
        let told = Instant::now();
        (Self { inner, stats, told, changed: false, watch: watch.clone() }, watch)
    }

    fn with<T>(
        &mut self,
        guest: &mut dyn Guest,
        call: impl FnOnce(&mut dyn Backend, &mut dyn Guest) -> T,
    ) -> T {
        let capture = self.watch.0.capture.get();
        let mut guest = WatchedGuest { guest, received: &mut self.stats.received, capture };
        call(&mut *self.inner, &mut guest)
    }

    /// Looks at what changes seldom.
    fn tell(&mut self) {
        (self.stats.link, self.stats.activity) = (self.inner.link(), self.inner.activity());
        (self.told, self.changed) = (Instant::now(), false);
    }
}

impl Backend for Watched {
    fn transmit(&mut self, frame: &[u8], offload: Offload, guest: &mut dyn Guest) {
        self.stats.sent.count(frame.len());
        if let Some(capture) = self.watch.0.capture.get() {
            lock(capture).note([frame, &[], &[]]);
        }
        self.with(guest, |inner, guest| inner.transmit(frame, offload, guest));
    }

    fn work(&mut self, guest: &mut dyn Guest) {
        self.with(guest, |inner, guest| inner.work(guest));
        if let Some(capture) = self.watch.0.capture.get() {
            lock(capture).flush();
        }
        self.changed = true;
        if self.told.elapsed() >= FRESH {
            self.tell();
        }
        *lock(&self.watch.0.stats) = self.stats;
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.inner.descriptor()
    }

    fn deadline(&self) -> Option<Instant> {
        let tell = self.changed.then(|| self.told + FRESH);
        [self.inner.deadline(), tell].into_iter().flatten().min()
    }

    fn save(&self) -> BackendState {
        self.inner.save()
    }

    fn restore(&mut self, state: BackendState) {
        self.inner.restore(state);
    }

    fn reset(&mut self) {
        self.inner.reset();
        self.tell();
        *lock(&self.watch.0.stats) = self.stats;
    }

    fn link(&self) -> Link {
        self.inner.link()
    }

    fn activity(&self) -> Activity {
        self.inner.activity()
    }
}

struct WatchedGuest<'a> {
    guest: &'a mut dyn Guest,
    received: &'a mut Traffic,
    capture: Option<&'a Mutex<Capture>>,
}

impl Guest for WatchedGuest<'_> {
    fn abilities(&self) -> Abilities {
        self.guest.abilities()
    }

    fn deliver(&mut self, frame: &Frame<'_>) -> Delivery {
        let delivery = self.guest.deliver(frame);
        if delivery == Delivery::Taken {
            self.received.count(frame.size());
            if let Some(capture) = self.capture {
                lock(capture).note(frame.parts);
            }
        }
        delivery
    }
}
