//! The guest program: built from the source checkout on first use.

use anyhow::{Context as _, Result, bail};
use std::io::{ErrorKind, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where its sources are, seen from this crate's.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/guest");
/// What `.cargo/config.toml` there builds for.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What a cargo around us sets and this one must not inherit.
const OUTER: [&str; 8] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_INCREMENTAL",
];

/// How to go on.
const INSTEAD: &str = "give the built program with --guest FILE";

/// The program: the user's, or built now if it is not up to date.
///
/// # Errors
/// No sources, no cargo, or the build fails.
pub(super) fn program(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        if !path.is_file() {
            bail!("there is no guest program {}", path.display());
        }
        return path.canonicalize().with_context(|| format!("cannot find {}", path.display()));
    }
    let sources = Path::new(SOURCES);
    if !sources.join("Cargo.toml").is_file() {
        bail!(
            "the guest programs' sources are not at {SOURCES}, where gemello was built; {INSTEAD}"
        );
    }
    let target = sources.join("target");
    let program = target.join(TARGET).join("release/bench-guest");
    if !program.is_file() {
        eprintln!("gemello: building the guest programs (SQLite and Lua among them): a minute");
    }
    build(sources, &target)?;
    program.canonicalize().with_context(|| format!("cargo made no {}", program.display()))
}

fn build(sources: &Path, target: &Path) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(sources).args(["build", "--release", "--locked", "--target-dir"]).arg(target);
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    for name in OUTER {
        cargo.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PROFILE_") || name.starts_with("CARGO_TARGET_X86_64") {
            cargo.env_remove(&*name);
        }
    }
    match cargo.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!(
            "building the guest programs failed ({status}); its messages are above; try it alone: \
             cd {} && cargo build --release; or {INSTEAD}",
            sources.display()
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no cargo to build the guest programs; {INSTEAD}")
        }
        Err(error) => Err(error).context("cannot run cargo"),
    }
}
