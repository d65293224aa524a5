//! A thread that serves one queue, and may block on the host while it does.
//!
//! ```text
//!            start                notify               ring empty
//!   idle ────────────► resting ───────────► serving ──────────────► resting
//!    ▲                    │ stop               │ stop: after the request in progress
//!    └────────────────────┴────────────────────┘
//! ```

use super::Queue;
use super::chain::{Broken, Chain};
use host::Owner;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::{fmt, io};
use sync::lock;

/// What a device does with requests.
pub(super) trait Serve: Send + 'static {
    /// Serves one request, and answers it with [`Queue::complete`]. `features` are the negotiated
    /// ones.
    fn serve(&mut self, queue: &Queue, chain: Chain, features: u64) -> Result<(), Broken>;
}

/// The thread and its mailbox.
pub(super) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    mailbox: Mutex<Mailbox>,
    /// To the thread: there is something to do.
    work: Condvar,
    /// From the thread: it serves no longer.
    resting: Condvar,
    /// Asks the thread to come back after the request in progress.
    interrupted: AtomicBool,
}

#[derive(Default)]
struct Mailbox {
    /// The queue, unless the thread has it.
    job: Option<Job>,
    notified: bool,
    serving: bool,
    ending: bool,
}

struct Job {
    queue: Queue,
    features: u64,
}

impl Worker {
    /// An idle worker called `name`.
    pub(super) fn new(name: String, server: impl Serve) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let mine = Arc::clone(&shared);
        let owner = Owner::current();
        let work = move || {
            // It does what a guest asks for. The files are open; where the host refuses, all is as
            // before.
            let _ = host::give_up_privileges();
            mine.run(server, owner.as_ref());
        };
        let thread = thread::Builder::new().name(name).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Serves `queue` from now on.
    pub(super) fn start(&self, queue: Queue, features: u64) {
        let mut mailbox = lock(&self.shared.mailbox);
        mailbox.job = Some(Job { queue, features });
        mailbox.notified = true;
        self.shared.work.notify_one();
    }

    /// Looks into the queue.
    pub(super) fn notify(&self) {
        lock(&self.shared.mailbox).notified = true;
        self.shared.work.notify_one();
    }

    /// Waits for the request in progress, and serves no more.
    pub(super) fn stop(&self) {
        let shared = &*self.shared;
        let mut mailbox = lock(&shared.mailbox);
        shared.interrupted.store(true, Ordering::Relaxed);
        while mailbox.serving {
            mailbox = sync::wait(&shared.resting, mailbox);
        }
        shared.interrupted.store(false, Ordering::Relaxed);
        mailbox.job = None;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        lock(&self.shared.mailbox).ending = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Serves in the name of `owner`: a panic ends whom the device belongs to, and the service.
    fn run(&self, mut server: impl Serve, owner: Option<&Owner>) {
        while let Some(job) = self.next_job() {
            let mut drain = || self.drain(&job, &mut server);
            let drained = match owner {
                Some(owner) => owner.run(drain),
                None => Some(drain()),
            };
            if let Some(Err(why)) = &drained {
                job.queue.fail(why);
            }
            let mut mailbox = lock(&self.mailbox);
            mailbox.job = Some(job);
            mailbox.serving = false;
            self.resting.notify_all();
            if drained.is_none() {
                return;
            }
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut mailbox = lock(&self.mailbox);
        loop {
            if mailbox.ending {
                return None;
            }
            if mailbox.notified
                && let Some(job) = mailbox.job.take()
            {
                mailbox.notified = false;
                mailbox.serving = true;
                return Some(job);
            }
            mailbox = sync::wait(&self.work, mailbox);
        }
    }

    /// Serves until the queue is empty or the thread is called back.
    fn drain(&self, job: &Job, server: &mut impl Serve) -> Result<(), Broken> {
        let queue = &job.queue;
        loop {
            queue.busy()?;
            while !self.interrupted.load(Ordering::Relaxed) {
                let Some(chain) = queue.next()? else { break };
                server.serve(queue, chain, job.features)?;
            }
            if !queue.rest()? || self.interrupted.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
