//! One TCP connection (RFC 9293): the guest's end of it, and the host's socket at the other.
//!
//! The cable neither loses nor reorders what there is room for, so what comes out of order is not
//! kept: the guest sends it again. What the guest has not acknowledged is sent again from the first
//! byte on.

use super::super::context::Context;
use super::super::ring::Ring;
use super::super::slab::Timer;
use super::super::wire::{BARE, Ends, IP_HEADER, IPV6_HEADER, MTU, TCP_HEADER};
use super::dial::Others;
use crate::{Abilities, Connection, Delivery};
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_nodelay};
use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};
use std::io::{ErrorKind, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// What a ring holds at first, and the most.
pub(super) const RING_LEAST: usize = 64 << 10;
const RING_MOST: usize = 4 << 20;
/// Our windows count in units of so many bits: [`RING_MOST`] fits.
const WINDOW_SCALE: u8 = 7;
/// The longest segment that we take: any.
const MSS: u16 = 65535 - (IPV6_HEADER + TCP_HEADER) as u16;
/// Bytes of the longest IP packet.
const PACKET_MAX: usize = 65535;
/// What a peer takes that does not say (RFC 9293, 3.7.1).
const MSS_UNSAID: u16 = 536;
/// How long an acknowledgement may take at first, and at the most.
const RESEND_FIRST: Duration = Duration::from_millis(300);
const RESEND_LAST: Duration = Duration::from_secs(10);
/// How often something is sent again before the guest counts as gone.
const RESENDS: u32 = 12;
/// How long at the most, and how often, while a guest that boots may not be there yet.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
const OPENS: u32 = 80;
/// How long one that the guest has closed its half of may be silent: nothing tells us when the
/// guest forgets it, as Linux does after a minute where nobody reads any more.
const PROBE: Duration = Duration::from_secs(60);
/// Bytes that one connection moves before the others have their turn.
const SHARE: usize = 1 << 20;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The host connects.
    Connecting,
    /// We have sent SYN, or SYN and ACK, and wait for the guest's ACK.
    Opening,
    /// Both are there.
    Open,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Lives,
    /// It has more to do as soon as others had their turn.
    Again,
    /// It has more to do as soon as there is room at the guest.
    Blocked,
    /// Both sides have ended it.
    Done,
    /// The guest has to be told that it is broken.
    Broken,
    /// The host's peer has to be told that it is broken.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) ends: Ends,
    pub(super) stream: TcpStream,
    pub(super) state: State,
    pub(super) timer: Timer,
    /// While the host connects.
    pub(super) others: Option<Others>,
    /// The guest has begun it.
    pub(super) outgoing: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) queued: bool,
    /// To the guest: the first byte that it has not acknowledged, the next to send, the one after
    /// all that were ever sent; the bytes from the first on.
    first: u32,
    next: u32,
    highest: u32,
    pub(super) to_guest: Ring,
    window: usize,
    scale: u8,
    scaled: bool,
    mss: u16,
    doubles: u32,
    resends: u32,
    /// Everything of the host's is in the ring.
    host_ended: bool,
    end_acknowledged: bool,
    /// From the guest: the next byte, those that the host has not taken, and how far it may send.
    expected: u32,
    pub(super) from_guest: Ring,
    edge: u32,
    taken: usize,
    given: usize,
    guest_ended: bool,
    end_passed: bool,
    answer: bool,
}

