//! No file of ours names a package registry: which one is used is the business of the machine that
//! builds.

use structure::tracked_files;

/// In pieces, so that this file does not name them either.
const HOSTS: [&[&str]; 10] = [
    &["crates", ".io"],
    &["docs", ".rs"],
    &["deb.debian", ".org"],
    &["security.debian", ".org"],
    &["archive.ubuntu", ".com"],
    &["pypi", ".org"],
    &["pythonhosted", ".org"],
    &["npmjs", ".org"],
    &["golang", ".org"],
    &["docker", ".io"],
];

#[test]
fn no_file_names_a_package_registry() {
    let hosts = HOSTS.map(<[&str]>::concat);
    let mut complaints = Vec::new();
    for file in tracked_files() {
        // Cargo itself writes where a package came from into its lock file.
        if file.path.ends_with("Cargo.lock") {
            continue;
        }
        for host in hosts.iter().filter(|h| file.text.contains(h.as_str())) {
            complaints.push(format!("{} names {host}", file.path));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
