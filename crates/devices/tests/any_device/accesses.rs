//! Arbitrary accesses to every device: nothing panics, nothing hangs.

use crate::rig::{self, Rig};
use proptest::prelude::*;
use x86::addr::{Port, PortWidth};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_sequence_panics_or_hangs(data in prop::collection::vec(any::<u8>(), 0..4000)) {
        rig::fuzz(&data);
    }

    /// Every port of the whole space, in every width.
    #[test]
    fn any_port_in_any_width(
        accesses in prop::collection::vec((any::<u16>(), 0usize..3, any::<u32>()), 0..200),
    ) {
        let rig = Rig::new();
        for (port, size, value) in accesses {
            let width = [PortWidth::B1, PortWidth::B2, PortWidth::B4][size];
            rig.bus.pio_write(Port(port), width, value);
            rig.bus.pio_read(Port(port), width);
            rig.check();
        }
    }
}
