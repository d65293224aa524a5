//! The ends of a line: where its input comes from and where its output goes.

use crate::end::End;
use crate::panic::{SILENCE, Witness};
use crate::power::Stopper;
use devices::time::Clock;
pub use devices::virtio::console::ConsoleSize;
use devices::virtio::console::PortOutput;
use rustix::fd::BorrowedFd;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// The input of a line. Called on the I/O thread alone, or where there is none, on that of
/// the processors.
pub trait Input: Send {
    /// The descriptor to poll for reading; `None` while nothing shall be read: the queue is full,
    /// or the input ended.
    fn source(&self) -> Option<BorrowedFd<'_>>;
    /// The source is readable (or at its end): take what is there without blocking. `Err` ends the
    /// run.
    ///
    /// # Errors
    /// Why the run is to end.
    fn read(&mut self) -> Result<(), End>;
    /// Up to `room` bytes that the guest shall receive now. `room` is what the guest takes at
    /// the moment.
    fn take(&mut self, room: usize) -> Vec<u8>;
    /// How large the window is that the line is seen through, if that is news. Only a port that is
    /// a console tells the guest.
    fn size(&mut self) -> Option<ConsoleSize> {
        None
    }
    /// Whether nothing more will be there to be taken: a line that has an end is at it.
    fn has_ended(&self) -> bool {
        false
    }
}

/// One line of the machine: a serial one, or a port of a console device.
#[derive(Default)]
pub struct Line {
    /// The source of its input, if it has one.
    pub input: Option<Box<dyn Input>>,
    /// Where its output goes; lost if nowhere. Dropped when the guest ends it, which it can at a
    /// port.
    pub output: Option<Box<dyn Write + Send>>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, output } = self;
        write!(f, "Line {{ input: {}, output: {} }}", input.is_some(), output.is_some())
    }
}

/// Output that may wait in memory before a processor has to wait for it.
const QUEUE_MAX: usize = 1 << 20;

/// Carries output to a slow place on a thread of its own, so that a processor rarely waits for the
/// host.
///
/// The mutex is a leaf, taken with the UART locked.
#[derive(Debug)]
pub(crate) struct Pump {
    shared: Arc<Shared>,
    stopper: Stopper,
}

/// A line's output as the machine's other threads see it.
#[derive(Clone, Debug)]
pub(crate) struct Output(Arc<Shared>);

impl Output {
    /// Another guest begins: what was heard of this one's panic is forgotten.
    pub(crate) fn begin_anew(&self) {
        if let Some(mut witness) = self.0.witness() {
            witness.begin_anew();
        }
    }

    /// Waits until everything has been written, up to `deadline`; whether it has.
    pub(crate) fn is_written_by(&self, deadline: Instant) -> bool {
        self.0.drain(Some(deadline))
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Of a line that a kernel may use. A leaf, too.
    witness: Option<Mutex<Witness>>,
    /// Who is told of room, once it was refused some.
    room: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<u8>,
    /// The thread is writing what it has taken from the queue.
    writing: bool,
    /// The guest has ended its output: nothing will follow what is queued.
    ended: bool,
    /// There was no room for something.
    refused: bool,
    /// Until when a little output waits for more.
    gathering: Option<Instant>,
    /// Somebody waits until all is written.
    hurried: usize,
    /// Nothing more is accepted: the place is gone, or the machine has stopped.
    closed: bool,
    /// What the place's refusal means to the machine.
    end: Option<End>,
}

/// While output flows, a little of it waits so long for more: then the thread and the place's
/// reader wake for some kilobytes, not for each byte of a UART. The first of it never waits.
const GATHER: Duration = Duration::from_millis(1);
/// As much does not wait.
const ENOUGH: usize = 16 << 10;

/// How long a writer waits for room until it checks whether the run has ended.
const LOOK: Duration = Duration::from_millis(100);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    fn witness(&self) -> Option<MutexGuard<'_, Witness>> {
        self.witness.as_ref().map(sync::lock)
    }

    fn has_panicked(&self) -> bool {
        self.witness().is_some_and(|witness| witness.has_ended())
    }

    fn report(&self) -> Option<String> {
        self.witness().and_then(|witness| witness.report())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        sync::wait(&self.changed, state)
    }
}

