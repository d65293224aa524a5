//! What serves one queue: a thread, which may block on the host while it does, or whoever notifies.
//!
//! The thread:
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

/// When a device serves a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// As soon as it can, while the processors go on.
    #[default]
    Thread,
    /// Before the access ends that notifies it: always at the same instruction.
    AtOnce,
}

/// See the module.
pub(super) enum Worker {
    /// Its own thread.
    Thread(Thread),
    /// None.
    AtOnce(Mutex<AtOnce>),
}

/// The thread and its mailbox.
pub(super) struct Thread {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

/// A server without a thread, and what it serves.
pub(super) struct AtOnce {
    server: Box<dyn Serve>,
    job: Option<Job>,
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
    ///
    /// # Errors
    /// The host has no thread left.
    pub(super) fn new(name: String, server: impl Serve, service: Service) -> io::Result<Self> {
        match service {
            Service::Thread => Thread::new(name, server).map(Self::Thread),
            Service::AtOnce => {
                let server = Box::new(server);
                Ok(Self::AtOnce(Mutex::new(AtOnce { server, job: None })))
            }
        }
    }

    /// Serves `queue` from now on.
    pub(super) fn start(&self, queue: Queue, features: u64) {
        let job = Job { queue, features };
        match self {
            Self::Thread(thread) => thread.start(job),
            Self::AtOnce(server) => {
                let mut server = lock(server);
                server.job = Some(job);
                server.serve();
            }
        }
    }

    /// Looks into the queue.
    pub(super) fn notify(&self) {
        match self {
            Self::Thread(thread) => thread.notify(),
            Self::AtOnce(server) => lock(server).serve(),
        }
    }

    /// Waits for the request in progress, and serves no more.
    pub(super) fn stop(&self) {
        match self {
            Self::Thread(thread) => thread.stop(),
            Self::AtOnce(server) => lock(server).job = None,
        }
    }
}

impl AtOnce {
    fn serve(&mut self) {
        if let Some(job) = &self.job {
            job.drain(&mut *self.server, &|| false);
        }
    }
}

impl Thread {
    fn new(name: String, server: impl Serve) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let mine = Arc::clone(&shared);
        let owner = Owner::current();
        let work = move || {
            // It does what a guest asks for. The files are open; where the host refuses, all is as
            // before.
            let _ = host::give_up_privileges();
            let _counted = owner.as_ref().map(Owner::count_thread);
            mine.run(server, owner.as_ref());
        };
        let handle = thread::Builder::new().name(name).spawn(work)?;
        Ok(Self { shared, handle: Some(handle) })
    }

    fn start(&self, job: Job) {
        let mut mailbox = lock(&self.shared.mailbox);
        mailbox.job = Some(job);
        mailbox.notified = true;
        self.shared.work.notify_one();
    }

    fn notify(&self) {
        lock(&self.shared.mailbox).notified = true;
        self.shared.work.notify_one();
    }

    fn stop(&self) {
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

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop();
        lock(&self.shared.mailbox).ending = true;
        self.shared.work.notify_one();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// Serves in the name of `owner`: a panic ends whom the device belongs to, and the service.
    fn run(&self, mut server: impl Serve, owner: Option<&Owner>) {
        while let Some(job) = self.next_job() {
            let interrupted = || self.interrupted.load(Ordering::Relaxed);
            let mut drain = || job.drain(&mut server, &interrupted);
            let drained = match owner {
                Some(owner) => owner.run(drain).is_some(),
                None => {
                    drain();
                    true
                }
            };
            let mut mailbox = lock(&self.mailbox);
            mailbox.job = Some(job);
            mailbox.serving = false;
            self.resting.notify_all();
            if !drained {
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
}

impl Job {
    /// Serves until the queue is empty or it is `interrupted`. A queue that makes no sense fails.
    fn drain(&self, server: &mut dyn Serve, interrupted: &dyn Fn() -> bool) {
        if let Err(why) = self.try_drain(server, interrupted) {
            self.queue.fail(&why);
        }
    }

    fn try_drain(
        &self,
        server: &mut dyn Serve,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), Broken> {
        let queue = &self.queue;
        loop {
            queue.busy()?;
            while !interrupted() {
                let Some(chain) = queue.next()? else { break };
                server.serve(queue, chain, self.features)?;
            }
            if !queue.rest()? || interrupted() {
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
