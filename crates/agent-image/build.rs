//! Builds `crates/agent` as a static executable.
//!
//! A cargo of its own, with a target directory of its own: what is linked statically is the agent
//! alone. It needs no network: gemello itself has each of the agent's dependencies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const STATIC: &str = "target.x86_64-unknown-linux-gnu.rustflags=\
    [\"-Ctarget-feature=+crt-static\", \"-Crelocation-model=static\"]";
/// What of the outer cargo's environment is the inner one's, too.
const SHARED: [&str; 8] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "CARGO_MAKEFLAGS",
    "MAKEFLAGS",
];

fn main() {
    let house = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for part in ["crates/agent", "crates/agent-job", "crates/copy", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", house.join(part).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Beside the profiles (`<target>/<profile>/build/<package>/out`): it is the same for each.
    let target = out.ancestors().nth(4).unwrap_or(&out).join("agent");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo
        .current_dir(&house)
        .args(["build", "--profile", "agent", "--offline", "--locked", "--package", "agent"])
        .args(["--config", STATIC, "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env_clear();
    for name in SHARED {
        if let Some(value) = env::var_os(name) {
            cargo.env(name, value);
        }
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(
        status.success(),
        "building crates/agent failed ({status}); it needs the static C library, which Debian has \
         in libc6-dev; try it alone: cargo build --profile agent -p agent --config '{STATIC}'"
    );
    let built = target.join(TARGET).join("agent/agent");
    fs::copy(built, out.join("agent.elf")).expect("the agent was built");
}
