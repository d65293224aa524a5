//! The thread that serves a network device: it moves frames between the rings and the backend, and
//! sleeps until either has something.

use super::port::{Port, outgoing};
use crate::virtio::Queue;
use crate::virtio::chain::Broken;
use ::net::Backend;
use host::Owner;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use sync::lock;

/// Frames of the guest's that are taken before the backend has its turn.
const BATCH: usize = 64;

/// See the module.
pub(super) struct Thread {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

struct Shared {
    mailbox: Mutex<Mailbox>,
    /// From the thread: it serves no longer.
    resting: Condvar,
    /// Asks the thread to look into the mailbox.
    interrupted: AtomicBool,
    /// Wakes the thread.
    bell: OwnedFd,
}

#[derive(Default)]
struct Mailbox {
    /// What to serve, unless the thread has it.
    job: Option<Job>,
    /// The driver has begun anew since the last job.
    reset: bool,
    serving: bool,
    ending: bool,
}

struct Job {
    rx: Option<Queue>,
    tx: Option<Queue>,
    features: u64,
}

impl Thread {
    pub(super) fn new(name: String, backend: Box<dyn Backend>) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            mailbox: Mutex::default(),
            resting: Condvar::new(),
            interrupted: AtomicBool::new(false),
            bell,
        });
        let mine = Arc::clone(&shared);
        let owner = Owner::current();
        let work = move || {
            // It does what a guest asks for.
            let _ = host::give_up_privileges();
            let server = Server { backend, buffer: Vec::new() };
            mine.run(server, owner.as_ref());
        };
        let handle = thread::Builder::new().name(name).spawn(work)?;
        Ok(Self { shared, handle: Some(handle) })
    }

    pub(super) fn start(&self, rx: Option<Queue>, tx: Option<Queue>, features: u64) {
        lock(&self.shared.mailbox).job = Some(Job { rx, tx, features });
        self.notify();
    }

    pub(super) fn notify(&self) {
        self.shared.ring();
    }

    /// Waits until nothing is served any more.
    pub(super) fn stop(&self) {
        let shared = &*self.shared;
        let mut mailbox = lock(&shared.mailbox);
        shared.interrupted.store(true, Ordering::SeqCst);
        shared.ring();
        while mailbox.serving {
            mailbox = sync::wait(&shared.resting, mailbox);
        }
        shared.interrupted.store(false, Ordering::SeqCst);
        mailbox.job = None;
    }

    /// Has the backend forget what is open.
    pub(super) fn reset(&self) {
        lock(&self.shared.mailbox).reset = true;
        self.notify();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop();
        lock(&self.shared.mailbox).ending = true;
        self.shared.ring();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes()); // full: it rings already
    }

    /// Serves in the name of `owner`: a panic ends whom the device belongs to, and the service.
    fn run(&self, mut server: Server, owner: Option<&Owner>) {
        while let Some(job) = self.next_job(&mut server) {
            let mut serve = || server.serve(&job, self);
            let served = match owner {
                Some(owner) => owner.run(serve).is_some(),
                None => {
                    serve();
                    true
                }
            };
            lock(&self.mailbox).serving = false;
            self.resting.notify_all();
            if !served {
                return;
            }
        }
    }

    fn next_job(&self, server: &mut Server) -> Option<Job> {
        loop {
            let mut mailbox = lock(&self.mailbox);
            if mailbox.ending {
                return None;
            }
            if std::mem::take(&mut mailbox.reset) {
                server.backend.reset();
            }
            if let Some(job) = mailbox.job.take() {
                mailbox.serving = true;
                return Some(job);
            }
            drop(mailbox);
            self.sleep(None, None);
        }
    }

    /// Until the bell rings, `backend` has something, or its deadline has passed.
    fn sleep(&self, backend: Option<&dyn Backend>, deadline: Option<Instant>) {
        let mut all = vec![PollFd::new(&self.bell, PollFlags::IN)];
        if let Some(backend) = backend {
            all.push(PollFd::from_borrowed_fd(backend.descriptor(), PollFlags::IN));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec::try_from(left.min(Duration::from_secs(3600))));
        let left = left.and_then(Result::ok);
        if poll(&mut all, left.as_ref()).is_ok() && !all[0].revents().is_empty() {
            let _ = rustix::io::read(&self.bell, &mut [0; 8]); // nobody else empties it
        }
    }
}

struct Server {
    backend: Box<dyn Backend>,
    /// A frame on its way.
    buffer: Vec<u8>,
}

impl Server {
    fn serve(&mut self, job: &Job, shared: &Shared) {
        if let Err(why) = self.try_serve(job, shared)
            && let Some(queue) = job.rx.as_ref().or(job.tx.as_ref())
        {
            queue.fail(&why);
        }
    }

    fn try_serve(&mut self, job: &Job, shared: &Shared) -> Result<(), Broken> {
        let Job { rx, tx, features } = job;
        let mut port = Port { queue: rx.as_ref(), features: *features, full: false, broken: None };
        loop {
            for queue in rx.iter().chain(tx) {
                queue.busy()?;
            }
            loop {
                if shared.interrupted.load(Ordering::SeqCst) {
                    return Ok(());
                }
                port.full = false;
                let more = self.take(tx.as_ref(), &mut port)?;
                self.backend.work(&mut port);
                if let Some(why) = port.broken.take() {
                    return Err(why);
                }
                if !more {
                    break;
                }
            }
            let mut more = false;
            if let Some(tx) = tx {
                more |= tx.rest()?;
            }
            if let Some(rx) = rx.as_ref().filter(|_| port.full) {
                more |= rx.rest()?;
            }
            if !more && !shared.interrupted.load(Ordering::SeqCst) {
                shared.sleep(Some(&*self.backend), self.backend.deadline());
            }
        }
    }

    /// Takes a batch of the guest's frames. True if there may be more.
    fn take(&mut self, tx: Option<&Queue>, port: &mut Port<'_>) -> Result<bool, Broken> {
        let Some(tx) = tx else { return Ok(false) };
        for _ in 0..BATCH {
            let Some(chain) = tx.next()? else { return Ok(false) };
            if let Some((frame, sums)) = outgoing(tx.ram(), chain.readable, &mut self.buffer) {
                self.backend.transmit(frame, sums, port);
            }
            tx.complete(chain.head, 0)?;
        }
        Ok(true)
    }
}
