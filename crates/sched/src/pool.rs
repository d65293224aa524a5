//! Worker threads that run the processors of all machines of the process.

use crate::clock::Clock;
use crate::hub::Hub;
use crate::ids::{MachineId, TaskId, Worker};
use crate::rivals::Rivals;
use crate::share::Share;
use crate::switch;
use crate::task::Task;
use crate::usage::Usage;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vcpu::Signals;

/// How long a task runs while others wait, unless its user decides otherwise.
pub const QUANTUM: Duration = Duration::from_millis(4);

/// Worker threads, and what they share. Clones are the same pool; its threads end with the last
/// clone and the last [`Group`].
#[derive(Clone, Debug)]
pub struct Pool(Arc<Threads>);

#[derive(Debug)]
struct Threads {
    hub: Arc<Hub>,
    handles: Vec<JoinHandle<()>>,
}

/// How many workers there should be for so many tasks: as many as are `wanted`, else as this
/// process may use of the host's processors, but no more than tasks.
pub fn workers(wanted: Option<NonZeroUsize>, tasks: usize) -> NonZeroUsize {
    let host = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let most = NonZeroUsize::new(tasks).unwrap_or(NonZeroUsize::MIN);
    wanted.unwrap_or_else(host).min(most)
}

impl Pool {
    /// A pool of `workers` threads. A task runs for `quantum` while others wait for its worker, and
    /// as long as it likes while none does.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn new(workers: NonZeroUsize, quantum: Duration) -> io::Result<Self> {
        let hub = Arc::new(Hub::new(workers.get(), quantum, Clock::start()));
        let mut threads = Threads { hub, handles: Vec::new() };
        for at in 0..workers.get() {
            threads.start(&format!("processor {at}"), move |hub| switch::run(hub, Worker(at)))?;
        }
        threads.start("quantum", |hub| while hub.watch() {})?;
        Ok(Self(Arc::new(threads)))
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.0.handles.len() - 1
    }

    /// A machine that gets `share` of the workers' time.
    pub fn enlist(&self, share: Share) -> Group {
        Group { id: self.0.hub.add_machine(share), pool: self.clone() }
    }
}

impl Threads {
    fn start(&mut self, name: &str, work: impl FnOnce(&Hub) + Send + 'static) -> io::Result<()> {
        let hub = Arc::clone(&self.hub);
        let handle = thread::Builder::new().name(name.into()).spawn(move || work(&hub))?;
        self.handles.push(handle);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.hub.close();
        let this = thread::current().id();
        // The last clone may have been that of a task, which is dropped by a worker.
        for handle in self.handles.drain(..).filter(|handle| handle.thread().id() != this) {
            let _ = handle.join();
        }
    }
}

/// The tasks of one machine. They leave the pool when this is dropped, wherever they are; not to be
/// dropped, nor held, by one of them.
#[derive(Debug)]
pub struct Group {
    id: MachineId,
    pool: Pool,
}

impl Group {
    /// A task that could run from now on, unless the group is held. `signals` wake and kick it.
    pub fn add(&self, task: Box<dyn Task>, signals: &Arc<Signals>) -> TaskId {
        let id = self.hub().add_task(self.id, task, signals);
        self.hub().wake(id);
        id
    }

    /// None of its tasks runs once this returns, until [`Group::release`] has been called as often.
    /// They wait without a worker, and their waiting is no steal time.
    pub fn hold(&self) {
        self.hub().hold(self.id);
    }

    /// Undoes one [`Group::hold`].
    pub fn release(&self) {
        self.hub().release(self.id);
    }

    /// Counts as its tasks' time, too, what `used` tells: what other threads have used for the
    /// machine in all. It is asked with the scheduler's lock held, and must not block.
    pub fn charge_for(&self, used: impl Fn() -> Duration + Send + 'static) {
        self.hub().charge_for(self.id, Box::new(used));
    }

    /// What a task of this group has had up to now.
    pub fn usage(&self, task: TaskId) -> Usage {
        self.hub().usage(task).unwrap_or_default()
    }

    /// Tells its tasks whether others of them wait for a worker.
    pub fn rivals(&self) -> Rivals {
        self.hub().rivals(self.id)
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.pool.0.hub
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.hub().remove_machine(self.id);
    }
}