impl Pump {
    /// Starts the thread that writes to `place` what a guest says. Where its kernel may speak, too,
    /// its time is `clock`.
    ///
    /// # Errors
    /// The host refuses another thread.
    pub(crate) fn start(
        mut place: Box<dyn Write + Send>,
        stopper: Stopper,
        clock: Option<Arc<dyn Clock>>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            witness: clock.map(Witness::new).map(Mutex::new),
            room: OnceLock::new(),
        });
        let mine = Arc::clone(&shared);
        let kept = stopper.clone();
        let work = move || {
            // It reads what a guest says. The place is open; where the host refuses, all is as
            // before.
            let _ = host::give_up_privileges();
            let owner = stopper.owner();
            let _counted = owner.count_thread();
            let _ = owner.run(|| mine.carry_to(&mut *place, &stopper));
            close(&mine);
        };
        std::thread::Builder::new().name("console".into()).spawn(work)?;
        Ok(Self { shared, stopper: kept })
    }

    /// What a UART writes to.
    pub(crate) fn writer(&self) -> Box<dyn Write + Send> {
        Box::new(PumpWriter { shared: Arc::clone(&self.shared), stopper: self.stopper.clone() })
    }

    /// What a port writes to.
    pub(crate) fn port(&self) -> Box<dyn PortOutput> {
        Box::new(PumpWriter { shared: Arc::clone(&self.shared), stopper: self.stopper.clone() })
    }

    /// `room` is called when a port's output takes something again.
    pub(crate) fn on_room(&self, room: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.room.set(Box::new(room));
    }

    /// Waits until everything has been written, for `limit` at the most.
    pub(crate) fn drain(&self, limit: Option<Duration>) {
        self.shared.drain(limit.map(|limit| Instant::now() + limit));
    }

    /// What the place's refusal means to the machine, if it has refused anything.
    pub(crate) fn lost(&self) -> Option<End> {
        self.shared.lock().end.clone()
    }

    /// The last lines of a guest's kernel that has panicked on this line.
    pub(crate) fn panic(&self) -> Option<String> {
        self.shared.report()
    }

    /// For the machine's other threads.
    pub(crate) fn output(&self) -> Output {
        Output(Arc::clone(&self.shared))
    }

    /// Accepts nothing more, and lets go of who waits; what is queued is still written.
    pub(crate) fn close(&self) {
        close(&self.shared);
    }
}

/// Ends the thread once no writer is left.
impl Drop for Pump {
    fn drop(&mut self) {
        self.close();
    }
}

/// What output that failed means: a reader that has gone (a terminal's reader leaves EIO), or a
/// place that is full.
fn end_of_output(error: &io::Error) -> End {
    let hung_up = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    match error.kind() {
        io::ErrorKind::BrokenPipe => End::OutputClosed,
        _ if hung_up => End::OutputClosed,
        _ => End::OutputFailed(error.to_string()),
    }
}

fn close(shared: &Shared) {
    let mut state = shared.lock();
    state.closed = true;
    let refused = std::mem::take(&mut state.refused);
    drop(state);
    shared.tell_of_room(refused);
}

impl Shared {
    /// The state has changed; who was `refused` room has some now.
    fn tell_of_room(&self, refused: bool) {
        self.changed.notify_all();
        if let Some(room) = self.room.get().filter(|_| refused) {
            room();
        }
    }

    /// Writes what is queued to `place`, until the queue is at its end, or closed and empty.
    fn carry_to(&self, place: &mut (dyn Write + Send), stopper: &Stopper) {
        while let Some(bytes) = self.next(stopper) {
            if let Some(mut witness) = self.witness() {
                witness.hear(&bytes);
            }
            let result = place.write_all(&bytes).and_then(|()| place.flush());
            let mut state = self.lock();
            state.writing = false;
            state.gathering = Some(Instant::now() + GATHER);
            state.closed |= result.is_err();
            state.end = result.as_ref().err().map(end_of_output).or(state.end.take());
            self.changed.notify_all();
            drop(state);
            if let Err(error) = result {
                tracing::debug!(target: "console", %error, "output closed");
                stopper.stop(end_of_output(&error));
            }
        }
    }

    /// Waits until everything has been written, or the place is gone; false: the deadline has
    /// passed before that.
    fn drain(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        state.hurried += 1;
        self.changed.notify_all();
        while (state.writing || !state.queue.is_empty()) && !state.closed {
            let Some(deadline) = deadline else {
                state = self.wait(state);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.hurried -= 1;
                return false;
            }
            (state, _) = sync::wait_for(&self.changed, state, left);
        }
        state.hurried -= 1;
        true
    }

    /// Waits for more output where there is little and more is likely to come soon.
    fn gather<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(until) = state.gathering.take() else { return state };
        while state.queue.len() < ENOUGH && !state.closed && !state.ended && state.hurried == 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (state, _) = sync::wait_for(&self.changed, state, left);
        }
        state
    }

    /// What to write next; `None` when closed or ended, and empty.
    fn next(&self, stopper: &Stopper) -> Option<Vec<u8>> {
        let mut state = self.lock();
        while state.queue.is_empty() {
            if state.closed || state.ended {
                return None;
            }
            if !self.has_panicked() || stopper.is_ended() {
                state = self.wait(state);
                continue;
            }
            let silent;
            (state, silent) = sync::wait_for(&self.changed, state, SILENCE);
            if let Some(report) =
                self.report().filter(|_| silent.timed_out() && state.queue.is_empty())
            {
                stopper.stop(End::GuestPanic(report));
            }
        }
        let mut state = self.gather(state);
        state.writing = true;
        let bytes = std::mem::take(&mut state.queue);
        let refused = std::mem::take(&mut state.refused);
        drop(state);
        self.tell_of_room(refused);
        Some(bytes)
    }
}

