//! The fuzzing entry, driven by random bytes on stable Rust; `fuzz/` drives it by coverage.

use std::time::{Duration, Instant};

/// splitmix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Every mode in turn, each guest from its own number: `FUZZ_FROM` and `FUZZ_SECONDS` look further,
/// or at one again.
#[test]
fn arbitrary_guests_do_no_harm() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let from = number("FUZZ_FROM").unwrap_or(0);
    let length = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(4));
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for n in from.. {
        if began.elapsed() > length && n - from >= 20 {
            println!("guests {from} to {n}, the slowest took {slowest:?}");
            break;
        }
        let mut seed = n;
        let mut data = vec![(n % 10) as u8 | random(&mut seed) as u8 & 0xc0];
        let len = random(&mut seed) % 64 * u64::from(n % 3 == 0);
        data.extend((0..=len).flat_map(|_| random(&mut seed).to_le_bytes()));
        let start = Instant::now();
        if std::env::var_os("FUZZ_VERBOSE").is_some() {
            eprintln!("guest {n}");
        }
        engine_soft::fuzzing::run(&data);
        slowest = slowest.max(start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(20), "guest {n} took {:?}", start.elapsed());
    }
}
