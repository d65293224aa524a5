//! Images of others, from Debian's packages: memtest86+ on the bare machine.

use e2e::{Session, command, debian};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache");
    base.map_or_else(home, PathBuf::from).join("gemello/debian")
}

/// The 64-bit image of Debian's memtest86+ package, fetched with the apt configuration that `gemello fetch` has made.
fn memtest() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("memtest86+");
    let image = place.join("boot/memtest86+x64.bin");
    if image.exists() {
        return image;
    }
    fs::create_dir_all(&place).expect("a scratch directory");
    let mut fetch = Command::new("apt-get");
    fetch.args(["download", "memtest86+"]).env("APT_CONFIG", cache().join("apt/apt.conf"));
    let fetched = fetch.current_dir(&place).output().expect("apt-get starts");
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let entries = fs::read_dir(&place).expect("a directory");
    let deb = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .expect("a package");
    let status = Command::new("dpkg-deb").arg("-x").arg(deb).arg(&place).status();
    assert!(status.expect("dpkg-deb starts").success());
    image
}

#[test]
fn memtest86_starts_its_first_pass() {
    for tier in ["interp", "translate"] {
        let _turn = debian("cloud");
        let image = memtest();
        let mut session = Session::start(command(&[
            "run",
            image.to_str().expect("a path"),
            "--cmdline",
            "console=ttyS0,115200",
            "--memory",
            "64M",
            "--timeout",
            "2m",
            "--tier",
            tier,
        ]));
        session.expect("Address test, walking ones", Duration::from_secs(60));
        // The next test: memory is written and read back.
        session.expect("Moving inversions", Duration::from_secs(100));
        session.expect("Pass:  0        Errors: 0", Duration::from_secs(60));
    }
}
