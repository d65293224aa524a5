//! One port: a byte stream each way, and whether its two sides have it open.

use super::control::{Message, PORT_ADD, PORT_NAME, PORT_OPEN};
use super::saved::{News, PortState};
use crate::saved::{Check, RestoreError};
use crate::virtio::Queue;
use crate::virtio::chain::{Broken, Chain};
use std::collections::VecDeque;

/// Bytes that are taken from the guest at once.
const CHUNK: usize = 64 << 10;

/// Where a port's output goes. Called with the device locked: it neither blocks nor calls back.
pub trait PortOutput: Send {
    /// Whether [`PortOutput::put`] would not wait. Where it says no, the device has to be told when
    /// there is room ([`super::ConsolePort::wake`]).
    fn has_room(&mut self) -> bool;

    /// Takes all of `bytes`. It waits for room only where the device is served
    /// [at once](super::super::Service::AtOnce).
    fn put(&mut self, bytes: &[u8]);

    /// The guest has closed the port: nothing more will come.
    fn close(&mut self);
}

/// What a port counts, from when the machine was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// What it is called.
    pub name: String,
    /// Bytes that the guest has received.
    pub received: u64,
    /// Bytes that the guest has sent.
    pub sent: u64,
}

/// A queue that is looked into when the driver notifies.
pub(super) struct Polled {
    pub(super) queue: Queue,
    /// The driver has to notify.
    resting: bool,
}

impl Polled {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, resting: true }
    }

    /// The next chain. Where there is none, the driver will notify.
    pub(super) fn next(&mut self) -> Result<Option<Chain>, Broken> {
        loop {
            if std::mem::take(&mut self.resting) {
                self.queue.busy()?;
            }
            if let Some(chain) = self.queue.next()? {
                return Ok(Some(chain));
            }
            self.resting = true;
            if !self.queue.rest()? {
                return Ok(None);
            }
        }
    }
}

/// The queue of what the guest receives.
struct Incoming {
    polled: Polled,
    /// Taken from it, to be filled.
    chains: VecDeque<Chain>,
}

/// The queue of what the guest sends.
struct Outgoing {
    polled: Polled,
    /// The chain in progress, without what has been taken of it.
    chain: Option<Chain>,
}

/// See the module.
pub(super) struct Port {
    number: u32,
    output: Option<Box<dyn PortOutput>>,
    /// Called when there is room for input, if there was none.
    pub(super) drained: Option<Box<dyn Fn() + Send>>,
    /// The input has found no room.
    waits: bool,
    guest_open: bool,
    ending: bool,
    host_open: bool,
    news: News,
    taken: u64,
    incoming: Option<Incoming>,
    outgoing: Option<Outgoing>,
    stats: PortStats,
}

impl Port {
    pub(super) fn new(number: u32, name: String, output: Option<Box<dyn PortOutput>>) -> Self {
        Self {
            number,
            output,
            drained: None,
            waits: false,
            guest_open: false,
            ending: false,
            host_open: true,
            news: News::default(),
            taken: 0,
            incoming: None,
            outgoing: None,
            stats: PortStats { name, ..PortStats::default() },
        }
    }

    pub(super) fn stats(&self) -> &PortStats {
        &self.stats
    }

    /// Serves these queues from now on.
    pub(super) fn connect(&mut self, incoming: Option<Queue>, outgoing: Option<Queue>) {
        let (chains, chain) = (VecDeque::new(), None);
        let polled = |queue: Option<Queue>| queue.map(Polled::new);
        self.incoming = polled(incoming).map(|polled| Incoming { polled, chains });
        self.outgoing = polled(outgoing).map(|polled| Outgoing { polled, chain });
    }

    /// A queue that it serves, if there is one.
    pub(super) fn queue(&self) -> Option<&Queue> {
        let incoming = self.incoming.as_ref().map(|incoming| &incoming.polled.queue);
        incoming.or_else(|| self.outgoing.as_ref().map(|outgoing| &outgoing.polled.queue))
    }

    /// Serves none.
    pub(super) fn disconnect(&mut self) {
        self.connect(None, None);
    }

    /// The driver begins anew.
    pub(super) fn reset(&mut self) {
        (self.guest_open, self.ending, self.taken) = (false, false, 0);
        self.news = News::default();
    }

    /// The driver is there: it is to be told of this port.
    pub(super) fn announce(&mut self) {
        self.news.added = true;
    }

    /// The driver knows this port.
    pub(super) fn ready(&mut self) {
        self.news.name = true;
        self.news.open |= self.host_open;
    }

    /// The guest has opened or closed it.
    pub(super) fn guest_opens(&mut self, open: bool) {
        self.ending |= self.guest_open && !open;
        self.guest_open = open;
    }

    /// The host closes it; the guest reads what it has received, and then the end. Whether the host
    /// had it open.
    pub(super) fn hang_up(&mut self) -> bool {
        let was_open = std::mem::take(&mut self.host_open);
        self.news.open |= was_open;
        was_open
    }

