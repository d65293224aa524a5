//! Both tiers against each other, on guests made of random instructions, and the comparison itself
//! against mistakes made on purpose.

use engine_soft::Sabotage;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use test_support::{Rng, setting};

fn guest(n: u64) -> Vec<u8> {
    let mut random = Rng::new(n);
    let wild = u8::from(n % 8 == 5) << 2;
    let folded = u8::from(n % 4 >= 2) << 3;
    let mut data = vec![n as u8 & 1 | (n >> 2) as u8 & 2 | wild | folded];
    data.extend(random.next().to_le_bytes());
    data
}

#[test]
fn both_tiers_leave_the_same_behind() {
    each_guest(generated::twins);
}

#[test]
fn interrupting_the_translator_changes_nothing() {
    each_guest(generated::disturbed);
}

/// Its code is rewritten in a part that only the per-access translation has. A check that went on
/// in that one, dead as it was, came back to itself for ever.
#[test]
fn a_dead_per_access_translation_is_left_alone() {
    let (told, ended) = mpsc::channel();
    thread::spawn(move || {
        generated::disturbed(&guest(77_006_193));
        told.send(()).expect("it is waited for");
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("the guest ends");
}

/// On Intel's processors a rotation by an immediate leaves OF where it rotates a register, and
/// gives it where it rotates memory; the interpreter took the one for the other.
#[test]
fn what_a_rotation_of_memory_makes_of_of_is_the_same() {
    generated::twins(&guest(770_231));
}

#[test]
fn counted_time_is_the_same_on_both_tiers() {
    each_guest(generated::timed);
}

#[test]
fn pages_that_have_to_come_first_change_nothing() {
    let swap = Path::new(env!("CARGO_TARGET_TMPDIR"));
    each_of(8, |data| generated::paged(data, swap));
}

/// Each guest from its own number: `FUZZ_FROM` and `FUZZ_SECONDS` look further, or at one again.
fn each_guest(judge: fn(&[u8])) {
    each_of(100, judge);
}

/// As [`each_guest`], so many at the least.
fn each_of(least: u64, judge: impl Fn(&[u8])) {
    let from = setting("FUZZ_FROM").unwrap_or(0);
    let length = Duration::from_secs(setting("FUZZ_SECONDS").unwrap_or(8));
    let began = Instant::now();
    for n in from.. {
        if began.elapsed() > length && n - from >= least {
            println!("guests {from} to {n}");
            break;
        }
        let _told = Told(n);
        if std::env::var_os("FUZZ_VERBOSE").is_some() {
            eprintln!("guest {n}");
        }
        judge(&guest(n));
    }
}

/// Tells which guest it was that failed: `FUZZ_FROM` looks at it again.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FUZZ_FROM={}", self.0);
        }
    }
}

#[test]
fn lockstep_notices_what_is_wrong() {
    let cases = [
        (Sabotage::Register, "rdi"),
        (Sabotage::Flag, "rflags"),
        (Sabotage::Vector, "ymm5"),
        (Sabotage::Memory, "[0x"),
    ];
    for (how, what) in cases {
        let report = (0..20).find_map(|n| generated::sabotaged(&guest(4 * n), how));
        let report = report.unwrap_or_else(|| panic!("{how:?} went unnoticed"));
        for piece in [what, "guest instructions", "host code", "before"] {
            assert!(report.contains(piece), "{how:?}: no {piece:?} in\n{report}");
        }
    }
}
