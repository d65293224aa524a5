//! The program under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program: the one that the environment variable `GEMELLO` names, or else the release build,
/// made on first use. Unoptimized, the engine is too slow to boot a system.
///
/// # Panics
/// The program does not build.
pub fn gemello() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os("GEMELLO").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // A test lies in <target>/<profile>/deps.
    let test = std::env::current_exe().expect("a path");
    let target = test.ancestors().nth(3).expect("a target directory").to_owned();
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "gemello"])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status();
    assert!(status.expect("cargo runs").success(), "gemello does not build");
    target.join("release/gemello")
}