    /// What the guest is to be told next.
    pub(super) fn news(&self) -> Option<Vec<u8>> {
        let message = |event, value| Message { id: self.number, event, value }.bytes();
        match self.news {
            News { added: true, .. } => Some(message(PORT_ADD, 1)),
            News { name: true, .. } => {
                Some([&message(PORT_NAME, 1), self.stats.name.as_bytes()].concat())
            }
            News { open: true, .. } => Some(message(PORT_OPEN, self.host_open.into())),
            _ => None,
        }
    }

    /// It has been told.
    pub(super) fn told(&mut self) {
        let News { added, name, open } = &mut self.news;
        if let Some(first) = [added, name, open].into_iter().find(|news| **news) {
            *first = false;
        }
    }

    /// Bytes that the guest takes now. Where that is 0, `drained` is called later.
    pub(super) fn room(&mut self) -> Result<u64, Broken> {
        let mut room = 0;
        if let Some(incoming) = self.incoming.as_mut().filter(|_| self.guest_open) {
            while let Some(chain) = incoming.polled.next()? {
                incoming.chains.push_back(chain);
            }
            room = incoming.chains.iter().map(|chain| chain.writable.len()).sum();
        }
        self.waits = room == 0;
        Ok(room)
    }

    /// Gives `bytes` to the guest; how many it has taken.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let Some(incoming) = &mut self.incoming else { return Ok(0) };
        let queue = &incoming.polled.queue;
        let mut rest = bytes;
        while !rest.is_empty()
            && let Some(Chain { head, readable: _, writable }) = incoming.chains.pop_front()
        {
            let room = writable.len().min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at(room);
            // A buffer that is no RAM stays empty.
            let written = writable.write(queue.ram(), now).map_or(0, |()| room);
            queue.complete(head, written as u32)?;
            rest = if written == 0 { rest } else { later };
        }
        let count = bytes.len() - rest.len();
        self.stats.received += count as u64;
        Ok(count)
    }

    /// Tells who waits with input of room that there is.
    pub(super) fn look_for_room(&mut self) -> Result<(), Broken> {
        if self.waits
            && self.room()? > 0
            && let Some(drained) = &self.drained
        {
            drained();
        }
        Ok(())
    }

    /// Takes some of what the guest sends, where the output has room or may `wait` for it. Whether
    /// it did something.
    pub(super) fn send(&mut self, wait: bool, buffer: &mut Vec<u8>) -> Result<bool, Broken> {
        let Some(outgoing) = &mut self.outgoing else { return Ok(false) };
        let Outgoing { polled, chain } = outgoing;
        if chain.is_none() {
            *chain = polled.next()?;
            if let Some(chain) = chain {
                chain.readable = chain.readable.split_off(self.taken);
            }
        }
        let Some(mut now) = chain.take() else { return Ok(self.end()) };
        let wanted = self.host_open && !now.readable.is_empty();
        if let Some(output) = self.output.as_mut().filter(|_| wanted) {
            if !wait && !output.has_room() {
                *chain = Some(now);
                return Ok(false);
            }
            let later = now.readable.split_off(CHUNK as u64);
            let count = now.readable.len() as usize;
            buffer.resize(count, 0);
            // What is no RAM is left out.
            if now.readable.read(polled.queue.ram(), buffer).is_ok() {
                output.put(buffer);
                self.stats.sent += count as u64;
            }
            self.taken += count as u64;
            now.readable = later;
            if !now.readable.is_empty() {
                *chain = Some(now);
                return Ok(true);
            }
        }
        self.taken = 0;
        polled.queue.complete(now.head, 0)?;
        Ok(true)
    }

    /// All that the guest has sent is taken. Whether that was the end.
    fn end(&mut self) -> bool {
        let ends = std::mem::take(&mut self.ending);
        if ends && let Some(output) = self.output.as_mut().filter(|_| self.host_open) {
            output.close();
            self.hang_up();
        }
        ends
    }

    /// The saved state, of a port that serves no queue.
    pub(super) fn save(&self) -> PortState {
        let Self {
            number: _,
            output: _,
            drained: _,
            waits: _,
            guest_open,
            ending,
            host_open,
            news,
            taken,
            incoming: _,
            outgoing: _,
            stats,
        } = self;
        PortState {
            name: stats.name.clone(),
            guest_open: *guest_open,
            ending: *ending,
            host_open: *host_open,
            news: *news,
            taken: *taken,
        }
    }

    /// That `state` is such a port's.
    pub(super) fn check(&self, check: Check, state: &PortState) -> Result<(), RestoreError> {
        check.that(state.name == self.stats.name, "name", &state.name, &self.stats.name)
    }

    /// Takes over `state`, which is checked.
    pub(super) fn restore(&mut self, state: &PortState) {
        let &PortState { name: _, guest_open, ending, host_open, news, taken } = state;
        (self.guest_open, self.ending, self.host_open) = (guest_open, ending, host_open);
        (self.news, self.taken) = (news, taken);
        if !host_open && let Some(output) = &mut self.output {
            output.close();
        }
    }
}
