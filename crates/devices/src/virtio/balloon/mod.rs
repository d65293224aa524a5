//! The memory balloon (virtio 1.2, 5.5): the guest gives pages up until the balloon has the size
//! that the host wants, and reports pages that are free by themselves.
//!
//! What is given up leaves the host's memory at once ([`GuestRam::give_up`]); it is zeros when the
//! guest touches it again, so taking a page back needs nothing. PFNs are the guest's word: what is
//! no RAM, or is pinned, is passed over.
//!
//! Queues are inflate, deflate, statistics, (free page hints, not here), reporting. Linux counts
//! only those that it uses, so reporting is on the last one that is ready.

mod control;
pub(super) mod saved;
mod stats;

pub use control::{BalloonControl, BalloonReport};
pub use saved::BalloonState;
pub use stats::GuestStats;

use self::control::{PAGE, Shared};
use super::attendant::{Attend, Attendant, Job};
use super::chain::{Broken, Chain, Head};
use super::saved::DeviceState;
use super::worker::Service;
use super::{Activation, Queue, VirtioDevice};
use crate::saved::{Check, RestoreError};
use memory::GuestRam;
use std::io;
use std::sync::Arc;
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use x86::addr::Gpa;

/// Entries of each queue at the most.
const QUEUE_SIZE: u16 = 256;
/// Chains of a queue that are answered in a turn.
const BATCH: usize = 64;
/// Page numbers that are looked at together.
const PIECE: u64 = 1024;

// Feature bits (5.5.3).
const F_STATS: u64 = 1 << 1;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_REPORTING: u64 = 1 << 5;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATS: usize = 2;

/// A balloon.
#[derive(Debug)]
pub struct Balloon {
    shared: Arc<Shared>,
    attendant: Arc<Attendant>,
}

impl Balloon {
    /// An empty one in a guest of `memory` bytes.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn new(memory: u64, service: Service) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(memory));
        let server = Server { shared: Arc::clone(&shared), held: None };
        let attendant = Attendant::new("balloon".into(), server, service)?;
        Ok(Self { shared, attendant: Arc::new(attendant) })
    }

    /// The host's hand on it.
    pub fn control(&self) -> BalloonControl {
        BalloonControl::new(&self.shared, &self.attendant)
    }
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        F_STATS | F_DEFLATE_ON_OOM | F_REPORTING
    }

    fn queues(&self) -> &[u16] {
        &[QUEUE_SIZE; 5]
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        self.shared.config.read(offset, into);
    }

    fn write_config(&mut self, offset: usize, bytes: &[u8]) {
        self.shared.write_actual(offset, bytes);
    }

    fn config_generation(&self) -> u32 {
        self.shared.config.generation()
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { features, queues, irq, ram: _ } = activation;
        self.shared.begin(irq);
        self.attendant.start(Job { queues, features });
    }

    fn notify(&mut self, _queue: usize) {
        self.attendant.ring();
    }

    fn quiesce(&mut self) {
        self.attendant.stop();
        self.shared.rest();
    }

    fn reset(&mut self) {
        self.shared.reset();
    }

    fn save(&self) -> DeviceState {
        DeviceState::Balloon(self.shared.save())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Balloon(state) = state else {
            return Err(RestoreError::Kind { device: "balloon" });
        };
        let check = Check::version("balloon", state.version, BalloonState::VERSION)?;
        self.shared.restore(check, state)
    }
}

/// What serves the queues.
struct Server {
    shared: Arc<Shared>,
    /// The statistics' buffer, which goes back when the host wants new ones.
    held: Option<Head>,
}

impl Attend for Server {
    fn attend(&mut self, job: &Job) -> Result<bool, (usize, Broken)> {
        let stats = job.features & F_STATS != 0;
        let reports = job.features & F_REPORTING != 0;
        let first = if stats { STATS + 1 } else { STATS };
        let ready = |&number: &usize| job.queues.get(number).is_some_and(Option::is_some);
        let reporting = (first..job.queues.len()).rev().find(ready).filter(|_| reports);
        let mut more = false;
        for (number, queue) in job.queues.iter().enumerate() {
            let Some(queue) = queue else { continue };
            let result = match number {
                INFLATE => answer(queue, |chain| self.inflate(queue.ram(), chain)),
                DEFLATE => answer(queue, |chain| chain.head),
                STATS if stats => self.statistics(queue),
                _ if Some(number) == reporting => answer(queue, |chain| self.report(queue, chain)),
                _ => Ok(false),
            };
            more |= result.map_err(|why| (number, why))?;
        }
        Ok(more)
    }

    fn stop(&mut self) {
        self.held = None;
    }
}

/// Answers what `queue` holds by what `work` does. True: there may be more.
fn answer(queue: &Queue, work: impl Fn(Chain) -> Head) -> Result<bool, Broken> {
    queue.each(BATCH, |chain| queue.complete(work(chain), 0))
}

impl Server {
    /// Takes the pages whose numbers the chain holds, 32 bits each (5.5.6).
    fn inflate(&self, ram: &GuestRam, chain: Chain) -> Head {
        let Chain { head, readable: mut numbers, writable: _ } = chain;
        let mut pages = [0; PIECE as usize * 4];
        while numbers.len() >= 4 {
            let rest = numbers.split_off(PIECE * 4);
            let bytes = &mut pages[..numbers.len() as usize];
            if numbers.read(ram, bytes).is_err() {
                break;
            }
            let (words, _) = bytes.as_chunks::<4>();
            let page = |word: &[u8; 4]| (Gpa(u64::from(u32::from_le_bytes(*word)) * PAGE), PAGE);
            let ranges: Vec<_> = words.iter().map(page).collect();
            self.give_up(ram, &ranges);
            numbers = rest;
        }
        head
    }

    /// Takes the pages that the chain consists of (5.5.6.7).
    fn report(&self, queue: &Queue, chain: Chain) -> Head {
        let Chain { head, readable: _, writable } = chain;
        let given = self.give_up(queue.ram(), &writable.ranges());
        self.shared.reported(given);
        head
    }

    fn give_up(&self, ram: &GuestRam, ranges: &[(Gpa, u64)]) -> u64 {
        ram.give_up(ranges).unwrap_or_else(|error| {
            tracing::warn!(target: "virtio", "the balloon's pages stay in memory: {error}");
            0
        })
    }

    /// Reads new statistics, and gives the buffer back where the host wants newer ones. True: there
    /// may be more.
    fn statistics(&mut self, queue: &Queue) -> Result<bool, Broken> {
        let more = queue.each(BATCH, |chain| {
            let mut bytes = [0; stats::MOST];
            let Chain { head, readable, writable: _ } = chain;
            let len = readable.len().min(stats::MOST as u64) as usize;
            if readable.read(queue.ram(), &mut bytes[..len]).is_ok() {
                self.shared.tell(GuestStats::parse(&bytes[..len]));
            }
            // A driver has one buffer; what else it gives goes back at once.
            self.held.replace(head).map_or(Ok(()), |before| queue.complete(before, 0))
        })?;
        if self.shared.wants_stats()
            && let Some(head) = self.held.take()
        {
            queue.complete(head, 0)?;
        }
        Ok(more)
    }
}
