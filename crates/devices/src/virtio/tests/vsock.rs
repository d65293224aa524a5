//! The socket device behind its transport: the test is the guest and the host's programs.

use super::driver::*;
use crate::virtio::vsock::{Place, Vsock};
use memory::GuestRam;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use x86::addr::{Gpa, PortWidth};

const CID: u64 = 3;
const HEADER_LEN: usize = 44;
/// Where queue `q` has its rings, a page each, and its buffers.
const RINGS: u64 = 0x1_0000;
const BUFFERS: u64 = 0x4_0000;
/// Bytes of each buffer.
const BUFFER: u64 = 0x1000;

const TO_GUEST: u64 = 0;
const TO_HOST: u64 = 1;
const EVENTS: u64 = 2;

// Operations.
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RST: u16 = 3;
const SHUTDOWN: u16 = 4;
const RW: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

/// A packet: both ports, operation, flags, what the sender has room for and has taken, data.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    guest: u32,
    host: u32,
    op: u16,
    flags: u32,
    room: u32,
    taken: u32,
    data: Vec<u8>,
}

fn packet(guest: u32, host: u32, op: u16) -> Packet {
    Packet { guest, host, op, flags: 0, room: 0x1_0000, taken: 0, data: vec![] }
}

fn data(guest: u32, host: u32, data: &[u8]) -> Packet {
    Packet { data: data.to_vec(), ..packet(guest, host, RW) }
}

impl Packet {
    /// As the guest sends it.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [CID.to_le_bytes(), 2_u64.to_le_bytes()].concat();
        bytes.extend(self.guest.to_le_bytes());
        bytes.extend(self.host.to_le_bytes());
        bytes.extend((self.data.len() as u32).to_le_bytes());
        bytes.extend([1, 0]);
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.room.to_le_bytes());
        bytes.extend(self.taken.to_le_bytes());
        bytes.extend(&self.data);
        bytes
    }

    /// As the guest gets it.
    fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
        assert_eq!((word(0), word(4), word(8), word(12)), (2, 0, CID as u32, 0), "from the host");
        assert_eq!(word(24) as usize, bytes.len() - HEADER_LEN);
        assert_eq!(word(28) & 0xFFFF, 1, "a stream");
        Self {
            host: word(16),
            guest: word(20),
            op: (word(28) >> 16) as u16,
            flags: word(32),
            room: word(36),
            taken: word(40),
            data: bytes[HEADER_LEN..].to_vec(),
        }
    }
}

struct Guest {
    driver: Driver,
    path: PathBuf,
    /// What was offered and taken back, by queue.
    offered: [u16; 3],
    taken: [u16; 3],
}

fn path() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("gemello-vsock-{}-{number}", std::process::id()))
}

impl Guest {
    fn new(on: On) -> Self {
        let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
        let path = path();
        let place = Place::new(&path).expect("a socket");
        let vsock = Vsock::new(CID as u32, Some(place)).expect("a thread");
        let driver = driver_of(on, ram, Box::new(vsock));
        let mut guest = Self { driver, path, offered: [0; 3], taken: [0; 3] };
        guest.initialize();
        guest
    }

    fn initialize(&mut self) {
        let driver = &self.driver;
        (self.offered, self.taken) = ([0; 3], [0; 3]);
        driver.negotiate(EVENT_IDX);
        for queue in 0..3 {
            let rings = [0, 1, 2].map(|part| ring(queue, part));
            rings.iter().for_each(|&at| driver.ram.write(Gpa(at), &[0; 0x1000]).expect("RAM"));
            driver.set_queue_of(queue as u32, SIZE.into(), rings);
        }
        driver.store(0x70, 0xf);
    }

    /// Offers buffer `slot` of `queue`.
    fn offer(&mut self, queue: u64, slot: u16, len: usize, writable: bool) {
        let gpa = buffer(queue, slot);
        let flags = if writable { WRITE } else { 0 };
        self.driver.describe(ring(queue, 0), slot, (gpa, len as u32, flags, 0));
        let offered = &mut self.offered[queue as usize];
        let place = ring(queue, 1) + 4 + 2 * u64::from(*offered % SIZE);
        *offered = offered.wrapping_add(1);
        self.driver.ram.write(Gpa(place), &slot.to_le_bytes()).expect("RAM");
        self.driver.ram.write(Gpa(ring(queue, 1) + 2), &offered.to_le_bytes()).expect("RAM");
        self.driver.notify_queue(queue as u32);
    }

