//! The workspace's crates and what they depend on, from `cargo metadata`.

use crate::files::root;
use serde_json::Value;
use std::process::Command;

/// A member of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder, relative to the root.
    pub folder: String,
    /// What it names in its manifest.
    pub dependencies: Vec<Dependency>,
}

/// One line of a manifest's dependencies.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// For tests and examples only.
    pub dev: bool,
}

/// The members of the workspace.
///
/// # Panics
/// `cargo metadata` fails.
pub fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    list(&metadata["packages"]).iter().map(package).collect()
}

fn package(value: &Value) -> Package {
    let manifest = text(&value["manifest_path"]);
    let folder = manifest.strip_suffix("/Cargo.toml").expect("a manifest");
    let folder = folder.strip_prefix(&format!("{}/", root().display())).unwrap_or(folder);
    let dependency =
        |d: &Value| Dependency { name: text(&d["name"]), dev: d["kind"].as_str() == Some("dev") };
    Package {
        name: text(&value["name"]),
        folder: folder.to_owned(),
        dependencies: list(&value["dependencies"]).iter().map(dependency).collect(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
