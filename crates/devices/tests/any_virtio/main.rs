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
    for kind in 0..rig::KINDS {
        let rig = rig::Rig::new(kind);
        rig.step([3, 0, 0, 0, 0, 0, 0, 0]);
        for queue in 0..2 {
            rig.step([4, queue, 0, 2, 0, 0x80, 0, 64]);
            rig.step([5, queue, 0, 0, 0, 0, 0, 0]);
        }
        let said = rig.used(0) > 0 || rig.used(1) > 0 || rig.needs_reset();
        assert!(said, "device {kind} says nothing");
    }
}
