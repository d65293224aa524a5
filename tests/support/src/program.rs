//! The program under test.

use std::ffi::OsStr;
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
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "--package", "gemello"]);
    build.env("CARGO_TARGET_DIR", &target);
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    // What cargo tells a test of its package, some dependency's build script takes for a change.
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_a_package(name)) {
        build.env_remove(name);
    }
    assert!(build.status().expect("cargo runs").success(), "gemello does not build");
    target.join("release/gemello")
}

fn of_a_package(variable: &OsStr) -> bool {
    let kinds = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"];
    let of_a_kind = |name: &str| kinds.iter().any(|kind| name.starts_with(kind));
    variable == "OUT_DIR" || variable.to_str().is_some_and(of_a_kind)
}