    /// The next buffer that comes back: its slot and what was written.
    fn back(&mut self, queue: u64, patience: Duration) -> Option<(u16, usize)> {
        let began = Instant::now();
        let taken = &mut self.taken[queue as usize];
        while self.driver.u16_at(Gpa(ring(queue, 2) + 2)) == *taken {
            if began.elapsed() > patience {
                return None;
            }
            thread::yield_now();
        }
        let entry = Gpa(ring(queue, 2) + 4 + 8 * u64::from(*taken % SIZE));
        *taken = taken.wrapping_add(1);
        let entry = self.driver.bytes(entry, 8);
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("4"));
        Some((word(0) as u16, word(4) as usize))
    }

    /// Sends these bytes, whatever they are, and has them taken.
    fn says(&mut self, bytes: &[u8]) {
        self.driver.ram.write(Gpa(buffer(TO_HOST, 0)), bytes).expect("RAM");
        self.offer(TO_HOST, 0, bytes.len(), false);
        assert_eq!(self.back(TO_HOST, LONG), Some((0, 0)));
    }

    fn sends(&mut self, packet: &Packet) {
        self.says(&packet.bytes());
    }

    /// The next packet from the host.
    fn hears(&mut self) -> Packet {
        self.offer(TO_GUEST, 0, BUFFER as usize, true);
        let (slot, len) = self.back(TO_GUEST, LONG).expect("a packet");
        Packet::parse(&self.driver.bytes(Gpa(buffer(TO_GUEST, slot)), len))
    }

    /// Whether a packet comes, which is lost then.
    fn hears_nothing(&mut self) -> bool {
        self.offer(TO_GUEST, 0, BUFFER as usize, true);
        self.back(TO_GUEST, Duration::from_millis(30)).is_none()
    }

    /// A program of the host's that has connected to the guest's port, and the host's port.
    fn connected(&mut self, port: u32) -> (UnixStream, u32) {
        let mut stream = UnixStream::connect(&self.path).expect("it listens");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        writeln!(stream, "CONNECT {port}").expect("it listens");
        let asked = self.hears();
        assert_eq!((asked.guest, asked.op, asked.room), (port, REQUEST, 256 << 10));
        self.sends(&packet(port, asked.host, RESPONSE));
        let expected = format!("OK {}\n", asked.host);
        let mut line = vec![0; expected.len()];
        stream.read_exact(&mut line).expect("it is told");
        assert_eq!(line, expected.as_bytes());
        (stream, asked.host)
    }
}

const LONG: Duration = Duration::from_secs(20);

fn ring(queue: u64, part: u64) -> u64 {
    RINGS + 0x3000 * queue + 0x1000 * part
}

fn buffer(queue: u64, slot: u16) -> u64 {
    BUFFERS + (queue * u64::from(SIZE) + u64::from(slot)) * BUFFER
}

fn ends(stream: &mut UnixStream) -> bool {
    stream.read(&mut [0]).is_ok_and(|count| count == 0)
}

#[test]
fn a_program_reaches_the_guests_port() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        assert_eq!(guest.driver.load_config(0, PortWidth::B4), CID as u32);
        let (mut stream, host) = guest.connected(52);
        stream.write_all(b"hello").expect("taken");
        let came = guest.hears();
        assert_eq!((came.op, came.data), (RW, b"hello".to_vec()));
        guest.sends(&data(52, host, b"you too"));
        let mut said = [0; 7];
        stream.read_exact(&mut said).expect("it comes");
        assert_eq!(&said, b"you too");
        // Half of it is closed, then the other half.
        stream.shutdown(Shutdown::Write).expect("a socket");
        let came = guest.hears();
        assert_eq!((came.op, came.flags, came.taken), (SHUTDOWN, 2, 7));
        guest.sends(&data(52, host, b"still"));
        stream.read_exact(&mut said[..5]).expect("it comes");
        guest.sends(&Packet { flags: 3, ..packet(52, host, SHUTDOWN) });
        assert_eq!(guest.hears().op, RST);
        assert!(ends(&mut stream));
        guest.sends(&data(52, host, b"late"));
        assert_eq!(guest.hears().op, RST, "it is no more");
    });
}

