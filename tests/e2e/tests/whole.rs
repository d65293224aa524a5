//! A whole Debian: made once, kept, and the ground of many machines. It takes minutes, and the
//! network: docs/measurements.md has its figures.

use e2e::{code, gemello, succeeds, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

/// A cache of its own, at the place that the environment names if it does, so that what is fetched
/// can be used again.
fn cache() -> PathBuf {
    let kept = std::env::var_os("GEMELLO_WHOLE_CACHE").map(PathBuf::from);
    let cache = kept.unwrap_or_else(|| std::env::temp_dir().join("gemello-whole"));
    fs::create_dir_all(&cache).expect("a folder");
    cache
}

fn run(cache: &Path, words: &[&str]) -> Output {
    let began = Instant::now();
    let mut command = Command::new(gemello());
    let output = command.args(words).env("XDG_CACHE_HOME", cache).output().expect("started");
    eprintln!("{:.1} s: {}", began.elapsed().as_secs_f64(), words.join(" "));
    output
}

/// What a command that succeeds has said.
fn said(cache: &Path, words: &[&str]) -> String {
    let output = run(cache, words);
    assert_eq!(code(&output), 0, "{words:?}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// The root of the only system.
fn root(cache: &Path) -> PathBuf {
    let folders = fs::read_dir(cache.join("gemello/images")).expect("there");
    let mut roots = folders.map(|entry| entry.expect("it").path().join("root.ext4"));
    roots.find(|path| path.exists()).expect("a root")
}

fn digest(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum");
    text(&output.stdout)
}

#[test]
#[ignore = "minutes, and the network"]
fn a_system_is_made_and_machines_go_on_with_it_by_hand() {
    let release = std::env::var("GEMELLO_RELEASE").unwrap_or_else(|_| "trixie".into());
    let cache = cache();
    let release = ["--release", release.as_str()];
    said(&cache, &["fetch", "debian", release[0], release[1]]);
    let root = root(&cache);
    let before = digest(&root);
    let mut fsck = Command::new("/usr/sbin/e2fsck");
    succeeds(fsck.args(["-f", "-n"]).arg(&root));
    let in_it = |options: &[&str], script: &str| {
        let words = ["run", "debian", release[0], release[1]];
        said(&cache, &[&words, options, &["--", "sh", "-c", script]].concat())
    };
    assert_eq!(
        in_it(&["--rm"], "dpkg --audit; dpkg --verify; cat /etc/debian_version | wc -l"),
        "1"
    );
    let modules = "modprobe loop && test -d /sys/module/loop && echo there";
    assert_eq!(in_it(&["--rm"], modules), "there");
    let running = "systemctl is-system-running --wait";
    assert_eq!(in_it(&["--rm", "--system"], running), "running");
    // A command has no init; packages start no services then, and their scripts are content.
    assert_eq!(in_it(&["--rm"], "systemctl is-system-running || true"), "offline");
    let service = "apt-get update -qq && apt-get install -y -qq cron >&2 && ! pgrep -x cron";
    in_it(&["--name", "served"], service);
    assert_eq!(in_it(&["--name", "served", "--system"], "systemctl is-active cron"), "active");
    // What is written is kept under the name, and only there.
    in_it(&["--name", "kept"], "echo mine > /root/file");
    assert_eq!(in_it(&["--name", "kept"], "cat /root/file"), "mine");
    assert_eq!(in_it(&["--rm"], "ls /root"), "");
    let install = "apt-get update -qq && apt-get install -y -qq hello >&2 && hello";
    assert_eq!(in_it(&["--name", "kept"], install), "Hello, world!");
    let machines: Vec<_> = (0..4)
        .map(|n| {
            let mut command = Command::new(gemello());
            command.args(["run", "debian", release[0], release[1], "--rm", "--", "sh", "-c"]);
            command.arg(format!("echo {n} > /root/n; sync; cat /root/n"));
            command.env("XDG_CACHE_HOME", &cache).stdout(std::process::Stdio::piped());
            command.spawn().expect("started")
        })
        .collect();
    for (machine, n) in machines.into_iter().zip(0..) {
        let output = machine.wait_with_output().expect("it ends");
        assert_eq!(text(&output.stdout).trim(), n.to_string());
    }
    assert_eq!(digest(&root), before, "a machine has written to its base");
    said(&cache, &["rm", "kept", "served"]);
    said(&cache, &["prune"]);
    assert!(!root.exists());
    assert_eq!(code(&run(&cache, &["rm", "kept"])), 2);
}
