//! Files of one crate do not import each other in circles: each can be read after those that it is
//! built on.

use structure::{Imports, packages, rust_files};

/// Crates in which there is no circle, and where none may come.
const FREE: [&str; 9] = [
    "boot",
    "devices",
    "engine-soft",
    "gemello",
    "host",
    "machine",
    "nucleus-image",
    "sched",
    "vcpu",
];

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let files = rust_files();
    let mut complaints = Vec::new();
    for name in FREE {
        let packages = packages();
        let package = packages.iter().find(|package| package.name == name).expect("a crate");
        for circle in Imports::of(&files, &format!("{}/src", package.folder)).circles() {
            complaints.push(format!("{name}: {}", circle.join(", ")));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
