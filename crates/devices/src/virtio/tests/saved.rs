//! Saved state: a device restored into a fresh one goes on where the old one was.

use super::OK;
use super::driver::*;
use crate::virtio::MmioState;
use crate::virtio::blk::BlockState;
use crate::virtio::saved::DeviceState;
use x86::addr::Gpa;

#[test]
fn a_restored_device_goes_on() {
    on_each(|on| {
        let platter = Platter::new(64);
        let mut old = running(on, &platter, EVENT_IDX | F_FLUSH);
        old.ram.write(Gpa(DATA), &[0x55; 512]).expect("RAM");
        for sector in 0..20 {
            assert_eq!(old.request(OUT, sector, 512).0, OK);
        }
        let state = old.device.save();
        let position = &state.transport().queues[0].position;
        assert_eq!((position.next_avail, position.next_used), (20, 20));
        assert_eq!(state, old.device.save(), "saving changes nothing");

        let new = device_on(on, old.ram.clone(), &platter, ReadWrite);
        assert_ne!(new.device.save(), state);
        new.device.restore(&state).expect("its own state");
        assert_eq!(new.device.save(), state);
        assert_eq!(new.interrupted(), state.interrupt_status() != 0);

        // The driver does not know that the device is another one.
        old.device = new.device.clone();
        assert_eq!(old.request(IN, 19, 512), (OK, 513));
        assert_eq!(old.bytes(Gpa(DATA), 512), [0x55; 512]);
    });
}

#[test]
fn a_request_that_waits_in_the_ring_is_served_after_restoring() {
    on_each(|on| {
        let platter = Platter::new(64);
        let mut old = running(on, &platter, 0);
        old.header(IN, 3);
        old.chain(DESCRIPTORS, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
        let state = old.device.save();
        old.offer(0); // and no notification: the old device is gone
        let new = device_on(on, old.ram.clone(), &platter, ReadWrite);
        new.device.restore(&state).expect("its own state");
        old.device = new.device.clone();
        assert_eq!(old.wait(), Some(513));
    });
}

#[test]
fn a_broken_device_stays_broken_until_its_reset() {
    on_each(|on| {
        let platter = Platter::new(64);
        let mut old = running(on, &platter, 0);
        old.offer(SIZE);
        old.notify();
        assert_eq!(old.wait(), None);
        let state = old.device.save();
        assert!(state.transport().needs_reset);
        let mut new = device_on(on, old.ram.clone(), &platter, ReadWrite);
        new.device.restore(&state).expect("its own state");
        assert_eq!(new.device.save(), state);
        assert_eq!(new.load(0x70), 0x4f);
        assert!(new.interrupted());
        new.store(0x70, 0);
        new.initialize(0);
        assert_eq!(new.request(IN, 0, 512).0, OK);
    });
}

#[test]
fn a_device_nobody_uses_restores_too() {
    on_each(|on| {
        let platter = Platter::new(64);
        let old = device(on, &platter, ReadWrite);
        old.store(0x24, 1);
        old.store(0x38, 64);
        let state = old.device.save();
        let new = device(on, &platter, ReadWrite);
        new.device.restore(&state).expect("its own state");
        assert_eq!(new.device.save(), state);
    });
}

#[test]
fn a_paused_device_writes_nothing() {
    on_each(|on| {
        let platter = Platter::new(64);
        let mut driver = running(on, &platter, 0);
        driver.device.pause();
        driver.header(IN, 3);
        driver.chain(DESCRIPTORS, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
        driver.offer(0);
        driver.notify();
        let state = driver.device.save();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(
            (driver.status(), state.transport().queues[0].position.next_avail),
            (UNTOUCHED, 0)
        );
        driver.device.restore(&state).expect("its own state");
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(driver.status(), UNTOUCHED);
        driver.device.resume();
        assert_eq!(driver.wait(), Some(513));
    });
}

/// A device refuses `spoilt` states with a message that says `why`, and stays as it was.
#[test]
fn states_that_no_such_device_has_are_refused() {
    type Spoil = fn(&mut MmioState);
    let spoilt: [(&str, Spoil); 12] = [
        ("virtio device has version 3, and this build reads 2", |s| s.version = 3),
        ("interrupt_status = 0x4", |s| s.interrupt_status = 4),
        ("kind = 1, which is not 2", |s| s.transport.kind = 1),
        ("queues = 0, which is not 1", |s| s.transport.queues.clear()),
        ("status = 0xcf", |s| s.transport.status |= 0xC0),
        ("driver_features = 0xffffffffffffffff", |s| s.transport.driver_features = u64::MAX),
        ("DRIVER_OK after FEATURES_OK only", |s| s.transport.status = 4),
        ("in_flight = 3, which is not within", |s| {
            s.transport.queues[0].size = 2;
            s.transport.queues[0].position.in_flight = vec![0, 1, 1];
        }),
        ("in_flight = 9999, which is not a descriptor", |s| {
            s.transport.queues[0].position.in_flight = vec![9999];
        }),
        ("another device's", |s| s.transport.device = DeviceState::Stateless),
        ("disk has version 3, and this build reads 2", |s| block(s).version = 3),
        ("sectors = 65, which is not 64", |s| block(s).sectors = 65),
    ];
    let platter = Platter::new(64);
    let old = running(On::Mmio, &platter, 0);
    let State::Mmio(state) = old.device.save() else { panic!("on MMIO") };
    let own = device(On::Mmio, &platter, ReadWrite);
    let before = own.device.save();
    for (why, spoil) in spoilt {
        let mut state = state.clone();
        spoil(&mut state);
        let error = own.device.restore(&State::Mmio(state)).expect_err(why).to_string();
        assert!(error.contains(why), "{why}: {error}");
        assert_eq!(own.device.save(), before, "{why}");
    }
    let read_only = device(On::Mmio, &platter, ReadOnly);
    let error =
        read_only.device.restore(&State::Mmio(state)).expect_err("can be written").to_string();
    assert!(error.contains("read_only = false, which is not true"), "{error}");
}

fn block(state: &mut MmioState) -> &mut BlockState {
    match &mut state.transport.device {
        DeviceState::Block(block) => block,
        other => panic!("{other:?}"),
    }
}