#[test]
fn the_guest_reaches_a_port_of_the_hosts() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        let mut there = guest.path.clone().into_os_string();
        there.push("_77");
        let listener = UnixListener::bind(&there).expect("a socket");
        guest.sends(&packet(1000, 77, REQUEST));
        assert_eq!(guest.hears().op, RESPONSE);
        let (mut stream, _) = listener.accept().expect("it has come");
        guest.sends(&data(1000, 77, b"abc"));
        guest.sends(&Packet { flags: 2, ..packet(1000, 77, SHUTDOWN) });
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("an end");
        assert_eq!(said, b"abc");
        stream.write_all(b"answer").expect("the other half is open");
        assert_eq!(guest.hears().data, b"answer");
        // It goes altogether.
        drop(stream);
        let came = [guest.hears(), guest.hears()];
        assert_eq!(came.map(|packet| (packet.op, packet.flags)), [(SHUTDOWN, 2), (SHUTDOWN, 3)]);
        guest.sends(&packet(1000, 77, RST));
        guest.sends(&packet(1000, 77, REQUEST));
        assert_eq!(guest.hears().op, RESPONSE, "the same port again");
        guest.sends(&packet(1000, 77, REQUEST));
        assert_eq!(guest.hears().op, RST, "twice at once");
        std::fs::remove_file(there).expect("it is there");
    });
}

#[test]
fn what_nobody_answers_is_reset() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        for op in [REQUEST, RESPONSE, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST, 0, 8, u16::MAX] {
            guest.sends(&packet(9, 10, op));
            let reset = guest.hears();
            assert_eq!((reset.op, reset.guest, reset.host), (RST, 9, 10), "operation {op}");
        }
        // Another type, another host.
        for (at, value) in [(28, 2), (8, 7)] {
            let mut bytes = packet(9, 10, REQUEST).bytes();
            bytes[at] = value;
            guest.says(&bytes);
            assert_eq!(guest.hears().op, RST);
        }
        // From nobody, and a reset: no answer.
        let mut bytes = packet(9, 10, REQUEST).bytes();
        bytes[0] = 4;
        guest.says(&bytes);
        guest.sends(&packet(9, 10, RST));
        assert!(guest.hears_nothing());
    });
}

#[test]
fn a_guest_that_does_not_accept_ends_the_programs_connection() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        let mut stream = UnixStream::connect(&guest.path).expect("it listens");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        stream.write_all(b"CONNECT 5\n").expect("it listens");
        let host = guest.hears().host;
        guest.sends(&packet(5, host, RST));
        assert!(ends(&mut stream));
        let mut stream = UnixStream::connect(&guest.path).expect("it listens");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        stream.write_all(b"GET / HTTP/1.1\n").expect("it listens");
        assert!(
            stream
                .read(&mut [0])
                .map_or_else(|e| e.kind() == ErrorKind::ConnectionReset, |count| count == 0)
        );
    });
}

#[test]
fn no_more_is_sent_than_there_is_room_for() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        let (mut stream, host) = guest.connected(52);
        guest.sends(&Packet { room: 10, ..packet(52, host, CREDIT_UPDATE) });
        stream.write_all(&[7; 25]).expect("taken");
        let came = guest.hears();
        assert_eq!((came.op, came.data.len()), (RW, 10));
        assert_eq!(guest.hears().op, CREDIT_REQUEST);
        assert!(guest.hears_nothing());
        guest.sends(&Packet { room: 10, taken: 4, ..packet(52, host, CREDIT_UPDATE) });
        let (slot, len) = guest.back(TO_GUEST, LONG).expect("a packet");
        let came = Packet::parse(&guest.driver.bytes(Gpa(buffer(TO_GUEST, slot)), len));
        assert_eq!((came.op, came.data.len()), (RW, 4));
        assert_eq!(guest.hears().op, CREDIT_REQUEST);
        // More taken than was sent: nonsense, and no room.
        guest.sends(&Packet { room: 10, taken: 99, ..packet(52, host, CREDIT_UPDATE) });
        assert!(guest.hears_nothing());
    });
}

#[test]
fn a_guest_that_sends_more_than_it_may_is_reset() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        let (mut stream, host) = guest.connected(52);
        guest.sends(&packet(52, host, CREDIT_REQUEST));
        let told = guest.hears();
        assert_eq!((told.op, told.room, told.taken), (CREDIT_UPDATE, 256 << 10, 0));
        let piece = vec![1; BUFFER as usize - HEADER_LEN];
        let mut sent = 0;
        // The program reads nothing: the host's socket is full first, then the buffer.
        let reset = loop {
            guest.sends(&data(52, host, &piece));
            sent += piece.len();
            assert!(sent < 64 << 20, "no end of it");
            guest.driver.settle();
            if guest.offered[0] != guest.taken[0] {
                if let Some((slot, len)) = guest.back(TO_GUEST, Duration::ZERO) {
                    let gpa = Gpa(buffer(TO_GUEST, slot));
                    let came = Packet::parse(&guest.driver.bytes(gpa, len));
                    if came.op != CREDIT_UPDATE {
                        break came;
                    }
                }
            } else {
                guest.offer(TO_GUEST, 0, BUFFER as usize, true);
            }
        };
        assert_eq!(reset.op, RST);
        assert!(sent > 256 << 10);
        let _ = stream.read_to_end(&mut Vec::new());
    });
}

