//! What only the PCI transport has: capabilities, MSI-X, bus mastering, the window through the
//! configuration space, and its saved state.

use super::OK;
use super::driver::*;
use crate::msi::Msi;
use crate::pci::PciFunction as _;
use crate::virtio::PciState;
use proptest::prelude::*;
use sync::lock;
use x86::addr::{Gpa, PortWidth};

const B1: PortWidth = PortWidth::B1;
const B2: PortWidth = PortWidth::B2;
const B4: PortWidth = PortWidth::B4;

/// Command: memory space, bus master, INTx disable.
const MEMORY: u32 = 1 << 1;
const MASTER: u32 = 1 << 2;
const NO_INTX: u32 = 1 << 10;

impl Driver {
    fn config(&self, register: u16, width: PortWidth) -> u32 {
        lock(self.function()).config_read(register, width)
    }

    fn set_config(&self, register: u16, width: PortWidth, value: u32) {
        lock(self.function()).config_write(register, width, value);
    }

    /// The capabilities: where, identifier, and cfg_type of a vendor specific one.
    fn capabilities(&self) -> Vec<(u16, u32, u32)> {
        let mut at = self.config(0x34, B1) as u16;
        let mut found = Vec::new();
        while at != 0 {
            found.push((at, self.config(at, B1), self.config(at + 3, B1)));
            at = self.config(at + 1, B1) as u16;
            assert!(found.len() < 48, "a loop");
        }
        found
    }

    /// Where the MSI-X capability is.
    fn msix(&self) -> u16 {
        self.capabilities().iter().find(|it| it.1 == 0x11).expect("MSI-X").0
    }

    /// Where the window through the configuration space is.
    fn window(&self) -> u16 {
        self.capabilities().iter().find(|it| it.1 == 9 && it.2 == 5).expect("a window").0
    }

    /// Writes MSI-X's message control.
    fn control(&self, enabled: bool, masked: u32) {
        self.set_config(self.msix() + 2, B2, u32::from(enabled) << 15 | masked << 14);
    }

    /// Gives the queue vector 1 and the configuration vector 0, both unmasked.
    fn choose_vectors(&self) {
        for vector in 0..2 {
            self.write_bar(1, 16 * vector, B4, 0xFEE0_0000);
            self.write_bar(1, 16 * vector + 8, B4, 0x40 + vector);
            self.write_bar(1, 16 * vector + 12, B4, 0);
        }
        self.write_bar(0, 0x10, B2, 0);
        self.write_bar(0, 0x16, B2, 0);
        self.write_bar(0, 0x1A, B2, 1);
        assert_eq!((self.read_bar(0, 0x10, B2), self.read_bar(0, 0x1A, B2)), (0, 1));
    }

    fn sent(&self) -> Vec<u32> {
        std::mem::take(&mut *lock(&self.inbox.0)).into_iter().map(|msi| msi.data).collect()
    }

    fn read_sector(&mut self) {
        assert_eq!(self.request(IN, 1, 512), (OK, 513));
        self.settle();
    }
}

#[test]
fn the_function_introduces_itself() {
    let driver = device(On::Pci, &Platter::new(0x1_2345), ReadOnly);
    assert_eq!(driver.config(0, B4), 0x1042_1AF4, "a disk, not transitional");
    assert!(driver.config(8, B1) >= 1 && driver.config(0x2E, B2) >= 0x40);
    assert_eq!((driver.config(0x3D, B1), driver.config(0x0E, B1)), (1, 0), "INTA#, type 0");
    let capabilities = driver.capabilities();
    let kinds: Vec<_> = capabilities.iter().filter(|it| it.1 == 9).map(|it| it.2).collect();
    assert_eq!(kinds, [1, 3, 4, 2, 5], "common, ISR, device, notify, window");
    for &(at, _, _) in capabilities.iter().filter(|it| it.1 == 9 && it.2 != 5) {
        let (bar, offset) = (driver.config(at + 4, B1), driver.config(at + 8, B4));
        let end = offset + driver.config(at + 12, B4);
        assert!(bar == 0 && end <= 0x4000, "{at:#x}");
    }
    assert_eq!(driver.config(driver.msix() + 2, B2), 1, "two vectors");
    assert_eq!([driver.load(0x100), driver.load(0x104)], [0x1_2345, 0], "capacity");
    assert_eq!((driver.read_bar(0, 0x12, B2), driver.load(0x38)), (1, 256), "queues, entries");
    for vector in [0x10, 0x1A] {
        assert_eq!(driver.read_bar(0, vector, B2), 0xFFFF);
    }
}