/// `a - b`, of numbers that wrap.
fn after(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

impl Conn {
    /// With its first number `first`, and `expected` of the guest's.
    pub(super) fn new(ends: Ends, stream: TcpStream, state: State, first: u32) -> Self {
        Self {
            ends,
            stream,
            state,
            timer: Timer::default(),
            others: None,
            outgoing: state == State::Connecting,
            readable: false,
            writable: false,
            queued: false,
            first,
            next: first,
            highest: first,
            to_guest: Ring::new(RING_LEAST),
            window: 0,
            scale: 0,
            scaled: false,
            mss: MSS_UNSAID,
            doubles: 0,
            resends: 0,
            host_ended: false,
            end_acknowledged: false,
            expected: 0,
            from_guest: Ring::new(RING_LEAST),
            edge: 0,
            taken: 0,
            given: 0,
            guest_ended: false,
            end_passed: false,
            answer: false,
        }
    }

    /// Sets its socket up, as far as the host lets us.
    pub(super) fn prepare(&self) {
        let _ = set_tcp_nodelay(&self.stream, true); // the guest has decided when to send
        let _ = set_socket_keepalive(&self.stream, true);
    }

    /// What the guest's SYN says.
    pub(super) fn take_options(&mut self, syn: &TcpRepr<'_>) {
        self.expected = seq(syn.seq_number).wrapping_add(1);
        self.edge = self.expected;
        let most = (MTU - self.headers()) as u16;
        self.mss = syn.max_seg_size.unwrap_or(MSS_UNSAID).clamp(64, most);
        self.scaled = syn.window_scale.is_some();
        self.scale = syn.window_scale.unwrap_or(0).min(14);
        self.window = syn.window_len.into(); // a SYN's is never scaled (RFC 7323, 2.2)
    }

    /// Bytes before the payload of a segment.
    fn headers(&self) -> usize {
        let ip = if self.ends.guest.is_ipv4() { IP_HEADER } else { IPV6_HEADER };
        ip + TCP_HEADER
    }

    /// The number of the guest's SYN.
    pub(super) fn syn(&self) -> i32 {
        self.expected.wrapping_sub(1).cast_signed()
    }

    /// Sends our SYN, with ACK if the guest's was first.
    pub(super) fn open(&mut self, cx: &mut Context<'_>) {
        self.state = State::Opening;
        let mut repr = self.repr(TcpControl::Syn, self.first);
        if !self.outgoing {
            repr.ack_number = None;
        }
        repr.max_seg_size = Some(MSS);
        let scales = !self.outgoing || self.scaled;
        repr.window_scale = scales.then_some(WINDOW_SCALE);
        repr.window_len = u16::MAX; // never scaled; the ring holds as much
        self.next = self.first.wrapping_add(1);
        self.highest = self.next;
        self.edge = self.expected.wrapping_add(repr.window_len.into());
        self.send(&repr, (&[], &[]), cx);
    }

    fn send(&self, repr: &TcpRepr<'_>, payload: (&[u8], &[u8]), cx: &mut Context<'_>) -> Delivery {
        cx.cable.tcp(self.ends, repr, payload, self.mss, cx.guest)
    }

    /// A segment as it stands now.
    fn repr(&self, control: TcpControl, number: u32) -> TcpRepr<'static> {
        let shift = if self.scaled { WINDOW_SCALE } else { 0 };
        let window = (self.from_guest.free() >> shift).min(usize::from(u16::MAX)) as u16;
        TcpRepr {
            src_port: self.ends.remote.port(),
            dst_port: self.ends.guest.port(),
            control,
            seq_number: TcpSeqNumber(number.cast_signed()),
            ack_number: Some(TcpSeqNumber(self.expected.cast_signed())),
            window_len: window,
            ..BARE
        }
    }

    /// The connection as the guest knows it.
    pub(super) fn save(&self) -> Connection {
        let Ends { guest, remote } = self.ends;
        Connection { guest, remote, next: self.highest, expected: self.expected }
    }

    /// Tells the guest that the connection is broken.
    pub(super) fn reset(&self, cx: &mut Context<'_>) {
        let mut repr = self.repr(TcpControl::Rst, self.next);
        repr.window_len = 0;
        self.send(&repr, (&[], &[]), cx);
    }

    /// The guest has sent this.
    pub(super) fn segment(&mut self, segment: &TcpRepr<'_>) -> Fate {
        let number = seq(segment.seq_number);
        match (self.state, segment.control) {
            (State::Connecting, TcpControl::Rst) => return Fate::Refused,
            (State::Connecting, _) => return Fate::Lives, // it cannot know better
            (State::Opening, TcpControl::Syn) if !self.outgoing => {
                if segment.ack_number.map(seq) != Some(self.next) {
                    return Fate::Refused;
                }
                self.take_options(segment);
                self.answer = true;
            }
            (State::Opening, TcpControl::Rst) if !self.outgoing => return Fate::Refused,
            (_, TcpControl::Rst) => {
                let near = after(number, self.expected);
                let inside = near == 0 || near > 0 && after(self.edge, number) > 0;
                return if inside { Fate::Refused } else { Fate::Lives };
            }
            (_, TcpControl::Syn) => {
                self.answer = true;
                return Fate::Lives;
            }
            _ => {}
        }
        let Some(ack) = segment.ack_number.map(seq) else { return Fate::Lives };
        if !self.acknowledged(ack, segment) {
            return Fate::Lives;
        }
        if segment.control == TcpControl::Syn {
            return Fate::Lives;
        }
        self.window = usize::from(segment.window_len) << self.scale;
        self.payload(number, segment.payload, segment.control == TcpControl::Fin)
    }

    /// The guest has all before `ack`. False if that was never sent, or the connection is not open.
    fn acknowledged(&mut self, ack: u32, segment: &TcpRepr<'_>) -> bool {
        let new = after(ack, self.first);
        if new < 0 || after(ack, self.highest) > 0 {
            self.answer = true;
            return false;
        }
        if self.state == State::Opening {
            if new != 1 {
                return false;
            }
            self.state = State::Open;
            self.first = ack;
            (self.resends, self.doubles) = (0, 0);
            self.window = usize::from(segment.window_len) << self.scale;
            return true;
        }
        if new > 0 {
            let all = self.to_guest.len();
            self.end_acknowledged |= self.host_ended && new as usize > all;
            self.to_guest.consume(new as usize);
            self.first = ack;
            if after(ack, self.next) > 0 {
                self.next = ack;
            }
            (self.resends, self.doubles) = (0, 0);
        } else if !self.is_unacknowledged() {
            self.resends = 0; // it is there
        } else if self.window == 0 {
            self.resends = self.resends.min(RESENDS / 2); // it is there
        } else if self.next != self.first && segment.payload.is_empty() && !self.widens(segment) {
            self.doubles += 1;
            if self.doubles == 3 {
                self.next = self.first;
            }
        }
        true
    }

    /// Whether `segment` tells another window.
    fn widens(&self, segment: &TcpRepr<'_>) -> bool {
        usize::from(segment.window_len) << self.scale != self.window
    }

    fn payload(&mut self, number: u32, payload: &[u8], fin: bool) -> Fate {
        let ahead = after(self.expected, number);
        let fresh = usize::try_from(ahead).ok().and_then(|skip| payload.get(skip..));
        let Some(fresh) = fresh else {
            self.answer = true; // too early, or all of it is known
            return Fate::Lives;
        };
        self.answer |= !payload.is_empty() || fin;
        if self.guest_ended {
            return Fate::Lives;
        }
        let count = match self.take(fresh) {
            Ok(count) => count,
            Err(fate) => return fate,
        };
        self.expected = self.expected.wrapping_add(count as u32);
        self.taken += count;
        if fin && count == fresh.len() {
            self.expected = self.expected.wrapping_add(1);
            self.guest_ended = true;
        }
        Fate::Lives
    }

    /// Takes what there is room for: the host at once, if it can.
    fn take(&mut self, mut bytes: &[u8]) -> Result<usize, Fate> {
        let before = bytes.len();
        while self.from_guest.len() == 0 && self.writable && !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Fate::Broken),
            }
        }
        let kept = self.from_guest.push(bytes);
        Ok(before - bytes.len() + kept)
    }

    /// Moves what can be moved, both ways.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) -> Fate {
        if self.state != State::Open {
            return Fate::Lives;
        }
        let mut fate = Fate::Lives;
        for step in [Self::pass_on, Self::draw] {
            match step(self) {
                Fate::Lives => {}
                Fate::Again => fate = Fate::Again,
                other => return other,
            }
        }
        if self.send_data(cx) == Delivery::Full {
            fate = Fate::Blocked;
        }
        if fate != Fate::Blocked {
            self.send_end(cx);
        }
        self.send_answer(cx);
        if self.end_acknowledged && self.end_passed { Fate::Done } else { fate }
    }

    fn pass_on(&mut self) -> Fate {
        while self.from_guest.len() > 0 && self.writable {
            match self.from_guest.drain(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Fate::Broken,
            }
        }
        if self.guest_ended && self.from_guest.len() == 0 && !self.end_passed {
            self.end_passed = true;
            let _ = self.stream.shutdown(Shutdown::Write); // it has ended already, then
        }
        Fate::Lives
    }

    fn draw(&mut self) -> Fate {
        let mut moved = 0;
        while self.readable && !self.host_ended && self.to_guest.free() > 0 {
            if moved >= SHARE {
                return Fate::Again;
            }
            match self.to_guest.fill(&mut self.stream) {
                Ok(0) => self.host_ended = true,
                Ok(count) => {
                    moved += count;
                    self.given += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Fate::Broken,
            }
        }
        Fate::Lives
    }

    fn send_data(&mut self, cx: &mut Context<'_>) -> Delivery {
        let mss = usize::from(self.mss);
        let Abilities { segmentation, segmentation_v6, .. } = cx.guest.abilities();
        let cuts = if self.ends.guest.is_ipv4() { segmentation } else { segmentation_v6 };
        let most = if cuts { (PACKET_MAX - self.headers()) / mss * mss } else { mss };
        loop {
            let sent = after(self.next, self.first) as usize;
            let len = self.to_guest.len().min(self.window).saturating_sub(sent).min(most);
            if len == 0 {
                return Delivery::Taken;
            }
            if self.send_piece(sent, len, cx) == Delivery::Full {
                return Delivery::Full;
            }
            self.went(len as u32);
        }
    }

    fn send_piece(&mut self, from: usize, len: usize, cx: &mut Context<'_>) -> Delivery {
        let repr = self.repr(TcpControl::None, self.first.wrapping_add(from as u32));
        let delivery = self.send(&repr, self.to_guest.slices(from, len), cx);
        if delivery == Delivery::Taken {
            self.answered(repr.window_len);
        }
        delivery
    }

    /// Our FIN, once all has been sent.
    fn send_end(&mut self, cx: &mut Context<'_>) {
        let sent = after(self.next, self.first) as usize;
        if self.host_ended && !self.end_acknowledged && sent == self.to_guest.len() {
            let repr = self.repr(TcpControl::Fin, self.next);
            self.send(&repr, (&[], &[]), cx);
            self.answered(repr.window_len);
            self.went(1);
        }
    }

    /// So many bytes from the next on were sent.
    fn went(&mut self, len: u32) {
        self.next = self.next.wrapping_add(len);
        if after(self.next, self.highest) > 0 {
            self.highest = self.next;
        }
    }

    /// An ACK, if the guest waits for one or can send much more than it knows.
    fn send_answer(&mut self, cx: &mut Context<'_>) {
        let known = after(self.edge, self.expected).max(0) as usize;
        let opened = self.from_guest.free().saturating_sub(known) >= self.from_guest.limit() / 2;
        if self.answer || opened {
            let repr = self.repr(TcpControl::None, self.next);
            self.send(&repr, (&[], &[]), cx);
            self.answered(repr.window_len);
        }
    }

    /// A segment with this window was sent.
    fn answered(&mut self, window: u16) {
        let shift = if self.scaled { WINDOW_SCALE } else { 0 };
        self.edge = self.expected.wrapping_add(u32::from(window) << shift);
        self.answer = false;
    }

    /// When something has to be sent again, a closed window asked for, or somebody else tried.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let waits = match self.state {
            State::Connecting => return self.others.as_ref().map(|others| others.due),
            State::Opening => true,
            State::Open => self.is_unacknowledged(),
        };
        if !waits {
            let half = self.state == State::Open && self.guest_ended;
            return half.then(|| now + PROBE);
        }
        let most = if self.state == State::Opening { OPEN_AGAIN } else { RESEND_LAST };
        let time = (RESEND_FIRST * (1 << self.resends.min(6))).min(most);
        Some(now + time)
    }

    /// Whether the guest has to acknowledge something.
    fn is_unacknowledged(&self) -> bool {
        self.next != self.first || self.to_guest.len() > 0
    }

    /// It is time to send again.
    pub(super) fn resend(&mut self, cx: &mut Context<'_>) -> Fate {
        self.resends += 1;
        let most = if self.state == State::Opening { OPENS } else { RESENDS };
        if self.resends > most {
            return Fate::Refused;
        }
        if self.state == State::Opening {
            self.open(cx);
            return Fate::Lives;
        }
        if !self.is_unacknowledged() {
            // RFC 9293, 3.8.4: a number that it has, so that it answers.
            let repr = self.repr(TcpControl::None, self.next.wrapping_sub(1));
            self.send(&repr, (&[], &[]), cx);
            return Fate::Lives;
        }
        self.next = self.first;
        self.doubles = 0;
        if self.window == 0 && self.to_guest.len() > 0 {
            // RFC 9293, 3.8.6.1: the answer tells the window.
            if self.send_piece(0, 1, cx) == Delivery::Taken {
                self.went(1);
            }
        }
        self.pump(cx)
    }

    /// Which rings have moved twice what they hold since they last grew.
    pub(super) fn busy_rings(&mut self) -> impl Iterator<Item = &mut Ring> {
        let rings =
            [(&mut self.from_guest, &mut self.taken), (&mut self.to_guest, &mut self.given)];
        rings.into_iter().filter_map(|(ring, moved)| {
            let busy = *moved >= 2 * ring.limit() && ring.limit() < RING_MOST;
            if busy {
                *moved = 0;
            }
            busy.then_some(ring)
        })
    }
}

fn seq(number: TcpSeqNumber) -> u32 {
    number.0.cast_unsigned()
}
