//! Images of hostile authors: nothing panics, nothing hangs, no other file is read or changed.

mod rig;

use std::time::{Duration, Instant};
use test_support::{Rng, setting};

/// `FUZZ_SECONDS` looks longer, and `FUZZ_FROM` from another image on.
#[test]
fn no_image_does_harm() {
    let length = Duration::from_secs(setting("FUZZ_SECONDS").unwrap_or(2));
    let (first, began) = (setting("FUZZ_FROM").unwrap_or(0), Instant::now());
    let (mut opened, mut number) = (0, first);
    while began.elapsed() < length || number < first + 100 {
        let mut random = Rng::new(number + 1);
        let data: Vec<u8> = (0..200).map(|_| random.next() as u8).collect();
        let before = Instant::now();
        opened += u64::from(rig::fuzz(&data).min(1));
        let took = before.elapsed();
        assert!(took < Duration::from_secs(60), "image {number} takes {took:?}");
        number += 1;
    }
    let images = number - first;
    println!("images {first} to {number}: {opened} could be opened");
    // One that nothing is changed in can.
    assert!(opened * 8 > images, "{opened} of {images}: what is tested is the refusal alone");
}
