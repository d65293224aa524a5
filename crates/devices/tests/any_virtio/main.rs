//! Virtio devices, driven by arbitrary drivers: nothing panics, nothing hangs.

mod rig;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_driver_does_harm(data in prop::collection::vec(any::<u8>(), 0..1200)) {
        rig::fuzz(&data);
    }
}

/// The rig gets far enough for a device to answer.
#[test]
fn a_proper_driver_is_served() {
    let describe = [4, 0, 0, 2, 0, 0x80, 0, 64];
    for kind in 0..rig::KINDS {
        let rig = rig::Rig::new(kind);
        for step in [[3, 0, 0, 0, 0, 0, 0, 0], describe, [5, 0, 0, 0, 0, 0, 0, 0]] {
            rig.step(step);
        }
        assert!(rig.used(0) > 0 || rig.needs_reset(), "device {kind} says nothing");
    }
}
