//! The connections of a machine, and what the guest is to be told of them.
//!
//! Bounded: so many connections, so many notes. A guest that takes no notes is not listened to.

use super::connection::{Connection, Phase, Ports, Reset};
use super::packet::{
    CREDIT_REQUEST, CREDIT_UPDATE, HOST_CID, Header, REQUEST, RESPONSE, RST, RW, SHUTDOWN, STREAM,
};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::ops::Bound;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Connections at a time, those included that are being made: each has a descriptor.
pub(super) const CONNECTIONS: usize = 256;
/// Notes that wait for the guest's buffers, from which on it is not listened to.
const NOTES: usize = 1024;
/// The first of the host's ports that are given to programs which connect.
const FIRST_PORT: u32 = 1 << 30;

/// A packet without data for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    ports: Ports,
    op: u16,
    flags: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    guest_cid: u64,
    /// What the sockets of ports begin with, to which the guest connects.
    path: Option<PathBuf>,
    pub(super) connections: BTreeMap<Ports, Connection>,
    notes: VecDeque<Note>,
    next_port: u32,
    /// Whose turn was last.
    last: Ports,
}

impl Table {
    pub(super) fn new(guest_cid: u64, path: Option<PathBuf>) -> Self {
        Self {
            guest_cid,
            path,
            connections: BTreeMap::new(),
            notes: VecDeque::new(),
            next_port: FIRST_PORT,
            last: Ports { guest: 0, host: 0 },
        }
    }

    /// Ends all connections without a word to the guest.
    pub(super) fn forget(&mut self) {
        self.connections.clear();
        self.notes.clear();
    }

    /// Whether the guest has so much to take that it must not say more.
    pub(super) fn is_full(&self) -> bool {
        self.notes.len() >= NOTES
    }

    pub(super) fn note(&mut self, ports: Ports, op: u16, flags: u32) {
        self.notes.push_back(Note { ports, op, flags });
    }

    /// A program of the host's wants `port` of the guest.
    pub(super) fn connect(&mut self, stream: UnixStream, port: u32) {
        let taken = |host| self.connections.contains_key(&Ports { guest: port, host });
        while taken(self.next_port) {
            self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        }
        let ports = Ports { guest: port, host: self.next_port };
        self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        self.connections.insert(ports, Connection::new(stream, Phase::Asked));
        self.note(ports, REQUEST, 0);
    }

    /// The guest's packet, with its data.
    pub(super) fn take(&mut self, header: &Header, data: &[u8]) {
        let ports = Ports { guest: header.src_port, host: header.dst_port };
        if header.src_cid != self.guest_cid {
            return; // from nobody
        }
        if header.op == RST && header.kind == STREAM {
            self.connections.remove(&ports);
            return;
        }
        let done = match self.connections.get_mut(&ports) {
            _ if header.kind != STREAM || header.dst_cid != HOST_CID => Err(Reset),
            Some(connection) => {
                connection.hear(header);
                match header.op {
                    RESPONSE => accept(connection, ports),
                    RW => connection.receive(data),
                    SHUTDOWN => connection.shut(header.flags),
                    CREDIT_UPDATE => Ok(()),
                    CREDIT_REQUEST => {
                        self.note(ports, CREDIT_UPDATE, 0);
                        Ok(())
                    }
                    _ => Err(Reset),
                }
            }
            None if header.op == REQUEST => self.request(ports, header),
            None => Err(Reset),
        };
        self.settle(ports, done);
    }

    /// The guest wants a port of the host's.
    fn request(&mut self, ports: Ports, header: &Header) -> Result<(), Reset> {
        if self.connections.len() >= CONNECTIONS {
            return Err(Reset);
        }
        let mut path = self.path.clone().ok_or(Reset)?.into_os_string();
        path.push(format!("_{}", ports.host));
        let stream = connect(path.as_ref()).map_err(|error| {
            let port = ports.host;
            tracing::debug!(target: "virtio", "the guest wants port {port}: {error}");
            Reset
        })?;
        let mut connection = Connection::new(stream, Phase::Open);
        connection.hear(header);
        self.connections.insert(ports, connection);
        self.note(ports, RESPONSE, 0);
        Ok(())
    }

    /// Something was done with a connection: what follows from it.
    pub(super) fn settle(&mut self, ports: Ports, done: Result<(), Reset>) {
        let over = self.connections.get(&ports).is_some_and(Connection::is_over);
        if over || done.is_err() {
            self.connections.remove(&ports);
            return self.note(ports, RST, 0);
        }
        let Some(connection) = self.connections.get_mut(&ports) else { return };
        if connection.is_stuck() {
            connection.asked = true;
            self.note(ports, CREDIT_REQUEST, 0);
        } else if connection.has_news() {
            connection.tell();
            self.note(ports, CREDIT_UPDATE, 0);
        }
    }

    /// The header of the next note.
    pub(super) fn next_note(&mut self) -> Option<Header> {
        let Note { ports, op, flags } = self.notes.pop_front()?;
        Some(self.header(ports, op, flags))
    }

    /// A connection that has something for the guest, each in its turn.
    pub(super) fn next_sender(&mut self) -> Option<Ports> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let mut all = self.connections.range(after).chain(self.connections.range(..=self.last));
        let (&ports, _) = all.find(|(_, connection)| connection.can_send())?;
        self.last = ports;
        Some(ports)
    }

    /// The header of a packet to the guest, without data.
    pub(super) fn header(&mut self, ports: Ports, op: u16, flags: u32) -> Header {
        let told = self.connections.get_mut(&ports).map(Connection::tell);
        let (buf_alloc, fwd_cnt) = told.unwrap_or_default();
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            len: 0,
            kind: STREAM,
            op,
            flags,
            buf_alloc,
            fwd_cnt,
        }
    }
}

/// The guest has accepted what the host's program wants.
fn accept(connection: &mut Connection, ports: Ports) -> Result<(), Reset> {
    if connection.phase != Phase::Asked {
        return Err(Reset);
    }
    connection.phase = Phase::Open;
    // The first bytes that the stream carries: there is room for them.
    let line = format!("OK {}\n", ports.host);
    connection.stream.write_all(line.as_bytes()).map_err(|_| Reset)
}

/// A stream to the socket at `path`, which does not block; nor does this.
fn connect(path: &std::path::Path) -> std::io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}
