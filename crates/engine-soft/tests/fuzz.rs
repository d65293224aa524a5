//! The fuzzing entry, driven by random bytes on stable Rust; `fuzz/` drives it by coverage.

use std::time::{Duration, Instant};
use test_support::{Rng, setting};

/// Every mode in turn, each guest from its own number: `FUZZ_FROM` and `FUZZ_SECONDS` look further,
/// or at one again.
#[test]
fn arbitrary_guests_do_no_harm() {
    let from = setting("FUZZ_FROM").unwrap_or(0);
    let length = Duration::from_secs(setting("FUZZ_SECONDS").unwrap_or(4));
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for n in from.. {
        if began.elapsed() > length && n - from >= 20 {
            println!("guests {from} to {n}, the slowest took {slowest:?}");
            break;
        }
        let mut random = Rng::new(n);
        let mut data = vec![(n % 10) as u8 | random.next() as u8 & 0xc0];
        let len = random.next() % 64 * u64::from(n % 3 == 0);
        data.extend((0..=len).flat_map(|_| random.next().to_le_bytes()));
        let start = Instant::now();
        if std::env::var_os("FUZZ_VERBOSE").is_some() {
            eprintln!("guest {n}");
        }
        generated::run(&data);
        slowest = slowest.max(start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(20), "guest {n} took {:?}", start.elapsed());
    }
}
