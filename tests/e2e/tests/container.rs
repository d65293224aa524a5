//! What people run, as nobody, under what a container's default seccomp profile denies.

use crate::place;
use e2e::{cache, code, debian, gemello, succeeds, system_disk, test_name, text};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder of nobody's, with the program, a cache that has Debian's cloud kernel, and an image.
struct Container(PathBuf);

impl Container {
    fn new() -> Self {
        let name = format!("gemello-{}-{}", test_name(), std::process::id());
        let place = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&place);
        let debian = place.join("cache/gemello/debian");
        fs::create_dir_all(&debian).expect("a folder");
        fs::create_dir(place.join("runtime")).expect("a folder");
        fs::copy(gemello(), place.join("gemello")).expect("the program");
        let copy = |what: &str| {
            succeeds(Command::new("cp").arg("-r").arg(cache().join(what)).arg(&debian));
        };
        ["cloud", "apt"].into_iter().for_each(copy);
        place::image(&place, &["/bin/sh", "-c", "echo $GREETING from an image"]);
        fs::copy(system_disk("qcow2"), place.join("disk.qcow2")).expect("a disk");
        if rustix::process::geteuid().is_root() {
            succeeds(Command::new("chown").args(["-R", "65534:65534"]).arg(&place));
        }
        succeeds(Command::new("chmod").arg("700").arg(place.join("runtime")));
        Self(place)
    }

    /// `program` as nobody.
    fn starts(&self, program: &Path) -> Command {
        let mut python = Command::new("python3");
        python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/host/container.py"));
        python.arg(program).current_dir(&self.0).stdin(Stdio::null());
        python.env("HOME", &self.0).env("XDG_CACHE_HOME", self.0.join("cache"));
        python.env("XDG_RUNTIME_DIR", self.0.join("runtime"));
        python
    }

    /// What gemello says, called with these `arguments`.
    fn says(&self, arguments: &[&str]) -> String {
        let mut command = self.starts(&self.0.join("gemello"));
        let output = command.args(arguments).output().expect("python3");
        let (said, message) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(code(&output), 0, "{arguments:?}: {said}{message}");
        said
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
#[ignore = "second step: boots some guests"]
fn nobody_needs_nothing_that_a_container_denies() {
    let _turn = debian("cloud");
    let container = Container::new();
    let says = |words: &[&str]| container.says(&[&["run", "--timeout", "5m"], words].concat());
    let host = |line: &str| {
        let mut shell = container.starts(Path::new("/bin/sh"));
        shell.args(["-c", line]).status().expect("python3").success()
    };
    assert!(host("true") && !host("unshare --user"), "nothing is denied");

    let command = "ip -4 addr show dev eth0 | grep -c inet; nproc";
    let small = ["busybox", "--vcpus", "2", "--resident", "96M", "--", "sh", "-c", command];
    assert_eq!(says(&small), "1\n2\n");
    let said = says(&["--rootfs", "/", "--", "sh", "-c", "id -u; pwd"]);
    let nobody = fs::metadata(&container.0).expect("there").uid();
    assert_eq!(said, format!("{nobody}\n{}\n", container.0.display()));
    assert_eq!(says(&["oci:image.tar"]), "hello from an image\n");
    assert!(says(&["--disk", "disk.qcow2"]).contains("the newest kernel"));

    // In one that runs in the background.
    container.says(&["run", "busybox", "--detach", "--name", "busy", "--", "sleep", "1000"]);
    assert_eq!(
        container.says(&["exec", "busy", "--", "sh", "-c", "id -u; echo in > /tmp/f"]),
        "0\n"
    );
    assert_eq!(container.says(&["cp", "busy:/tmp/f", "f"]), "");
    assert_eq!(fs::read_to_string(container.0.join("f")).expect("copied"), "in\n");
    container.says(&["stop", "--force", "busy"]);
    container.says(&["run", "--nucleus", "--detach", "--name", "quiet"]);
    assert!(container.says(&["ps"]).contains("quiet"));
    container.says(&["stop", "quiet"]);
    assert!(!container.says(&["ps"]).contains("quiet"));
}
