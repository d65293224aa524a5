//! Folders in which commands are run as a document shows them.

use crate::builder::{Archive, Packing, saved};
use e2e::{cache, gemello};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of this test's own, with `gemello` in its `bin`, a `runtime` folder, and a `cache` that
/// has Debian.
pub(crate) fn place() -> PathBuf {
    let name = e2e::test_name();
    let place = std::env::temp_dir().join(format!("gemello-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(place.join("bin")).expect("a directory");
    symlink(fs::canonicalize(gemello()).expect("built"), place.join("bin/gemello"))
        .expect("a link");
    fs::create_dir(place.join("runtime")).expect("a folder");
    fs::set_permissions(place.join("runtime"), fs::Permissions::from_mode(0o700)).expect("mine");
    fs::create_dir_all(place.join("cache/gemello")).expect("a folder");
    symlink(cache(), place.join("cache/gemello/debian")).expect("a link");
    place
}

/// `line` of a shell, to be run in `at`, with what `place` has.
pub(crate) fn shell(line: &str, place: &Path, at: &Path) -> Command {
    let path = format!("{}:{}", place.join("bin").display(), std::env::var("PATH").expect("PATH"));
    let mut shell = Command::new("timeout");
    shell.args(["90", "sh", "-c", line]).current_dir(at).env("PATH", path);
    shell.env("XDG_RUNTIME_DIR", place.join("runtime"));
    shell
}

/// `image.tar` in `at`: a shell, and a command that says something.
pub(crate) fn image(at: &Path, command: &[&str]) {
    let busybox = fs::read(cache().join("cloud/busybox")).expect("busybox");
    let content = Archive::new().folder("bin", 0o755, (0, 0));
    let mut content = content.file("bin/busybox", 0o755, (0, 0), &busybox);
    for applet in ["sh", "poweroff", "cat", "ls", "uname", "echo"] {
        content = content.symlink(&format!("bin/{applet}"), "busybox");
    }
    let config = json!({ "Cmd": command, "Env": ["PATH=/bin", "GREETING=hello"] });
    saved(&[(content.end(), Packing::Gzip)], &config).write_archive(&at.join("image.tar"));
}

/// `initrd.img` in `at`, whose init says hello and powers off.
pub(crate) fn initrd(at: &Path) {
    let tree = at.join("tree");
    fs::create_dir_all(tree.join("bin")).expect("a directory");
    fs::copy(cache().join("cloud/busybox"), tree.join("bin/busybox")).expect("busybox");
    let init = "#!/bin/busybox sh\necho hello from my own init\n/bin/busybox poweroff -f\n";
    fs::write(tree.join("init"), init).expect("a file");
    let script = "chmod +x init bin/busybox && find . | \"$0\" cpio -o -H newc > ../initrd.img";
    let busybox = cache().join("cloud/busybox");
    let mut shell = Command::new("sh");
    e2e::succeeds(shell.arg("-c").arg(script).arg(busybox).current_dir(&tree));
    fs::remove_dir_all(&tree).expect("it is there");
}
