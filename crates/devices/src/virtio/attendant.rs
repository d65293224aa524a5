//! What serves all queues of a device together: one thread, which also waits for files of the
//! host; or whoever notifies.
//!
//! The thread waits until the driver notifies, somebody rings, a file is ready, or a deadline has
//! passed, and then attends to all that there is. It looks at its mailbox between two turns, so a
//! turn must be short.
//!
//! Locks: the mailbox is a leaf; what is attended to is the thread's own.

use super::Queue;
use super::chain::Broken;
use super::worker::Service;
use host::Owner;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use sync::lock;

/// What a device does with its queues.
pub(super) trait Attend: Send + 'static {
    /// Does what can be done now, for a short time. True if there is more.
    ///
    /// # Errors
    /// The driver broke the rules in this queue: the device waits for a reset.
    fn attend(&mut self, job: &Job) -> Result<bool, (usize, Broken)>;

    /// The queues are used no more: chains that were taken and not answered are forgotten.
    fn stop(&mut self) {}

    /// When there is something to do at the latest, whatever comes.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// There is nothing to attend to, and somebody has rung.
    fn idle(&mut self) {}

    /// Files of the host to wait for, and for what.
    fn files(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        Vec::new()
    }

    /// What has come of each of [`Attend::files`].
    fn ready(&mut self, _files: &[PollFlags]) {}
}

/// Rings for who is not the device.
#[derive(Clone)]
pub(super) struct Bell(Option<Arc<Shared>>);

impl Bell {
    /// There is something to do. Where there is no thread, it waits for who notifies.
    pub(super) fn ring(&self) {
        self.0.as_deref().inspect(|shared| shared.ring());
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

/// What is attended to.
#[derive(Debug)]
pub(super) struct Job {
    /// Each queue; `None` for one that the driver does not use.
    pub(super) queues: Vec<Option<Queue>>,
    /// The negotiated features.
    pub(super) features: u64,
}

/// See the module.
pub(super) enum Attendant {
    /// Its own thread.
    Thread { shared: Arc<Shared>, handle: Option<JoinHandle<()>> },
    /// None.
    AtOnce(Mutex<(Box<dyn Attend>, Option<Job>)>),
}

/// The thread's mailbox.
pub(super) struct Shared {
    mailbox: Mutex<Mailbox>,
    /// To the thread: there is something to do.
    bell: OwnedFd,
    /// From the thread: it has stopped.
    stopped: Condvar,
}

#[derive(Default)]
struct Mailbox {
    job: Option<Job>,
    /// The thread has a job.
    busy: bool,
    stop: bool,
    end: bool,
}

impl Attendant {
    /// An idle one: a thread called `name`, or whoever notifies attends to all.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub(super) fn new(name: String, attend: impl Attend, service: Service) -> io::Result<Self> {
        match service {
            Service::Thread => Self::start_thread(name, attend),
            Service::AtOnce => Ok(Self::AtOnce(Mutex::new((Box::new(attend), None)))),
        }
    }

    fn start_thread(name: String, attend: impl Attend) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { mailbox: Mutex::default(), bell, stopped: Condvar::new() });
        let mine = Arc::clone(&shared);
        let owner = Owner::current();
        let work = move || {
            // It does what a guest asks for. Where the host refuses, all is as before.
            let _ = host::give_up_privileges();
            let _counted = owner.as_ref().map(Owner::count_thread);
            match owner {
                // A panic ends whom the device belongs to, and the service.
                Some(owner) => drop(owner.run(|| mine.run(attend))),
                None => mine.run(attend),
            }
            mine.leave();
        };
        let handle = Some(thread::Builder::new().name(name).spawn(work)?);
        Ok(Self::Thread { shared, handle })
    }

    /// Attends to `job` from now on.
    pub(super) fn start(&self, job: Job) {
        match self {
            Self::Thread { shared, .. } => {
                lock(&shared.mailbox).job = Some(job);
                shared.ring();
            }
            Self::AtOnce(own) => {
                lock(own).1 = Some(job);
                self.ring();
            }
        }
    }

    /// Its bell.
    pub(super) fn bell(&self) -> Bell {
        match self {
            Self::Thread { shared, .. } => Bell(Some(Arc::clone(shared))),
            Self::AtOnce(_) => Bell(None),
        }
    }

    /// There is something to do: the driver's, or the host's.
    pub(super) fn ring(&self) {
        match self {
            Self::Thread { shared, .. } => shared.ring(),
            Self::AtOnce(own) => {
                let (attend, job) = &mut *lock(own);
                let ready = vec![PollFlags::all(); attend.files().len()];
                attend.ready(&ready);
                match job.take() {
                    Some(now) => *job = attend_to(now, &mut **attend, || true),
                    None => attend.idle(),
                }
            }
        }
    }

    /// Attends to nothing any more when this returns.
    pub(super) fn stop(&self) {
        match self {
            Self::Thread { shared, .. } => {
                let mut mailbox = lock(&shared.mailbox);
                mailbox.job = None;
                mailbox.stop = true;
                shared.ring();
                while mailbox.busy && !mailbox.end {
                    mailbox = sync::wait(&shared.stopped, mailbox);
                }
                mailbox.stop = false;
            }
            Self::AtOnce(own) => {
                let (attend, job) = &mut *lock(own);
                if job.take().is_some() {
                    attend.stop();
                }
            }
        }
    }
}

