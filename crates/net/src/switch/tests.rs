//! Switches of several ports in one process.

use super::*;
use crate::testing::{Inbox, folder, frame, next, until};
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt as _;

struct Station {
    port: Port,
    inbox: Inbox,
}

impl Station {
    fn join(folder: &Path) -> Self {
        let mut port = Port::new(folder, "lab").expect("a port");
        let mut inbox = Inbox::default();
        until(&mut port, &mut inbox, |port, _| port.greeted);
        Self { port, inbox }
    }

    fn send(&mut self, frame: &[u8], offload: Offload) {
        self.port.transmit(frame, offload, &mut self.inbox);
        self.port.work(&mut self.inbox);
    }

    fn next(&mut self) -> (Vec<u8>, Offload) {
        next(&mut self.port, &mut self.inbox)
    }
}

fn stations<const N: usize>() -> [Station; N] {
    let folder = folder();
    std::array::from_fn(|_| Station::join(&folder))
}

#[test]
fn frames_reach_who_they_are_for() {
    let [mut a, mut b, mut c] = stations();
    let mode = std::fs::metadata(&a.port.path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let broadcast = frame(0xff, 1, b"who is there?");
    a.send(&broadcast, Offload::default());
    assert_eq!((b.next().0, c.next().0), (broadcast.clone(), broadcast));
    let answer = frame(1, 2, b"b");
    b.send(&answer, Offload::default());
    assert_eq!(a.next().0, answer);
    let known = frame(2, 1, &[3; 60_000]);
    a.send(&known, Offload::default());
    let last = frame(0xff, 1, b"last");
    a.send(&last, Offload::default());
    assert_eq!((b.next().0, b.next().0), (known, last.clone()));
    assert_eq!(c.next().0, last, "nothing that was for another");
    assert!(a.inbox.frames.is_empty());
}

#[test]
fn what_is_undone_stays_so_where_the_receiver_takes_it() {
    let [mut a, mut able, mut simple] = stations();
    able.inbox.abilities =
        crate::Abilities { checksum: true, segmentation: true, segmentation_v6: true };
    let mut long = frame(0xff, 1, &[0; 40 + 3000]);
    long[12..14].copy_from_slice(&[8, 0]);
    (long[14], long[46]) = (0x45, 5 << 4);
    let offload = Offload { checksum: Some((34, 16)), segment: Some(1400) };
    a.send(&long, offload);
    assert_eq!(able.next(), (long.clone(), offload));
    let segments = [simple.next(), simple.next(), simple.next()];
    assert_eq!(segments.each_ref().map(|(frame, _)| frame.len()), [1454, 1454, 254]);
    assert!(segments.iter().all(|(_, offload)| *offload == Offload::default()));
}

#[test]
fn another_takes_over() {
    let [a, mut b, mut c] = stations();
    assert!(a.port.hub.is_some() && b.port.hub.is_none());
    drop(a);
    for station in [&mut b, &mut c] {
        until(&mut station.port, &mut station.inbox, |port, _| !port.greeted);
        until(&mut station.port, &mut station.inbox, |port, _| port.greeted);
        assert_eq!(station.port.link(), Link::Up);
    }
    assert!(b.port.hub.is_some() != c.port.hub.is_some());
    // What is sent while ports come is seen by those that have come.
    c.send(&frame(0xff, 3, b"here"), Offload::default());
    assert_eq!(b.next().0, frame(0xff, 3, b"here"));
}

#[test]
fn what_a_killed_process_has_left_is_replaced() {
    let folder = folder();
    let left = std::os::unix::net::UnixListener::bind(folder.join("lab.switch"));
    drop(left.expect("a socket that nobody serves"));
    let mut a = Station::join(&folder);
    let mut b = Station::join(&folder);
    a.send(&frame(0xff, 1, b"x"), Offload::default());
    assert_eq!(b.next().0, frame(0xff, 1, b"x"));
}

#[test]
fn a_port_that_takes_nothing_loses_and_holds_up_nobody() {
    let [mut a, stuck, mut b] = stations();
    let long = frame(0xff, 1, &[0; 60_000]);
    for _ in 0..4 * WAITING_MAX / long.len() {
        a.send(&long, Offload::default());
        assert_eq!(b.next().0.len(), long.len());
    }
    assert_eq!(a.port.activity().lost, 0);
    drop(stuck);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn no_peer_does_harm(messages in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..100), 0..20), greets in any::<bool>())
    {
        let [mut a, mut b] = stations();
        let peer = reach(&a.port.path).expect("it serves").expect("it is there");
        if greets {
            send(&peer, HELLO, SendFlags::DONTWAIT).expect("sent");
        }
        for message in &messages {
            let _ = send(&peer, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        a.send(&frame(0xff, 1, b"still"), Offload::default());
        until(&mut b.port, &mut b.inbox, |_, inbox| {
            inbox.frames.iter().any(|(bytes, _)| *bytes == frame(0xff, 1, b"still"))
        });
    }
}
