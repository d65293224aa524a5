//! What a driver must not do: it is answered with an error or with DEVICE_NEEDS_RESET, and a reset
//! mends all.

use super::driver::*;
use super::{IOERR, OK};
use proptest::prelude::*;
use x86::addr::Gpa;

/// The device wants a reset, says so, and works after one.
fn needs_reset(mut driver: Driver) {
    assert_eq!(driver.load(0x70), 0x4f);
    driver.settle();
    assert!(driver.interrupted());
    assert_eq!(driver.load(0x60) & 2, 2, "a configuration change is signalled");
    driver.notify();
    driver.store(0x70, 0xf);
    assert_eq!(driver.load(0x70), 0x4f, "nothing but a reset helps");
    works_after_reset(&mut driver);
}

fn works_after_reset(driver: &mut Driver) {
    driver.store(0x70, 0);
    assert_eq!((driver.load(0x70), driver.load(0x60), driver.interrupted()), (0, 0, false));
    assert_eq!(driver.initialize(0), 0xf);
    assert_eq!(driver.request(IN, 1, 512), (OK, 513));
}

#[test]
fn requests_without_sense_are_refused() {
    on_each(|on| {
        let platter = Platter::new(64);
        let before = platter.0.lock().unwrap().bytes.clone();
        let mut driver = running(on, &platter, 0);
        let most = u64::MAX / 512;
        for kind in [IN, OUT] {
            for (sector, len) in [
                (64, 512),
                (63, 1024),
                (u64::MAX, 512),
                (most, 512),
                (most + 1, 512),
                (0, 65 * 512),
                (0, 511),
                (0, 513),
                (0, 0),
            ] {
                let (status, _) = driver.request(kind, sector, len);
                assert_eq!(status, IOERR, "type {kind}, sector {sector:#x}, {len} bytes");
            }
        }
        assert!(platter.0.lock().unwrap().bytes == before);
    });
}

#[test]
fn buffers_outside_ram_are_refused() {
    on_each(|on| {
        let platter = Platter::new(64);
        let before = platter.0.lock().unwrap().bytes.clone();
        let mut driver = running(on, &platter, 0);
        let places =
            [RAM, RAM - 511, RAM - 512 * 2 + 1, 0xFEB0_0000, u64::MAX, u64::MAX - 511, 1 << 63];
        for gpa in places {
            for kind in [IN, OUT] {
                driver.header(kind, 0);
                let data = [(DATA, 512, kind == IN), (gpa, 1024, kind == IN)];
                driver.chain(
                    DESCRIPTORS,
                    &[(HEADER, 16, false), data[0], data[1], (STATUS, 1, true)],
                );
                assert!(driver.submit().is_some());
                assert_eq!(driver.status(), IOERR, "{gpa:#x}");
            }
            driver.chain(DESCRIPTORS, &[(gpa, 1024, false), (STATUS, 1, true)]);
            driver.header(IN, 0);
            assert!(driver.submit().is_some());
            assert_eq!(driver.status(), IOERR, "header at {gpa:#x}");
        }
        assert!(platter.0.lock().unwrap().bytes == before);
    });
}

#[test]
fn a_short_header_is_refused() {
    on_each(|on| {
        let mut driver = running(on, &Platter::new(64), 0);
        driver.header(IN, 0);
        for len in [0, 1, 15] {
            driver
                .chain(DESCRIPTORS, &[(HEADER, len, false), (DATA, 512, true), (STATUS, 1, true)]);
            assert!(driver.submit().is_some());
            assert_eq!(driver.status(), IOERR);
        }
    });
}

#[test]
fn broken_chains_stop_the_device() {
    on_each(|on| {
        let whole = (HEADER, 16, NEXT, 1);
        let chains: [(&str, &[Descriptor]); 10] = [
            ("a loop of one", &[(HEADER, 16, NEXT, 0)]),
            ("a loop of two", &[whole, (DATA, 512, NEXT | WRITE, 0)]),
            ("a loop of writable descriptors", &[whole, (DATA, 512, NEXT | WRITE, 1)]),
            ("next out of bounds", &[(HEADER, 16, NEXT, SIZE)]),
            ("next far out of bounds", &[(HEADER, 16, NEXT, u16::MAX)]),
            ("no place for the status", &[(HEADER, 16, 0, 0)]),
            ("a status of no bytes", &[whole, (STATUS, 0, WRITE, 0)]),
            ("the status outside RAM", &[whole, (RAM, 1, WRITE, 0)]),
            ("readable after writable", &[(STATUS, 1, NEXT | WRITE, 1), (HEADER, 16, 0, 0)]),
            ("more than 4 GiB", &[whole, (0, u32::MAX, NEXT | WRITE, 2), (0, 16, WRITE, 0)]),
        ];
        for (what, descriptors) in chains {
            let mut driver = running(on, &Platter::new(64), 0);
            driver.header(IN, 0);
            for (index, &descriptor) in (0..).zip(descriptors) {
                driver.describe(DESCRIPTORS, index, descriptor);
            }
            assert_eq!(driver.submit(), None, "{what}");
            needs_reset(driver);
        }
    });
}