#[test]
fn a_restored_guest_is_told_that_its_connections_have_ended() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        let (mut stream, host) = guest.connected(52);
        guest.driver.device.pause();
        let state = guest.driver.device.save();
        // It goes on: nothing has ended.
        guest.driver.device.resume();
        guest.sends(&data(52, host, b"x"));
        stream.read_exact(&mut [0]).expect("it comes");
        guest.driver.device.pause();
        guest.driver.device.restore(&state).expect("its own state");
        (guest.taken, guest.offered) = ([1, 1, 0], [1, 1, 0]);
        for queue in 0..2 {
            let one = 1_u16.to_le_bytes();
            guest.driver.ram.write(Gpa(ring(queue, 1) + 2), &one).expect("RAM");
            guest.driver.ram.write(Gpa(ring(queue, 2) + 2), &one).expect("RAM");
        }
        guest.driver.device.resume();
        assert!(ends(&mut stream));
        guest.offer(EVENTS, 0, 8, true);
        assert_eq!(guest.back(EVENTS, LONG), Some((0, 4)));
        assert_eq!(guest.driver.bytes(Gpa(buffer(EVENTS, 0)), 4), [0; 4]);
        guest.offer(EVENTS, 1, 8, true);
        assert_eq!(guest.back(EVENTS, Duration::from_millis(20)), None, "once");
    });
}

#[test]
fn a_reset_ends_all_connections() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        let (mut stream, _) = guest.connected(52);
        guest.driver.store(0x70, 0);
        assert!(ends(&mut stream));
        guest.initialize();
        let (mut stream, _) = guest.connected(53);
        stream.write_all(b"again").expect("taken");
        assert_eq!(guest.hears().data, b"again");
        let path = guest.path.clone();
        drop(guest);
        assert!(ends(&mut stream) && !path.exists());
    });
}

#[test]
fn packets_without_sense_do_no_harm() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        let (mut stream, host) = guest.connected(52);
        let long = Packet { data: vec![9; 100], ..packet(52, host, RW) }.bytes();
        // Cut within the header and within the data.
        for len in [0, 1, 43, 143] {
            guest.driver.ram.write(Gpa(buffer(TO_HOST, 0)), &long).expect("RAM");
            guest.offer(TO_HOST, 0, len, false);
            assert_eq!(guest.back(TO_HOST, LONG), Some((0, 0)), "{len}");
        }
        let mut huge = long;
        huge[24..28].fill(0xFF);
        guest.says(&huge);
        // Buffers that hold no header, or are no RAM.
        guest.sends(&packet(9, 10, RW));
        for (len, at) in [(43, None), (64, Some(RAM - 20))] {
            guest.offer(TO_GUEST, 0, len, true);
            if let Some(at) = at {
                guest.driver.describe(ring(TO_GUEST, 0), 1, (at, len as u32, WRITE, 0));
            }
            let came = guest.back(TO_GUEST, LONG);
            assert!(came.is_some(), "{len}");
        }
        guest.sends(&data(52, host, b"fine"));
        let mut said = [0; 4];
        stream.read_exact(&mut said).expect("it comes");
        assert_eq!(&said, b"fine");
    });
}

#[test]
fn a_guest_that_takes_nothing_is_not_listened_to() {
    on_each(|on| {
        let mut guest = Guest::new(on);
        let bytes = packet(9, 10, RW).bytes();
        guest.driver.ram.write(Gpa(buffer(TO_HOST, 0)), &bytes).expect("RAM");
        let mut sent = 0;
        loop {
            guest.offer(TO_HOST, 0, bytes.len(), false);
            if guest.back(TO_HOST, Duration::from_millis(100)).is_none() {
                break;
            }
            sent += 1;
            assert!(sent <= 1024, "as many answers wait as there may be");
        }
        assert_eq!(sent, 1024);
        for _ in 0..100 {
            assert_eq!(guest.hears().op, RST);
        }
        assert!(guest.back(TO_HOST, LONG).is_some(), "it is listened to again");
    });
}
