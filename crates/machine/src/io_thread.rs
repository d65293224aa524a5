//! The machine's event loop: timers, console input, the timeout.
//!
//! One thread per machine (a deterministic one has none: [`crate::deterministic`]). It sleeps in
//! poll(2) on the notifier and on the inputs that may be read, until the soonest deadline. It takes
//! a UART's lock to feed it, but does not wait for it: a processor holds it as long as nobody takes
//! the line's output. The UART's drain callback rings the notifier.

use crate::clock::VmClock;
use crate::console::Input;
use crate::end::End;
use crate::notifier::Notifier;
use crate::power::Stopper;
use devices::chipset::Uart;
use devices::time::{Clock as _, TimerQueue};
use devices::virtio::console::ConsolePort;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long until a UART is tried again that a processor had.
const AGAIN: Duration = Duration::from_millis(5);

/// How often it is tried before. An access takes less than a microsecond, but who is in it may just
/// have rung, and wait for this thread's host processor.
const TRIES: usize = 200;

/// One line's input, and what it goes to.
pub(crate) struct Feed {
    pub(crate) input: Box<dyn Input>,
    pub(crate) to: Receiver,
}

/// What takes input.
pub(crate) enum Receiver {
    /// A serial line.
    Uart(Arc<Mutex<Uart>>),
    /// A port of a console device.
    Port(ConsolePort),
}

/// What the thread works on.
pub(crate) struct EventLoop {
    pub(crate) notifier: Notifier,
    pub(crate) clock: Arc<VmClock>,
    pub(crate) timers: Arc<TimerQueue>,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) stopper: Stopper,
    /// Held while timers and inputs are served.
    pub(crate) serving: Arc<Mutex<()>>,
    pub(crate) deadline: Option<Instant>,
    /// An input could not be offered.
    pub(crate) busy: bool,
}

impl EventLoop {
    /// Serves until the run has ended, and gives the inputs back.
    pub(crate) fn run(mut self) -> Vec<Feed> {
        while !self.stopper.is_ended() {
            self.serve();
            if self.deadline.is_some_and(|at| Instant::now() >= at) {
                self.stopper.stop(End::TimedOut);
                break;
            }
            self.sleep();
        }
        self.feeds
    }

    /// Has timers expire that are due, and gives the guest its input.
    fn serve(&mut self) {
        let _serving = sync::lock(&self.serving);
        if self.clock.is_running() {
            self.timers.expire(self.clock.now());
        }
        self.busy = false;
        for feed in &mut self.feeds {
            self.busy |= !feed.offer();
        }
    }

    fn sleep(&mut self) {
        let timeout = self.timeout();
        if let Err(end) = wait(&self.notifier, &mut self.feeds, timeout) {
            self.stopper.stop(end);
        }
    }

    /// How long nothing is due; `None` for ever.
    fn timeout(&self) -> Option<Duration> {
        let host = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timer = self.timers.next_deadline().filter(|_| self.clock.is_running());
        let guest = timer.map(|at| Duration::from_nanos(at.saturating_sub(self.clock.now())));
        [host, guest, self.busy.then_some(AGAIN)].into_iter().flatten().min()
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The time has passed.
    Through,
    /// By the notifier, an input, or a signal of the host's.
    Called,
}

/// Whether more may be read.
pub(crate) fn may_read(feeds: &[Feed]) -> bool {
    feeds.iter().any(|feed| feed.input.source().is_some())
}

/// Waits for the notifier or an input, `timeout` at the most, and reads what is readable.
///
/// # Errors
/// An input ends the machine.
pub(crate) fn wait(
    notifier: &Notifier,
    feeds: &mut [Feed],
    timeout: Option<Duration>,
) -> Result<Waited, End> {
    let timeout = timeout.map(|limit| Timespec {
        tv_sec: limit.as_secs().min(1 << 40) as i64,
        tv_nsec: limit.subsec_nanos().into(),
    });
    let mut fds = vec![PollFd::from_borrowed_fd(notifier.as_fd(), PollFlags::IN)];
    let mut polled = vec![];
    for (index, feed) in feeds.iter().enumerate() {
        if let Some(fd) = feed.input.source() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            polled.push(index);
        }
    }
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) => return Ok(Waited::Through),
        Ok(_) => {}
        // EINTR, or a failure: the caller comes back.
        Err(_) => return Ok(Waited::Called),
    }
    let rung = !fds[0].revents().is_empty();
    let ready: Vec<usize> = fds[1..]
        .iter()
        .zip(polled)
        .filter_map(|(fd, index)| (!fd.revents().is_empty()).then_some(index))
        .collect();
    drop(fds);
    if rung {
        notifier.drain();
    }
    let mut read = |index: usize| feeds.get_mut(index).map_or(Ok(()), |feed| feed.input.read());
    ready.into_iter().try_for_each(&mut read)?;
    Ok(Waited::Called)
}

impl Feed {
    /// Whether the guest takes something now.
    pub(crate) fn is_wanted(&self) -> bool {
        match &self.to {
            Receiver::Uart(uart) => sync::lock(uart).wants_input() > 0,
            Receiver::Port(port) => port.room() > 0,
        }
    }

    /// Gives the guest what it takes now. False: a processor has the UART.
    pub(crate) fn offer(&mut self) -> bool {
        let uart = match &self.to {
            Receiver::Uart(uart) => uart,
            Receiver::Port(port) => {
                if let Some(size) = self.input.size() {
                    port.resize(size);
                }
                while port.receive(|room| self.input.take(room)) > 0 {}
                if self.input.has_ended() {
                    port.hang_up();
                }
                return true;
            }
        };
        let Some(mut uart) = try_soon(uart) else { return false };
        // What it takes it takes at once, and then nothing until the guest has read it.
        let room = uart.wants_input();
        let bytes = if room > 0 { self.input.take(room) } else { Vec::new() };
        if !bytes.is_empty() {
            uart.receive(&bytes);
        }
        true
    }
}

/// The UART, unless a processor keeps it.
fn try_soon(uart: &Mutex<Uart>) -> Option<MutexGuard<'_, Uart>> {
    (0..TRIES).find_map(|_| {
        let uart = sync::try_lock(uart);
        if uart.is_none() {
            std::thread::yield_now();
        }
        uart
    })
}