#[test]
fn fields_take_accesses_of_their_own_width_only() {
    let driver = device(On::Pci, &Platter::new(8), ReadWrite);
    for (offset, width) in [(0x14, B4), (0x14, B2), (0x18, B1), (0x18, B4), (0, B2), (0x38, B4)] {
        assert_eq!(driver.read_bar(0, offset, width) & width.mask(), width.mask(), "{offset:#x}");
        driver.write_bar(0, offset, width, 1);
    }
    assert_eq!((driver.load(0x70), driver.load(0x38), driver.load(0x14)), (0, 256, 0));
}

#[test]
fn a_queue_interrupts_by_its_vector_and_the_configuration_by_another() {
    let mut driver = running(On::Pci, &Platter::new(8), 0);
    driver.choose_vectors();
    driver.control(true, 0);
    driver.read_sector();
    let message = Msi { address: Gpa(0xFEE0_0000), data: 0x41 };
    assert_eq!(*lock(&driver.inbox.0), [message]);
    assert_eq!((driver.sent(), driver.interrupted()), (vec![0x41], false));
    assert_eq!(driver.load(0x60), 0, "MSI-X leaves ISR status alone");
    driver.offer(SIZE);
    driver.notify();
    assert_eq!(driver.wait(), None);
    driver.settle();
    assert_eq!(driver.sent(), [0x40], "a device that wants a reset says so");
    assert_eq!((driver.load(0x60), driver.interrupted()), (2, true));
}

#[test]
fn a_masked_message_is_pending_and_sent_when_unmasked() {
    let mut driver = running(On::Pci, &Platter::new(8), 0);
    driver.choose_vectors();
    driver.control(true, 0);
    driver.write_bar(1, 16 + 12, B4, 1);
    driver.read_sector();
    driver.read_sector();
    assert_eq!((driver.sent(), driver.read_bar(1, 0x800, B4)), (vec![], 0b10));
    driver.write_bar(1, 16 + 12, B4, 0);
    assert_eq!((driver.sent(), driver.read_bar(1, 0x800, B4)), (vec![0x41], 0));
    driver.control(true, 1);
    driver.read_sector();
    assert_eq!((driver.sent(), driver.read_bar(1, 0x800, B4)), (vec![], 0b10), "all are masked");
    driver.control(true, 0);
    assert_eq!((driver.sent(), driver.read_bar(1, 0x800, B4)), (vec![0x41], 0));
    driver.control(true, 1);
    driver.read_sector();
    driver.store(0x70, 0);
    driver.control(true, 0);
    assert_eq!(driver.sent(), Vec::<u32>::new(), "a reset forgets");
    assert_eq!((driver.read_bar(0, 0x10, B2), driver.read_bar(0, 0x1A, B2)), (0xFFFF, 0xFFFF));
}

#[test]
fn there_is_no_vector_that_is_not_there() {
    let driver = device(On::Pci, &Platter::new(8), ReadWrite);
    for vector in [2, 0x7FF, 0xFFFE, 0xFFFF] {
        for field in [0x10, 0x1A] {
            driver.write_bar(0, field, B2, 1);
            driver.write_bar(0, field, B2, vector);
            assert_eq!(driver.read_bar(0, field, B2), 0xFFFF);
        }
    }
    driver.write_bar(0, 0x16, B2, 1);
    driver.write_bar(0, 0x1A, B2, 0);
    assert_eq!(driver.read_bar(0, 0x1A, B2), 0xFFFF, "no such queue");
}

