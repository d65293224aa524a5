//! What serves a queue of a disk: it takes what the driver has put in, leaves to the host what
//! takes time, and answers together what is done.
//!
//! ```text
//!   ring ──take──► begin ──done at once──────────────► answers ──► used ring, one interrupt
//!                    │                                    ▲
//!                    └──transfer──► the host's io_uring ──┘ in any order
//! ```
//!
//! What the host has in its page cache is read at once: that costs less than the way through the
//! host's ring. Past the cache, and for what is not in it and for flushes, there are as many
//! transfers under way as the driver has asked for. The host's ring is made when it is first
//! needed; where the host has none, the thread waits for each transfer.

use super::request::{Answer, Disk, Refusal, Step, Then};
use crate::virtio::attendant::{Attend, Job};
use crate::virtio::chain::{Broken, Head};
use crate::virtio::{Queue, Service};
use disk_image::{HostCache, Ring, Straight, Transfer};
use memory::GuestRam;
use rustix::event::PollFlags;
use rustix::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

/// Transfers under way at the most.
const DEPTH: u32 = 128;
/// Requests that are answered together at the most.
const BATCH: usize = 64;
/// How long a turn lasts at the most, but for the request in progress.
const TURN: Duration = Duration::from_micros(500);
/// How long more requests are waited for before those that are done are answered, and before the
/// driver is asked to notify.
const LULL: Duration = Duration::from_micros(50);
/// After nothing came in a [`LULL`], so many occasions are let pass, doubled up to the most.
const SKIPS: u32 = 64;

/// See the module.
pub(super) struct Server {
    disk: Disk,
    ring: HostRing,
    /// The queue of the job, for answers that come when the device is stopped.
    queue: Option<Queue>,
    done: Vec<(Head, u32)>,
    /// When the limits allow the next request.
    allowed: Option<Instant>,
    /// Waiting for more before what is done is answered.
    gathering: Lull,
    /// Waiting for more before the driver is asked to notify.
    lingering: Lull,
}

/// Whether a queue has more requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    /// Most likely: there was no time for all.
    Surely,
    /// Whoever knows when to go on tells: the host's ring, or the clock.
    Later,
    /// If the driver has just put them in.
    Perhaps,
}

/// The host's ring.
enum HostRing {
    /// Nothing has needed it.
    NotYet,
    /// There is one.
    Made(Box<Ring<(Answer, Then)>>),
    /// The host has none, or the disk does without.
    None,
}

/// A short wait for more requests, made where it has paid off lately.
struct Lull {
    longest: Duration,
    /// How many occasions are let pass after the next failure, and now.
    skips: u32,
    left: u32,
}

impl Server {
    /// Serves with `disk`.
    pub(super) fn new(disk: Disk, service: Service) -> Self {
        let (ring, longest) = match service {
            Service::Thread => (HostRing::NotYet, LULL),
            Service::AtOnce => (HostRing::None, Duration::ZERO),
        };
        let lull = || Lull { longest, skips: 0, left: 0 };
        let (gathering, lingering) = (lull(), lull());
        let (queue, done, allowed) = (None, Vec::new(), None);
        Self { disk, ring, queue, done, allowed, gathering, lingering }
    }

    /// Serves what there is, for a short time. True if there is more.
    fn turn(&mut self, queue: &Queue) -> Result<bool, Broken> {
        let begun = Instant::now();
        self.allowed = None;
        queue.busy()?;
        loop {
            self.land(queue.ram())?;
            let more = self.take(queue, begun)?;
            self.start_transfers();
            if more == More::Perhaps && !self.done.is_empty() && self.gathering.brings(queue)? {
                continue;
            }
            self.answer(queue)?;
            match more {
                More::Surely => return Ok(true),
                More::Later => return Ok(false),
                More::Perhaps if begun.elapsed() >= TURN => return Ok(true),
                More::Perhaps if !self.is_flying() && self.lingering.brings(queue)? => {}
                More::Perhaps => return queue.rest(),
            }
        }
    }

    /// Tells the driver what is done.
    fn answer(&mut self, queue: &Queue) -> Result<(), Broken> {
        if self.done.is_empty() {
            return Ok(());
        }
        queue.complete_all(std::mem::take(&mut self.done))
    }

    /// Takes requests, until there are none, enough, or none that may be taken now.
    fn take(&mut self, queue: &Queue, begun: Instant) -> Result<More, Broken> {
        loop {
            if self.done.len() >= BATCH || begun.elapsed() >= TURN {
                return Ok(More::Surely);
            }
            if let HostRing::Made(ring) = &self.ring
                && ring.is_full()
            {
                return Ok(More::Later);
            }
            let wait = self.disk.shared.wait();
            if !wait.is_zero() {
                self.allowed = Some(Instant::now() + wait);
                return Ok(More::Later);
            }
            let Some(chain) = queue.next()? else { return Ok(More::Perhaps) };
            let (answer, readable) = Answer::to(chain, queue.ram())?;
            let step = self.disk.begin(queue.ram(), readable, &answer);
            self.follow(queue.ram(), answer, step)?;
        }
    }

