//! Saved states: a device restored goes on as the one that was saved, and no state that a file may
//! hold does harm.

use crate::rig::{Rig, Snapshot};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A timer that expired just before it was saved waits for this long, to spare the host.
const PACE_NS: u64 = 20_000;

fn steps(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<[u8; 8]>> {
    prop::collection::vec(any::<[u8; 8]>(), length)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Through text, into fresh devices: the same state, the same deadline, and the same answers to
    /// whatever follows.
    #[test]
    fn a_restored_device_goes_on_as_the_saved_one(before in steps(0..400), after in steps(0..200)) {
        let rig = Rig::new();
        take(&rig, &before);
        let saved = rig.save();
        let text = serde_json::to_string(&saved).expect("plain data");
        let read: Snapshot = serde_json::from_str(&text).expect("what was written");
        let fresh = Rig::new();
        fresh.restore(&read).expect("a state that was reached");
        prop_assert_eq!(fresh.save(), saved);
        fresh.check();
        for rig in [&rig, &fresh] {
            rig.pass(PACE_NS);
        }
        for step in after {
            prop_assert_eq!(fresh.step(step), rig.step(step), "{:?}", step);
        }
        prop_assert_eq!(fresh.save(), rig.save());
        prop_assert_eq!(fresh.timers.next_deadline(), rig.timers.next_deadline());
    }

    /// The number at any place of any device's state may be any number.
    #[test]
    fn any_numbers_are_refused_or_run(
        before in steps(0..100),
        changes in prop::collection::vec((any::<usize>(), any::<u64>(), 0u32..64), 1..4),
        after in steps(0..100),
    ) {
        let mut state = reached(&before);
        let places = places(&state);
        for (place, value, shift) in changes {
            *at(&mut state, &places[place % places.len()]) = (value >> shift).into();
        }
        run_if_taken(state, &after);
    }
}

/// Takes `steps`, and lets happen what is due then.
fn take(rig: &Rig, steps: &[[u8; 8]]) {
    for &step in steps {
        rig.step(step);
    }
    rig.pass(0);
}

/// The state of devices that have taken `steps`.
fn reached(steps: &[[u8; 8]]) -> Value {
    let rig = Rig::new();
    take(&rig, steps);
    serde_json::to_value(rig.save()).expect("plain data")
}

/// Restores `state` if it is one; what has taken it must run. Whether it was taken.
fn run_if_taken(state: Value, after: &[[u8; 8]]) -> bool {
    let Ok(state) = serde_json::from_value::<Snapshot>(state) else { return false };
    let rig = Rig::new();
    // A machine refuses such a time before it asks a device.
    if state.now > 1 << 62 || rig.restore(&state).is_err() {
        return false;
    }
    rig.check();
    rig.pass(0);
    take(&rig, after);
    rig.pass(1 << 40);
    let saved = rig.save();
    rig.restore(&saved).expect("a state that was reached");
    true
}

/// The way to each value that holds no others.
fn places(value: &Value) -> Vec<Vec<Key>> {
    let inner: Vec<(Key, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(k, v)| (Key::Name(k.clone()), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (Key::Index(i), v)).collect(),
        _ => return vec![vec![]],
    };
    let deeper = |(key, value): (Key, &Value)| {
        let rest = places(value);
        rest.into_iter().map(move |rest| [vec![key.clone()], rest].concat()).collect::<Vec<_>>()
    };
    inner.into_iter().flat_map(deeper).collect()
}

#[derive(Clone, Debug)]
enum Key {
    Name(String),
    Index(usize),
}

fn at<'a>(value: &'a mut Value, place: &[Key]) -> &'a mut Value {
    place.iter().fold(value, |value, key| match key {
        Key::Name(name) => &mut value[name],
        Key::Index(index) => &mut value[index],
    })
}

/// Steps without any order, always the same ones.
fn any_steps(count: usize) -> Vec<[u8; 8]> {
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random ^ random >> 29).to_le_bytes()
    };
    (0..count).map(|_| next()).collect()
}

/// A state in which every device is busy: counters and timers run, latches hold something.
fn busy() -> Value {
    reached(&any_steps(2000))
}

fn odd_values() -> Vec<Value> {
    let numbers = [0, 1, 3, 7, 0x80, 0xFF, 0x100, 0xFFFF, 1 << 16, 1 << 31, 1 << 40, 1 << 63];
    let numbers = numbers.into_iter().chain([u64::from(u32::MAX), u64::MAX]).map(Value::from);
    let others = json!([-1, i64::MIN, 0.5, null, true, false, "", "Ocw1", [], [1, 2], {}]);
    numbers.chain(others.as_array().expect("an array").clone()).collect()
}

/// Every field of every device, replaced, removed, and given a neighbour.
#[test]
fn no_odd_field_does_harm() {
    let state = busy();
    let after = any_steps(40);
    let (mut taken, mut tried) = (0, 0);
    for place in places(&state) {
        for value in odd_values() {
            let mut odd = state.clone();
            *at(&mut odd, &place) = value;
            taken += u32::from(run_if_taken(odd, &after));
            tried += 1;
        }
        let mut removed = state.clone();
        let (last, holder) = place.split_last().expect("no state is a number");
        match (at(&mut removed, holder), last) {
            (Value::Object(map), Key::Name(name)) => drop(map.remove(name)),
            (Value::Array(items), Key::Index(index)) => drop(items.remove(*index)),
            other => panic!("{other:?}"),
        }
        run_if_taken(removed, &after);
    }
    assert!(taken > tried / 10 && taken < tried / 2, "{taken} of {tried} were taken");
}

/// Each device's part of a snapshot, and the name that messages give it.
const PARTS: [(&str, &str); 11] = [
    ("lapics", "local APIC"),
    ("pic", "8259 pair"),
    ("ioapic", "IOAPIC"),
    ("pit", "8254"),
    ("rtc", "RTC"),
    ("uart", "serial line"),
    ("i8042", "keyboard controller"),
    ("acpi", "ACPI hardware"),
    ("post", "POST port"),
    ("fast_a20", "fast A20 port"),
    ("reset", "reset register"),
];

fn part<'a>(state: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    let part = &mut state[name];
    let part = if part.is_array() { &mut part[0] } else { part };
    part.as_object_mut().expect("a device's state")
}

#[test]
fn another_version_is_refused_by_name_and_changes_nothing() {
    for (field, device) in PARTS {
        let mut state = busy();
        let version = part(&mut state, field)["version"].as_u64().expect("a number");
        part(&mut state, field).insert("version".into(), (version + 1).into());
        let state: Snapshot = serde_json::from_value(state).expect("the same fields");
        let rig = Rig::new();
        rig.clock.set(state.now);
        let own = |rig: &Rig| serde_json::to_value(rig.save()).expect("plain data")[field].clone();
        let before = own(&rig);
        let error = rig.restore(&state).expect_err(device).to_string();
        assert_eq!(own(&rig), before, "{device}");
        let wanted =
            format!("the {device} has version {}, and this build reads {version}", version + 1);
        assert!(error.contains(&wanted), "{error}");
    }
}

#[test]
fn a_field_that_is_not_known_is_refused() {
    for (field, device) in PARTS {
        let mut state = busy();
        part(&mut state, field).insert("another".into(), 1.into());
        let error = serde_json::from_value::<Snapshot>(state).expect_err(device).to_string();
        assert!(error.contains("unknown field `another`"), "{device}: {error}");
    }
}