#[test]
fn broken_indirect_tables_stop_the_device() {
    on_each(|on| {
        let tables: [(&str, Descriptor, Descriptor); 6] = [
            ("outside RAM", (RAM, 48, INDIRECT, 0), (HEADER, 16, 0, 0)),
            (
                "at the end of the address space",
                (u64::MAX - 15, 48, INDIRECT, 0),
                (HEADER, 16, 0, 0),
            ),
            ("of no entries", (TABLE, 0, INDIRECT, 0), (HEADER, 16, 0, 0)),
            ("of half an entry", (TABLE, 24, INDIRECT, 0), (HEADER, 16, 0, 0)),
            ("in itself", (TABLE, 48, INDIRECT, 0), (TABLE, 48, INDIRECT, 0)),
            ("with a loop", (TABLE, 48, INDIRECT, 0), (HEADER, 16, NEXT, 0)),
        ];
        for (what, outer, inner) in tables {
            let mut driver = running(on, &Platter::new(64), 0);
            driver.header(IN, 0);
            driver.describe(TABLE, 0, inner);
            driver.describe(DESCRIPTORS, 0, outer);
            assert_eq!(driver.submit(), None, "an indirect table {what}");
            needs_reset(driver);
        }
    });
}

#[test]
fn broken_rings_stop_the_device() {
    on_each(|on| {
        let mut driver = running(on, &Platter::new(64), 0);
        driver.offer(SIZE);
        driver.notify();
        assert_eq!(driver.wait(), None, "a head out of bounds");
        needs_reset(driver);
        let mut driver = running(on, &Platter::new(64), 0);
        driver.ram.write(Gpa(AVAILABLE + 2), &(SIZE + 1).to_le_bytes()).expect("RAM");
        driver.notify();
        assert_eq!(driver.wait(), None, "more heads than the ring has room for");
        needs_reset(driver);
    });
}

#[test]
fn rings_that_cannot_be_are_refused_at_the_start() {
    on_each(|on| {
        let good = [DESCRIPTORS, AVAILABLE, USED];
        let rings = [
            (7, good),
            (0, good),
            (512, good),
            (0x1_0010, good),
            (16, [DESCRIPTORS + 8, AVAILABLE, USED]),
            (16, [DESCRIPTORS, AVAILABLE + 1, USED]),
            (16, [DESCRIPTORS, AVAILABLE, USED + 2]),
            (16, [RAM - 16, AVAILABLE, USED]),
            (16, [DESCRIPTORS, RAM - 2, USED]),
            (16, [DESCRIPTORS, AVAILABLE, 1 << 40]),
            (16, [!15, AVAILABLE, USED]),
        ];
        for (size, addresses) in rings {
            if on == On::Pci && size > u16::MAX.into() {
                continue; // the field is narrower
            }
            let mut driver = running(on, &Platter::new(64), 0);
            driver.store(0x44, 0);
            driver.store(0x70, 0);
            for status in [1, 3] {
                driver.store(0x70, status);
            }
            driver.store(0x24, 1);
            driver.store(0x20, 1);
            driver.store(0x70, 0xb);
            driver.set_queue(size, addresses);
            driver.store(0x70, 0xf);
            assert_eq!(driver.load(0x70), 0x4f, "{size} {addresses:x?}");
            driver.notify();
            works_after_reset(&mut driver);
        }
    });
}

/// A descriptor that is more often near the truth than not.
fn descriptor() -> impl Strategy<Value = Descriptor> {
    let gpa = prop_oneof![
        6 => (0..RAM).boxed(),
        2 => Just(HEADER).boxed(),
        2 => Just(STATUS).boxed(),
        1 => (RAM - 64..RAM + 64).boxed(),
        1 => any::<u64>().boxed(),
    ];
    let len = prop_oneof![
        3 => Just(16).boxed(),
        3 => (0..5_u32).prop_map(|n| n * 512).boxed(),
        2 => (0..64_u32).boxed(),
        1 => any::<u32>().boxed(),
    ];
    let next = prop_oneof![6 => 0..SIZE, 1 => any::<u16>()];
    (gpa, len, prop_oneof![8 => 0..4_u16, 1 => 0..8_u16, 1 => any::<u16>()], next)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Random descriptor tables, direct and indirect: every request is answered or the device wants
    /// a reset.
    #[test]
    fn any_chain_is_answered_or_stops_the_device(
        on in on_any(),
        table in prop::collection::vec(descriptor(), 16),
        indirect in prop::collection::vec(descriptor(), 16),
        heads in prop::collection::vec(prop_oneof![9 => 0..SIZE, 1 => any::<u16>()], 1..16),
        kind in 0..10_u32,
        features in prop_oneof![Just(0), Just(F_FLUSH), Just(EVENT_IDX)],
    ) {
        let mut driver = running(on, &Platter::new(64), features);
        driver.header(kind, 1);
        for (index, (&direct, &second)) in (0..).zip(table.iter().zip(&indirect)) {
            driver.describe(DESCRIPTORS, index, direct);
            driver.describe(TABLE, index, second);
        }
        if heads[0] % 2 == 0 {
            driver.describe(DESCRIPTORS, 15, (TABLE, 256, INDIRECT, 0));
        }
        for &head in &heads {
            driver.offer(head);
            driver.notify();
        }
        driver.settle();
        works_after_reset(&mut driver);
    }

    /// Random words into random registers: no panic, no hang, and a reset mends all.
    #[test]
    fn any_register_access_is_survived(
        on in on_any(),
        accesses in prop::collection::vec((0..0x50_u64, any::<u32>(), 0..5_u32), 1..100)
    ) {
        let mut driver = running(on, &Platter::new(64), 0);
        for (register, noise, kind) in accesses {
            let value = match kind {
                0 => noise,
                1 => noise & 0xf,
                2 => noise & 1,
                3 => noise & (RAM as u32 - 1),
                _ => 0xf,
            };
            driver.store(register * 4, value);
            driver.load(register * 4);
            driver.notify();
        }
        works_after_reset(&mut driver);
    }
}