struct PumpWriter {
    shared: Arc<Shared>,
    stopper: Stopper,
}

impl Write for PumpWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        while state.queue.len() >= QUEUE_MAX && !state.closed && !self.stopper.is_ended() {
            (state, _) = sync::wait_for(&self.shared.changed, state, LOOK);
        }
        if !state.closed && state.queue.len() < QUEUE_MAX {
            let before = state.queue.len();
            state.queue.extend_from_slice(bytes);
            if before == 0 || before < ENOUGH && state.queue.len() >= ENOUGH {
                self.shared.changed.notify_all();
            }
        }
        Ok(bytes.len()) // a line without a listener is no error of the sender's
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PortOutput for PumpWriter {
    fn has_room(&mut self) -> bool {
        let mut state = self.shared.lock();
        let room = state.closed || state.queue.len() < QUEUE_MAX;
        state.refused |= !room;
        room
    }

    fn put(&mut self, bytes: &[u8]) {
        let _ = self.write(bytes);
    }

    fn close(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::time::ManualClock;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    struct Slow {
        gate: Receiver<()>,
        seen: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.gate.recv().is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let _ = self.seen.send(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stopper() -> Stopper {
        let notifier = crate::notifier::Notifier::new().expect("a descriptor");
        Stopper(Arc::new(crate::control::Control::new(vec![], notifier)))
    }

    fn slow() -> (Pump, Sender<()>, Receiver<Vec<u8>>) {
        let (open, gate) = channel();
        let (seen, read) = channel();
        let clock = ManualClock::new();
        let pump = Pump::start(Box::new(Slow { gate, seen }), stopper(), Some(clock));
        (pump.expect("a thread"), open, read)
    }

    #[test]
    fn a_slow_reader_holds_the_writer_back_and_loses_nothing() {
        let (pump, open, read) = slow();
        let mut writer = pump.writer();
        let sender = thread::spawn(move || {
            for n in 0..300_u32 {
                writer.write_all(&vec![n as u8; 10_000]).expect("never fails");
            }
        });
        thread::sleep(Duration::from_millis(50));
        assert!(!sender.is_finished(), "3 MB fit into a queue of 1 MiB");
        for _ in 0..1000 {
            let _ = open.send(());
        }
        sender.join().expect("no panic");
        pump.drain(None);
        let bytes: Vec<u8> = read.try_iter().flatten().collect();
        assert_eq!(bytes.len(), 3_000_000);
        assert!(bytes.chunks(10_000).enumerate().all(|(n, c)| c.iter().all(|&b| b == n as u8)));
    }

    #[test]
    fn a_closed_place_holds_nobody() {
        let (pump, open, _read) = slow();
        drop(open);
        let mut writer = pump.writer();
        for _ in 0..300 {
            writer.write_all(&[0; 10_000]).expect("dropped silently");
        }
        pump.drain(None);
    }

    #[test]
    fn draining_a_stuck_place_is_bounded() {
        let (pump, open, _read) = slow();
        pump.writer().write_all(b"x").expect("queued");
        pump.drain(Some(Duration::from_millis(20)));
        let soon = || Instant::now() + Duration::from_millis(20);
        assert!(!pump.output().is_written_by(soon()));
        open.send(()).expect("it waits");
        assert!(pump.output().is_written_by(soon() + Duration::from_secs(5)));
    }

    /// The first of it comes at once, the rest in pieces, and all of it when somebody waits for it.
    #[test]
    fn output_that_flows_is_gathered() {
        let (pump, open, read) = slow();
        for _ in 0..100_000 {
            open.send(()).expect("it waits");
        }
        let mut writer = pump.writer();
        for byte in 0..50_000_u32 {
            writer.write_all(&[byte as u8]).expect("queued");
        }
        pump.drain(None);
        let pieces: Vec<Vec<u8>> = read.try_iter().collect();
        let all = pieces.concat();
        assert!(all.len() == 50_000 && (0_u32..).zip(&all).all(|(n, &byte)| n as u8 == byte));
        assert!(pieces.len() < 5000, "{} pieces", pieces.len());
        // Nobody has to wait for one that waits for more.
        let began = Instant::now();
        for _ in 0..100 {
            writer.write_all(b"x").expect("queued");
            pump.drain(None);
        }
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