    /// Answers a request that has come so far, or leaves it to the host.
    fn follow(
        &mut self,
        ram: &GuestRam,
        answer: Answer,
        mut step: Result<Step, Refusal>,
    ) -> Result<(), Broken> {
        loop {
            let outcome = match step {
                Ok(Step::Start(straight, mut transfer, then)) => {
                    let Some(outcome) = self.make(&straight, &mut transfer) else {
                        self.ring.leave(straight, transfer, (answer, then));
                        return Ok(());
                    };
                    step = self.disk.resume(ram, &answer.data, then, outcome);
                    continue;
                }
                Ok(Step::Done(written)) => Ok(written),
                Err(why) => Err(why),
            };
            self.done.push(answer.give(ram, &self.disk.shared, outcome)?);
            return Ok(());
        }
    }

    /// Makes a transfer. `None`: it is to be left to the host's ring.
    fn make(&mut self, straight: &Straight, transfer: &mut Transfer) -> Option<io::Result<()>> {
        let file = &straight.file;
        let done = match (straight.cache, &transfer) {
            (HostCache::Used, Transfer::Read { .. }) => transfer.at_once(file),
            // It goes to the cache; by the ring, a thread of the host's would do the same.
            (HostCache::Used, Transfer::Write { .. }) => Some(transfer.wait(file)),
            _ => None,
        };
        if done.is_none() && !self.ring.is_there() {
            return Some(transfer.wait(file));
        }
        done
    }

    fn start_transfers(&mut self) {
        if let HostRing::Made(ring) = &mut self.ring
            && let Err(why) = ring.submit(0)
        {
            self.disk.shared.tell(&why);
        }
    }

    /// Goes on with the requests whose transfers are done.
    fn land(&mut self, ram: &GuestRam) -> Result<(), Broken> {
        let HostRing::Made(ring) = &mut self.ring else { return Ok(()) };
        for ((answer, then), outcome) in ring.done() {
            let step = self.disk.resume(ram, &answer.data, then, outcome);
            self.follow(ram, answer, step)?;
        }
        Ok(())
    }

    fn is_flying(&self) -> bool {
        matches!(&self.ring, HostRing::Made(ring) if !ring.is_empty())
    }
}

impl HostRing {
    /// Whether there is one that serves; makes it if it has not been tried.
    fn is_there(&mut self) -> bool {
        if let Self::NotYet = self {
            *self = match Ring::new(DEPTH) {
                Ok(ring) => Self::Made(Box::new(ring)),
                Err(why) => {
                    tracing::debug!(target: "host", "no io_uring ({why}): disks wait for the host");
                    Self::None
                }
            };
        }
        matches!(self, Self::Made(ring) if ring.serves())
    }

    fn leave(&mut self, straight: Straight, transfer: Transfer, token: (Answer, Then)) {
        if let Self::Made(ring) = self {
            ring.add(straight.file, transfer, token);
        }
    }
}

impl Lull {
    /// Waits until the driver has put in more; false if it has not.
    fn brings(&mut self, queue: &Queue) -> Result<bool, Broken> {
        if self.longest.is_zero() {
            return Ok(false);
        }
        if self.left > 0 {
            self.left -= 1;
            return Ok(false);
        }
        let begun = Instant::now();
        while begun.elapsed() < self.longest {
            if queue.has_more()? {
                self.skips = 0;
                return Ok(true);
            }
            // The guest's processor may be waiting for this one of the host's.
            thread::yield_now();
        }
        self.skips = (2 * self.skips + 1).min(SKIPS);
        self.left = self.skips;
        Ok(false)
    }
}

impl Attend for Server {
    fn attend(&mut self, job: &Job) -> Result<bool, (usize, Broken)> {
        let Some(Some(queue)) = job.queues.first() else { return Ok(false) };
        self.queue.get_or_insert_with(|| queue.clone());
        self.turn(queue).map_err(|why| (0, why))
    }

    fn stop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        // What comes of it is the driver's, as far as the queue still takes answers.
        while self.is_flying() {
            let waited = match &mut self.ring {
                HostRing::Made(ring) => ring.submit(1),
                _ => Ok(()),
            };
            if waited.is_err() || self.land(queue.ram()).is_err() {
                self.ring = HostRing::None;
            }
        }
        let _ = self.answer(&queue);
    }

    fn deadline(&self) -> Option<Instant> {
        self.allowed
    }

    fn files(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match &self.ring {
            HostRing::Made(ring) if !ring.is_empty() => vec![(ring.as_fd(), PollFlags::IN)],
            _ => Vec::new(),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("done", &self.done.len()).finish_non_exhaustive()
    }
}
