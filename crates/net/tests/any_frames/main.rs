//! The user-mode network, its guest and the host's programs arbitrary: nothing panics, nothing
//! hangs.

mod rig;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_guest_does_harm(data in prop::collection::vec(any::<u8>(), 0..2400)) {
        rig::fuzz(&data);
    }
}

/// The rig gets far enough: a guest that connects, sends, and takes what programs send.
#[test]
fn a_proper_guest_is_served() {
    let steps = [
        [0, 0, 2, 0, 0, 0, 0, 0],    // SYN
        [0, 0, 16, 0, 0, 9, 0, 0],   // ACK
        [15, 7, 0, 0, 0, 0, 0, 0],   // a program accepts
        [0, 0, 16, 0, 9, 9, 0, 0],   // data
        [15, 2, 0, 200, 9, 0, 0, 0], // and data back
        [7, 0, 0, 9, 0x17, 0, 0, 0], // a datagram
        [15, 7, 0, 9, 0, 0, 0, 0],   // which is answered
        [10, 2, 2, 2, 2, 2, 2, 2],   // an echo request
    ];
    let data: Vec<u8> = [vec![6], steps.concat()].concat();
    let mut frames = 0;
    // The host's sockets take a moment, perhaps.
    for _ in 0..100 {
        frames = rig::fuzz(&data).max(frames);
    }
    assert!(frames >= 5, "{frames} frames");
}
