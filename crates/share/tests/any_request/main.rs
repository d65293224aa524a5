//! A share, asked by arbitrary guests: nothing panics, nothing hangs, nothing gets out.

mod rig;

use std::time::{Duration, Instant};

/// Guests made of random bytes for so long.
fn guests(time: Duration) {
    let began = Instant::now();
    let (mut random, mut guests) = (0x9E37_79B9_7F4A_7C15_u64, 0);
    while began.elapsed() < time || guests == 0 {
        let mut byte = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 32) as u8
        };
        let data: Vec<u8> = (0..12_001).map(|_| byte()).collect();
        rig::fuzz(&data);
        guests += 1;
    }
    println!("{guests} guests with 1000 requests each");
}

#[test]
fn no_guest_does_harm() {
    guests(Duration::from_secs(2));
}

/// `FUZZ_SECONDS` says how long.
#[test]
#[ignore = "second step: ten seconds, or as many as FUZZ_SECONDS says"]
fn no_guest_does_harm_for_long() {
    let said = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    guests(Duration::from_secs(said.unwrap_or(10)));
}