/// Attends to `job` while there is more and `go_on` says so. `None`: the driver broke the rules.
fn attend_to(job: Job, attend: &mut dyn Attend, go_on: impl Fn() -> bool) -> Option<Job> {
    loop {
        match attend.attend(&job) {
            Ok(true) if go_on() => {}
            Ok(_) => return Some(job),
            Err((number, why)) => {
                if let Some(Some(queue)) = job.queues.get(number) {
                    queue.fail(&why);
                }
                attend.stop();
                return None;
            }
        }
    }
}

impl Shared {
    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn run(&self, mut attend: impl Attend) {
        let mut own = None;
        while self.obey(&mut own, &mut attend) {
            let mut more = false;
            if let Some(job) = own.take() {
                // One turn, and a look at the mailbox.
                let turn = attend_to(job, &mut attend, || self.is_quiet());
                more = turn.is_some() && !self.is_quiet();
                own = turn;
            }
            if !more {
                self.wait(own.is_some().then_some(&mut attend));
            }
            if own.is_none() {
                attend.idle();
            }
        }
    }

    /// Nobody wants anything of the thread but to go on.
    fn is_quiet(&self) -> bool {
        let mailbox = lock(&self.mailbox);
        !mailbox.stop && !mailbox.end && mailbox.job.is_none()
    }

    /// Does what the mailbox says. False: the thread ends.
    fn obey(&self, own: &mut Option<Job>, attend: &mut impl Attend) -> bool {
        let mut mailbox = lock(&self.mailbox);
        if mailbox.stop || mailbox.end || mailbox.job.is_some() {
            if own.take().is_some() {
                attend.stop();
            }
            mailbox.busy = false;
            self.stopped.notify_all();
        }
        if let Some(job) = mailbox.job.take() {
            *own = Some(job);
            mailbox.busy = true;
        }
        !mailbox.end
    }

    /// Waits for the bell, and for what `attend` waits for.
    fn wait(&self, mut attend: Option<&mut impl Attend>) {
        let files = attend.as_ref().map(|attend| attend.files()).unwrap_or_default();
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        fds.extend(files.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)));
        let deadline = attend.as_ref().and_then(|attend| attend.deadline());
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let _ = poll(&mut fds, left.as_ref());
        let came: Vec<_> = fds.iter().skip(1).map(PollFd::revents).collect();
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        if let Some(attend) = &mut attend {
            attend.ready(&came);
        }
    }

    /// The thread has gone.
    fn leave(&self) {
        let mut mailbox = lock(&self.mailbox);
        (mailbox.end, mailbox.busy) = (true, false);
        self.stopped.notify_all();
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        self.stop();
        if let Self::Thread { shared, handle } = self {
            lock(&shared.mailbox).end = true;
            shared.ring();
            handle.take().map(JoinHandle::join);
        }
    }
}

impl fmt::Debug for Attendant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attendant").finish_non_exhaustive()
    }
}
