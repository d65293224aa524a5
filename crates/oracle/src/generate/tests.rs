//! What the generator promises.

use super::*;
use crate::native::NativeRunner;
use crate::report::compare;
use crate::undefined::Mask;

fn generator(seed: u64) -> Generator {
    Generator::new(seed, Options::default())
}

#[test]
fn one_seed_gives_one_sequence() {
    let (mut a, mut b, mut c) = (generator(1), generator(1), generator(2));
    let first: Vec<_> = (0..500).map(|_| a.next_case()).collect();
    assert!(first.iter().all(|case| *case == b.next_case()));
    assert!(first.iter().any(|case| *case != c.next_case()));
}

#[test]
fn every_encoding_of_the_catalog_can_be_generated() {
    let options = Options { blocks: 0, noise: 0, compatible: 50, ..Options::default() };
    let mut g = Generator::new(3, options);
    for _ in 0..g.encodings() * 3 {
        g.next_case();
    }
    let missing: Vec<_> = g.coverage().filter(|c| c.2 == 0).map(|c| (c.0, c.1)).collect();
    assert_eq!(missing, [], "of {}", g.encodings());
}

#[test]
fn native_outcomes_are_deterministic_and_mostly_ordinary() {
    let mut runner = NativeRunner::new().expect("native runner");
    let mut g = generator(4);
    let mut ordinary = 0;
    for _ in 0..80 {
        let cases: Vec<_> = (0..crate::BATCH).map(|_| g.next_case()).collect();
        let first = runner.run_batch(&cases).expect("batch").to_vec();
        let second = runner.run_batch(&cases).expect("batch");
        for ((case, a), b) in cases.iter().zip(&first).zip(second) {
            let differences = compare(case, a, b, &Mask::default());
            assert_eq!(differences, [], "{}", crate::describe(case, &differences));
            ordinary += u32::from(a.event.fault().is_none());
        }
    }
    assert!(ordinary > 5000, "only {ordinary} of 10240 cases end without a fault");
    assert_eq!(runner.restarts(), 0);
}

/// Figures, not bounds: `cargo test --release -p oracle rates -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn rates_by_hand() {
    use std::time::Instant;
    let mut runner = NativeRunner::new().expect("native runner");
    let mut g = generator(5);
    let start = Instant::now();
    let cases: Vec<_> = (0..100 * crate::BATCH).map(|_| g.next_case()).collect();
    let rate = |start: Instant| cases.len() as f64 / start.elapsed().as_secs_f64();
    println!("generated {:.0} cases a second", rate(start));
    let start = Instant::now();
    for batch in cases.chunks(crate::BATCH) {
        runner.run_batch(batch).expect("batch");
    }
    println!("ran {:.0} cases a second", rate(start));
    let bare = vec![Case::with_code(&[]); crate::BATCH];
    let start = Instant::now();
    for _ in 0..100 {
        runner.run_batch(&bare).expect("batch");
    }
    println!("ran {:.0} empty cases a second", rate(start));
}
