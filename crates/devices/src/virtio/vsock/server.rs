//! What serves the queues: packets of the guest's in, the host's bytes and notes out.

use super::connection::{Connection, Host, Ports, VsockPort, waits};
use super::greeting::{Greeting, Heard};
use super::packet::{HEADER, Header, RW, SHUT_BOTH, SHUT_SEND, SHUTDOWN};
use super::table::{CONNECTIONS, Table};
use crate::virtio::Queue;
use crate::virtio::attendant::{Attend, Job};
use crate::virtio::chain::{Broken, Chain};
use rustix::event::PollFlags;
use rustix::fd::{AsFd as _, BorrowedFd};
use std::collections::VecDeque;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use sync::lock;

/// Packets each way in a turn.
const BATCH: usize = 64;
/// Bytes of data in a packet.
const MOST: usize = 64 << 10;

/// The queues' numbers.
const TO_GUEST: usize = 0;
const TO_HOST: usize = 1;
const EVENTS: usize = 2;
/// Bytes of an event, and the one that there is: all connections have ended.
const EVENT: usize = 4;
const TRANSPORT_RESET: u32 = 0;

/// What the device and its thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// All connections are to end.
    pub(super) forget: AtomicBool,
    /// The guest has not been told that they have.
    pub(super) untold: AtomicBool,
    /// Streams that have come by the entrance, and which ports they want. A leaf.
    pub(super) arrivals: Mutex<VecDeque<(UnixStream, VsockPort)>>,
}

/// See the module.
pub(super) struct Server {
    listener: Option<UnixListener>,
    table: Table,
    shared: Arc<Shared>,
    greetings: Vec<Greeting>,
    /// The host has no descriptor for another program: it waits for a turn that something else
    /// brings.
    refused: bool,
    /// A buffer of the guest's that nothing has been put into yet.
    spare: Option<Chain>,
    /// The guest has buffers, as far as is known.
    takes: bool,
    /// For data on its way.
    buffer: Vec<u8>,
}

/// Whose file it is.
#[derive(Clone, Copy)]
enum Whose {
    /// A program's that comes, or has not said yet what it wants.
    Program,
    Connection(Ports),
}

impl Server {
    pub(super) fn new(listener: Option<UnixListener>, table: Table, shared: Arc<Shared>) -> Self {
        Self {
            listener,
            table,
            shared,
            greetings: Vec::new(),
            refused: false,
            spare: None,
            takes: true,
            buffer: vec![0; MOST],
        }
    }

    fn is_full(&self) -> bool {
        self.table.connections.len() + self.greetings.len() >= CONNECTIONS
    }

    /// What is waited for, and for what.
    fn interests(&self) -> Vec<(Whose, BorrowedFd<'_>, PollFlags)> {
        let mut all = Vec::new();
        if let Some(listener) = self.listener.as_ref().filter(|_| !self.is_full() && !self.refused)
        {
            all.push((Whose::Program, listener.as_fd(), PollFlags::IN));
        }
        for greeting in &self.greetings {
            all.push((Whose::Program, greeting.stream.as_fd(), PollFlags::IN));
        }
        for (&ports, connection) in &self.table.connections {
            if let Some(flags) = connection.interest(self.takes) {
                all.push((Whose::Connection(ports), connection.stream.as_fd(), flags));
            }
        }
        all
    }

