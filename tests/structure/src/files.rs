//! The project's files, as git knows them (new ones included, ignored ones not).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A text file of the project.
#[derive(Clone, Debug)]
pub struct File {
    /// Relative to the project's root.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// The project's root.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a workspace").to_owned()
    })
}

/// The file at `path`, relative to the root.
///
/// # Panics
/// It cannot be read as text.
pub fn file(path: &str) -> File {
    let text = std::fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    File { path: path.to_owned(), text }
}

/// Every text file of the project.
///
/// # Panics
/// This is no git work tree, or git is missing.
pub fn tracked_files() -> Vec<File> {
    let output = Command::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(root())
        .output()
        .expect("git lists the project's files");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let mut names: Vec<_> = names.split_terminator('\0').collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter_map(|name| {
            let text = std::fs::read_to_string(root().join(name)).ok()?;
            Some(File { path: name.to_owned(), text })
        })
        .collect()
}

/// Every Rust file of the project, the guest's included.
pub fn rust_files() -> Vec<File> {
    tracked_files()
        .into_iter()
        .filter(|f| Path::new(&f.path).extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// Every document of the project: its Markdown files.
pub fn documents() -> Vec<File> {
    tracked_files()
        .into_iter()
        .filter(|f| Path::new(&f.path).extension().is_some_and(|e| e == "md"))
        .collect()
}
