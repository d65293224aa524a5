//! Machines that go on without the program that has started them.

use e2e::{HALT, House, LONG, code, debian, prints, text, until};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// What a panic of Linux says, as far as gemello looks.
const PANIC: &[u8] = b"Kernel panic - not syncing: test\r\n\
    ---[ end Kernel panic - not syncing: test ]---\r\n";

/// Runs a machine in the background, and gives its process.
fn detach(house: &House, name: &str, arguments: &[&str]) -> String {
    let words = [&["run", "--detach", "--name", name], arguments].concat();
    assert_eq!(house.told(&words), format!("{name}\n"));
    let listed = house.told(&["ps"]);
    let line = listed.lines().find(|line| line.starts_with(&format!("{name} "))).expect("it runs");
    line.split_whitespace().nth(1).expect("a process").to_owned()
}

#[test]
fn a_machine_goes_on_in_the_background() {
    let house = House::new("detached");
    let pid = detach(&house, "away", &["--nucleus"]);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let session = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(3));
    assert_eq!(session, Some(&*pid), "a session of its own");
    let mut console = house.console("away");
    console.expect("nucleus> ", LONG);
    console.send("run hello me\n");
    console.expect("hello from process 1: me", LONG);
    assert!(house.told(&["logs", "away"]).contains("hello from process 1: me"));
    let mut follows = e2e::Session::start(house.command(&["logs", "--follow", "away"]));
    follows.expect("hello from process 1: me", LONG);
    console.send("run hello you\n");
    follows.expect("hello from process 2: you", LONG);
    house.told(&["stop", "away"]);
    assert_eq!(follows.finish(LONG).0, 0);
    let left = house.told(&["logs", "away"]);
    assert!(left.contains("hello from process 2: you"), "{left}");
    // The name's next machine has a log of its own.
    let disk = house.file("disk.img", &"\0".repeat(1 << 20));
    detach(&house, "away", &["--nucleus", "--disk", &disk]);
    assert!(!house.told(&["logs", "away"]).contains("hello"));
    house.told(&["stop", "--force", "away"]);
    // What it held is free at once.
    house.told(&["disk", "resize", &disk, "2M"]);
}

#[test]
fn why_one_has_ended_is_kept() {
    let house = House::new("why");
    let kernel = house.runtime.join("panics");
    fs::write(&kernel, prints(PANIC, HALT)).expect("a file");
    let kernel = kernel.to_str().expect("text");
    let words = ["run", kernel, "-d", "--name", "why"];
    // It ends while it is asked: in each moment there is an answer.
    for _ in 0..4 {
        assert_eq!(house.told(&words), "why\n");
        let told = until("the end", || {
            Some(house.told(&["logs", "why"])).filter(|told| told.contains("kernel panicked"))
        });
        assert!(told.contains("not syncing: test"), "{told}");
    }
    let gone = house.run(&["logs", "--follow", "nobody"]);
    assert_eq!(code(&gone), 2);
    assert!(text(&gone.stderr).contains("no machine called nobody"));
}

#[test]
fn what_cannot_run_is_told_at_once() {
    let house = House::new("cannot");
    for (words, why) in [
        (&["run", "-d", "/nowhere/kernel"][..], "/nowhere/kernel"),
        (&["run", "-d", "--nucleus", "--console", "terminal"], "has no terminal"),
        (&["run", "-d", "--nucleus", "--vcpus", "900"], "--vcpus"),
    ] {
        let output = house.run(words);
        assert_eq!((code(&output), &*output.stdout), (2, &b""[..]), "{words:?}");
        assert!(text(&output.stderr).contains(why), "{words:?}: {}", text(&output.stderr));
    }
    assert!(house.names().is_empty());
    // A socket's path has 107 bytes at the most.
    let name = "n".repeat(64);
    let long = house.runtime.join("r".repeat(60));
    fs::create_dir(&long).expect("a folder");
    fs::set_permissions(&long, fs::Permissions::from_mode(0o700)).expect("mine");
    let mut run = house.command(&["run", "-d", "--nucleus", "--name", &name]);
    let output = run.env("XDG_RUNTIME_DIR", &long).output().expect("gemello starts");
    let told = text(&output.stderr);
    assert_eq!(code(&output), 2, "{told}");
    assert!(told.contains("path must be shorter") && told.contains("short name"), "{told}");
}

#[test]
fn a_commands_streams_are_its_log() {
    let _turn = debian("cloud");
    let house = House::new("streams");
    let script = "echo said; echo wrong >&2; cat; exec sleep 1000";
    detach(&house, "job", &["busybox", "--", "sh", "-c", script]);
    let told = until("both streams", || {
        Some(house.told(&["logs", "job"])).filter(|told| told.matches('\n').count() == 2)
    });
    assert!(told.contains("said\n") && told.contains("wrong\n"), "{told}");
    house.told(&["stop", "--force", "job"]);
    assert!(house.told(&["logs", "job"]).contains("said\n"));
}