    fn welcome(&mut self) {
        while !self.is_full() {
            let Some((stream, port)) = lock(&self.shared.arrivals).pop_front() else { break };
            self.table.connect(stream, port.0);
        }
        while let Some(listener) = self.listener.as_ref().filter(|_| !self.is_full()) {
            match listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    self.greetings.push(Greeting::new(stream));
                }
                Ok(_) => {}
                Err(error) => {
                    self.refused = !waits(&error);
                    return;
                }
            }
        }
    }

    fn greet(&mut self) {
        for mut greeting in std::mem::take(&mut self.greetings) {
            match greeting.hear() {
                Heard::Part => self.greetings.push(greeting),
                Heard::Port(port) => self.table.connect(greeting.stream, port),
                Heard::Nonsense => {}
            }
        }
    }

    /// Ends all connections where the guest has forgotten them.
    fn forget(&mut self) {
        if self.shared.forget.swap(false, Ordering::SeqCst) {
            self.table.forget();
            self.greetings.clear();
        }
    }

    /// Tells a restored guest that its connections have ended (5.10.6.6.1). True: there may be a
    /// buffer for that.
    fn tell(&self, events: &Queue) -> Result<bool, Broken> {
        for _ in 0..BATCH {
            if !self.shared.untold.load(Ordering::SeqCst) {
                return Ok(false);
            }
            let Some(Chain { head, writable, .. }) = events.next()? else {
                if events.rest()? {
                    continue;
                }
                return Ok(false);
            };
            let event = TRANSPORT_RESET.to_le_bytes();
            let told =
                writable.len() >= EVENT as u64 && writable.write(events.ram(), &event).is_ok();
            self.shared.untold.store(!told, Ordering::SeqCst);
            events.complete(head, if told { EVENT as u32 } else { 0 })?;
        }
        Ok(true)
    }

    /// Takes packets from the guest. True: there are more.
    fn take(&mut self, queue: &Queue) -> Result<bool, Broken> {
        for _ in 0..BATCH {
            if self.table.is_full() {
                return Ok(false);
            }
            let Some(Chain { head, mut readable, writable: _ }) = queue.next()? else {
                if queue.rest()? {
                    continue;
                }
                return Ok(false);
            };
            let mut header = [0; HEADER];
            let data = readable.split_off(HEADER as u64);
            let whole = readable.len() == HEADER as u64;
            if whole && readable.read(queue.ram(), &mut header).is_ok() {
                let header = Header::parse(&header);
                let there = u64::from(header.len) <= data.len();
                let bytes = self.buffer.get_mut(..header.len as usize).filter(|_| there);
                if let Some(bytes) = bytes
                    && data.read(queue.ram(), bytes).is_ok()
                {
                    self.table.take(&header, bytes);
                } else {
                    tracing::debug!(target: "virtio", "dropped: {header:?}");
                }
            }
            queue.complete(head, 0)?;
        }
        Ok(true)
    }

    /// Gives the guest what there is for it. True: there is more.
    fn give(&mut self, queue: &Queue) -> Result<bool, Broken> {
        for _ in 0..BATCH {
            let chain = match self.spare.take() {
                Some(chain) => chain,
                None => match queue.next()? {
                    Some(chain) => chain,
                    None if queue.rest()? => continue,
                    None => {
                        self.takes = false;
                        return Ok(false);
                    }
                },
            };
            let room = (chain.writable.len() as usize).saturating_sub(HEADER);
            if chain.writable.len() < HEADER as u64 {
                queue.complete(chain.head, 0)?;
                continue;
            }
            let Some((header, len)) = self.next_packet(room) else {
                self.spare = Some(chain);
                return Ok(false);
            };
            let Chain { head, readable: _, mut writable } = chain;
            let data = writable.split_off(HEADER as u64);
            let (header, bytes) = (header.bytes(), &self.buffer[..len]);
            let ram = queue.ram();
            let written = writable.write(ram, &header).is_ok() && data.write(ram, bytes).is_ok();
            // What the guest has no RAM for is lost to it.
            queue.complete(head, if written { (HEADER + len) as u32 } else { 0 })?;
        }
        Ok(true)
    }

    /// The next packet for a buffer with `room` for data: its header, and how much data is in the
    /// buffer.
    fn next_packet(&mut self, room: usize) -> Option<(Header, usize)> {
        loop {
            if let Some(header) = self.table.next_note() {
                return Some((header, 0));
            }
            let ports = if room > 0 { self.table.next_sender()? } else { return None };
            let connection = self.table.connections.get_mut(&ports)?;
            let into = &mut self.buffer[..room.min(MOST)];
            let read = connection.read(into);
            let ended = read == Ok(None) && connection.host == Host::Sent;
            if let Ok(Some(len)) = read {
                let header = self.table.header(ports, RW, 0);
                self.table.settle(ports, Ok(()));
                return Some((Header { len: len as u32, ..header }, len));
            }
            if ended {
                self.table.note(ports, SHUTDOWN, SHUT_SEND);
            }
            self.table.settle(ports, read.map(|_| ()));
        }
    }

    /// Gives the streams what waits for them.
    fn flush(&mut self) {
        let all: Vec<_> = self.table.connections.keys().copied().collect();
        for ports in all {
            let connection = self.table.connections.get_mut(&ports);
            let done = connection.map_or(Ok(()), Connection::flush);
            self.table.settle(ports, done);
        }
    }
}

impl Attend for Server {
    fn attend(&mut self, job: &Job) -> Result<bool, (usize, Broken)> {
        let queue = |number| job.queues.get(number).and_then(Option::as_ref);
        self.takes = true;
        self.forget();
        let mut more = false;
        if let Some(events) = queue(EVENTS) {
            more |= self.tell(events).map_err(|why| (EVENTS, why))?;
        }
        self.welcome();
        self.greet();
        if let Some(queue) = queue(TO_HOST) {
            more |= self.take(queue).map_err(|why| (TO_HOST, why))?;
        }
        self.flush();
        if let Some(queue) = queue(TO_GUEST) {
            more |= self.give(queue).map_err(|why| (TO_GUEST, why))?;
        }
        Ok(more)
    }

    fn stop(&mut self) {
        self.spare = None;
    }

    fn idle(&mut self) {
        self.forget();
    }

    fn files(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        self.interests().into_iter().map(|(_, fd, flags)| (fd, flags)).collect()
    }

    fn ready(&mut self, files: &[PollFlags]) {
        let whose: Vec<_> = self.interests().into_iter().map(|(whose, ..)| whose).collect();
        for (whose, &came) in whose.into_iter().zip(files) {
            // Who listens and who greets is looked at in each turn.
            let Whose::Connection(ports) = whose else { continue };
            let connection = self.table.connections.get_mut(&ports);
            if connection.is_some_and(|connection| connection.came(came)) {
                self.table.note(ports, SHUTDOWN, SHUT_BOTH);
            }
        }
    }
}
