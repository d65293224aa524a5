//! The software engine held against the host processor, for a minute from a fixed seed.
#![forbid(unsafe_code)]

use std::process::Command;

/// `GEMELLO_ORACLE_SECONDS` makes it longer or shorter. `cargo xtask diff` runs on and replays mismatches.
#[test]
fn a_minute_without_mismatch() {
    let seconds = std::env::var("GEMELLO_ORACLE_SECONDS").unwrap_or_else(|_| "60".into());
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["diff", "--seed", "1", "--seconds", &seconds])
        .output()
        .expect("xtask starts");
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}");
    assert!(
        output.status.success(),
        "engine and host differ (1) or the oracle cannot run (2): {}\n{report}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
