//! Builds `guest/` (programs first, then the nucleus that embeds them) for bare metal.
//!
//! A cargo of its own, with a target directory of its own, so that profile and flags of neither
//! build reach the other. It needs no network: the guest has no dependencies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What the outer cargo sets and the inner must not inherit.
const OUTER: &[&str] = &[
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_INCREMENTAL",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
];

fn main() {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest");
    for part in ["Cargo.toml", "Cargo.lock", ".cargo", "abi", "nucleus", "programs", "string"] {
        println!("cargo:rerun-if-changed={}", guest.join(part).display());
    }
    // The nucleus includes it.
    for shared in ["apic.rs", "vectors.rs"] {
        let path = guest.join("../crates/x86/src").join(shared);
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Beside the profiles (`<target>/<profile>/build/<package>/out`): it is the same for each.
    let target = out.ancestors().nth(4).unwrap_or(&out).join("guest");
    let built = target.join(TARGET).join("release");
    build(&guest, &target, &built, "programs");
    build(&guest, &target, &built, "nucleus");
    fs::copy(built.join("nucleus"), out.join("nucleus.elf")).expect("the nucleus was built");
}

fn build(guest: &Path, target: &Path, built: &Path, package: &str) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo
        .current_dir(guest)
        .args(["build", "--release", "--offline", "--locked", "--package", package])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target)
        .env("NUCLEUS_PROGRAMS", built);
    for name in OUTER {
        cargo.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PROFILE_") || name.starts_with("CARGO_TARGET_X86_64") {
            cargo.env_remove(&*name);
        }
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(
        status.success(),
        "building guest/{package} failed ({status}); try it alone: cd guest && cargo build \
         --release -p {package}"
    );
}
