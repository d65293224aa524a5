//! A console device on both transports, its driver and its rings arbitrary.

mod rig;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_driver_does_harm(data in prop::collection::vec(any::<u8>(), 0..4000)) {
        rig::fuzz(&data);
    }
}

/// The same from a driver that keeps to the rules for most of the time.
#[test]
fn what_a_driver_sends_and_receives_is_counted() {
    let counts = rig::fuzz(&[3, 5, 7, 0, 0, 0, 0, 0].repeat(20));
    assert!(counts.iter().any(|port| port.sent > 0), "{counts:?}");
}
