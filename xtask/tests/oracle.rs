//! The software engine held against the host processor, for a minute from a fixed seed, on either
//! tier.
#![forbid(unsafe_code)]

use std::process::Command;

/// `GEMELLO_ORACLE_SECONDS` makes it longer or shorter. `cargo xtask diff` runs on and replays
/// mismatches.
fn no_mismatch(engine: &str) {
    let seconds = std::env::var("GEMELLO_ORACLE_SECONDS").unwrap_or_else(|_| "60".into());
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["diff", "--engine", engine, "--seed", "1", "--seconds", &seconds])
        .output()
        .expect("xtask starts");
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}");
    assert!(
        output.status.success(),
        "{engine} and host differ (1) or the oracle cannot run (2): {}\n{report}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_minute_of_the_interpreter_without_mismatch() {
    no_mismatch("soft");
}

#[test]
fn a_minute_of_the_translator_without_mismatch() {
    no_mismatch("translate");
}

#[test]
fn an_engines_mistakes_are_its_own() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["diff", "--engine", "mistaken", "--seed", "1", "--cases", "20000"])
        .output()
        .expect("xtask starts");
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("MISMATCH\n"), "{report}");
    assert!(report.contains("rbx"), "{report}");
    assert!(report.contains("\n0 cases in which the host did not repeat itself"), "{report}");
}