#[test]
fn without_msix_it_is_inta_unless_that_is_off() {
    let mut driver = running(On::Pci, &Platter::new(8), 0);
    driver.set_config(4, B2, MEMORY | MASTER | NO_INTX);
    driver.read_sector();
    assert!(!driver.interrupted());
    assert_eq!(driver.config(6, B2) & 8, 8, "Status tells of it all the same");
    driver.set_config(4, B2, MEMORY | MASTER);
    assert!(driver.interrupted());
    driver.control(true, 0);
    assert!(!driver.interrupted(), "MSI-X takes its place");
    assert_eq!(driver.config(6, B2) & 8, 0);
    driver.control(false, 0);
    assert_eq!((driver.read_bar(0, 0x1000, B1), driver.interrupted()), (1, false));
    assert_eq!(driver.read_bar(0, 0x1000, B1), 0, "reading has cleared it");
}

#[test]
fn without_bus_mastering_the_device_rests() {
    let mut driver = running(On::Pci, &Platter::new(8), 0);
    driver.choose_vectors();
    driver.control(true, 0);
    driver.set_config(4, B2, MEMORY);
    driver.header(IN, 3);
    driver.chain(DESCRIPTORS, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    driver.offer(0);
    driver.notify();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!((driver.status(), driver.sent()), (UNTOUCHED, vec![]));
    driver.device.pause();
    driver.set_config(4, B2, MEMORY | MASTER);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(driver.status(), UNTOUCHED, "a pause outlasts it");
    driver.device.resume();
    assert_eq!(driver.wait(), Some(513));
    driver.settle();
    assert_eq!(driver.sent(), [0x41]);
}

#[test]
fn the_window_through_the_configuration_space_leads_into_the_bars() {
    let driver = device(On::Pci, &Platter::new(8), ReadWrite);
    let at = driver.window();
    let look = |bar, offset, length| {
        driver.set_config(at + 4, B1, bar);
        driver.set_config(at + 8, B4, offset);
        driver.set_config(at + 12, B4, length);
    };
    look(0, 0x14, 1);
    driver.set_config(at + 16, B1, 1);
    assert_eq!((driver.load(0x70), driver.config(at + 16, B1)), (1, 1), "device_status");
    look(0, 0x2000, 4);
    assert_eq!(driver.config(at + 16, B4), 8, "the disk's capacity");
    look(1, 8, 4);
    driver.set_config(at + 16, B4, 0x4B);
    assert_eq!(driver.read_bar(1, 8, B4), 0x4B, "a message's data");
    // What is not there is neither read nor written.
    for (bar, offset, length) in [
        (0, 0x14, 0),
        (0, 0x14, 3),
        (0, 0x14, 8),
        (0, 0x14, u32::MAX),
        (0, 0x4000, 4),
        (0, u32::MAX, 4),
        (0, 0x2001, 4),
        (1, 0x1000, 4),
        (2, 0, 4),
        (6, 0, 4),
        (0xFF, 0, 4),
    ] {
        look(bar, offset, length);
        driver.set_config(at + 16, B4, 0x1234_5678);
        assert_eq!(driver.config(at + 16, B4), 0x1234_5678, "{bar} {offset:#x} {length}");
    }
    assert_eq!(driver.load(0x70), 1);
}

#[test]
fn a_restored_function_interrupts_as_before() {
    let platter = Platter::new(8);
    let mut old = running(On::Pci, &platter, 0);
    old.choose_vectors();
    old.control(true, 0);
    old.write_bar(1, 16 + 12, B4, 1);
    old.set_config(0x10, B4, 0xC123_4000);
    old.read_sector();
    let state = old.device.save();
    let new = device_on(On::Pci, old.ram.clone(), &platter, ReadWrite);
    new.device.restore(&state).expect("its own state");
    assert_eq!(new.device.save(), state);
    assert_eq!((new.config(0x10, B4), new.read_bar(1, 0x800, B4)), (0xC123_4000, 2));
    new.write_bar(1, 16 + 12, B4, 0);
    assert_eq!(new.sent(), [0x41]);
    (old.device, old.inbox) = (new.device.clone(), new.inbox.clone());
    old.read_sector();
    assert_eq!(old.sent(), [0x41]);
}

/// A function refuses `spoilt` states with a message that says `why`, and stays as it was.
#[test]
fn states_that_no_such_function_has_are_refused() {
    type Spoil = fn(&mut serde_json::Value);
    let spoilt: [(&str, Spoil); 10] = [
        ("virtio PCI device has version 2, and this build reads 1", |s| s["version"] = 2.into()),
        ("isr = 0x4", |s| s["isr"] = 4.into()),
        ("config = 63, which is not 64", |s| drop(s["config"].as_array_mut().unwrap().pop())),
        ("config = 0x1041", |s| s["config"][0] = 0x1041_1AF4.into()),
        ("vector = 2, which is not below 2", |s| s["config_vector"] = 2.into()),
        ("vector = 65534", |s| s["queue_vectors"][0] = 0xFFFE.into()),
        ("queue_vectors = 0, which is not 1", |s| s["queue_vectors"] = Vec::<u16>::new().into()),
        ("vectors = 1, which is not 2", |s| drop(s["msix"].as_array_mut().unwrap().pop())),
        ("address = 0x1", |s| s["msix"][0]["address"] = 1.into()),
        ("control = 0x2", |s| s["msix"][1]["control"] = 2.into()),
    ];
    let own = device(On::Pci, &Platter::new(8), ReadWrite);
    let before = own.device.save();
    let State::Pci(state) = &before else { panic!("on PCI") };
    for (why, spoil) in spoilt {
        let mut state = serde_json::to_value(state).expect("plain data");
        spoil(&mut state);
        let state: PciState = serde_json::from_value(state).expect(why);
        let error = own.device.restore(&State::Pci(state)).expect_err(why).to_string();
        assert!(error.contains(why), "{why}: {error}");
        assert_eq!(own.device.save(), before, "{why}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Access {
    Config(u16, u32),
    Bar(usize, u32, u32),
    Request,
    Pause,
    Save,
}

fn access() -> impl Strategy<Value = Access> {
    let value = prop_oneof![any::<u32>(), 0..16_u32, Just(0xFFFF_FFFF), Just(0xFEE0_0000)];
    let register = prop_oneof![0..256_u16, 0x40..0xC0_u16, Just(4), 0..4096_u16];
    let offset = prop_oneof![0..0x40_u32, 0..0x4000_u32, 0x7F0..0x830_u32];
    prop_oneof![
        4 => (register, value.clone()).prop_map(|(at, value)| Access::Config(at, value)),
        6 => (0..3_usize, offset, value).prop_map(|(bar, at, value)| Access::Bar(bar, at, value)),
        2 => Just(Access::Request),
        1 => Just(Access::Pause),
        1 => Just(Access::Save),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any accesses to the configuration space and the BARs, requests and pauses between them: no
    /// panic, no hang, and the driver that begins anew has its disk.
    #[test]
    fn any_access_is_survived(
        accesses in prop::collection::vec((access(), 0..3_usize), 1..120)
    ) {
        let mut driver = running(On::Pci, &Platter::new(64), 0);
        for (access, width) in accesses {
            let width = [B1, B2, B4][width];
            match access {
                Access::Config(at, value) => {
                    let at = at & !(width.bytes() as u16 - 1);
                    driver.set_config(at, width, value);
                    driver.config(at, width);
                }
                Access::Bar(bar, at, value) => {
                    let at = at & !(width.bytes() as u32 - 1);
                    driver.write_bar(bar, at, width, value);
                    driver.read_bar(bar, at, width);
                }
                Access::Request => {
                    driver.header(IN, 1);
                    driver.offer(0);
                    driver.notify();
                }
                Access::Pause => {
                    driver.device.pause();
                    driver.device.resume();
                }
                Access::Save => {
                    let state = driver.device.save();
                    driver.device.restore(&state).expect("its own state");
                    let again = driver.device.save();
                    prop_assert_eq!(again.transport().status, state.transport().status);
                }
            }
        }
        driver.set_config(4, B2, MEMORY | MASTER);
        driver.control(false, 0);
        driver.store(0x70, 0);
        prop_assert_eq!((driver.load(0x70), driver.interrupted()), (0, false));
        prop_assert_eq!(driver.initialize(0), 0xF);
        prop_assert_eq!(driver.request(IN, 1, 512), (OK, 513));
    }
}
