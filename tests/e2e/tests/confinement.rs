//! What a running gemello could still do to the host: as little as its user, and its core dumps
//! hold no guest memory.

use e2e::{Session, code, command, debian, idle, run, scratch, text};
use rustix::process::getuid;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);
const BOOT: Duration = Duration::from_secs(60);
/// Nobody, whom root needs a capability to override.
const NOBODY: u32 = 65534;

/// The lines of each thread's status that tell its privileges, once `threads` of them run.
fn privileges(session: &Session, threads: usize) -> Vec<(String, String)> {
    let tasks = PathBuf::from(format!("/proc/{}/task", session.pid().as_raw_pid()));
    let deadline = Instant::now() + SOON;
    loop {
        let entries = fs::read_dir(&tasks).expect("it runs").flatten();
        let all: Vec<_> =
            entries.flat_map(|task| fs::read_to_string(task.path().join("status"))).collect();
        if all.len() >= threads && all.iter().any(|status| status.contains("processor")) {
            let lines = all.iter().flat_map(|status| {
                let name = status.lines().next().unwrap_or_default();
                status.lines().map(move |line| (name.to_owned(), line.to_owned()))
            });
            return lines.collect();
        }
        assert!(Instant::now() < deadline, "{} threads", all.len());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn check(session: &Session, threads: usize) {
    let root = getuid().is_root();
    // A user's bounding set is what it was: without a way to gain, it means nothing.
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "CapBnd:"];
    let sets = &sets[..if root { 5 } else { 4 }];
    let mut seen = 0;
    for (thread, line) in privileges(session, threads) {
        let (name, value) = line.split_once('\t').unwrap_or((&line, ""));
        if sets.contains(&name) {
            assert_eq!(value, "0000000000000000", "{thread}: {line}");
            seen += 1;
        }
        if name == "NoNewPrivs:" {
            assert_eq!(value, "1", "{thread}");
            seen += 1;
        }
    }
    assert!(seen >= threads * (sets.len() + 1), "{seen} lines of {threads} threads");
}

#[test]
fn no_thread_has_a_privilege() {
    let guest = scratch("confined.elf", &idle());
    let disk = scratch("confined.img", &[0; 4096]);
    let disk = disk.to_str().expect("text");
    let arguments = ["run", guest.to_str().expect("text"), "--disk", disk, "--timeout", "60"];
    let session = Session::start(command(&arguments));
    // main, signals, I/O, processor, a disk, two lines
    check(&session, 7);
}

#[test]
fn a_restored_machine_has_none_either() {
    let _turn = debian("cloud");
    let file = scratch("confined.gm", b"");
    fs::remove_file(&file).expect("it was just made");
    let file = file.to_str().expect("text");
    let mut session = Session::start(command(&["run", "busybox", "--save", file]));
    session.expect("# ", BOOT);
    check(&session, 6);
    session.signal(rustix::process::Signal::USR1);
    let deadline = Instant::now() + SOON;
    while !fs::exists(file).expect("a directory") {
        assert!(Instant::now() < deadline, "it is not saved");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(session);
    check(&Session::start(command(&["restore", file, "--timeout", "60"])), 6);
    fs::remove_file(file).expect("it is there");
}

/// Files that only a privilege opens are open before it is given up; a place that only a privilege
/// writes to later is refused at once.
#[test]
fn roots_files_are_opened_first() {
    if !getuid().is_root() {
        return; // nothing is given up
    }
    let theirs = |name: &str, content: &[u8]| {
        let path = scratch(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mine");
        chown(&path, Some(NOBODY), Some(NOBODY)).expect("root");
        path.to_str().expect("text").to_owned()
    };
    let (guest, disk) = (theirs("their.elf", &idle()), theirs("their.img", &[0; 4096]));
    let log = theirs("their.log", b"");
    let arguments = ["run", &guest, "--disk", &disk, "--log", &log, "--timeout", "500ms"];
    let output = run(&arguments);
    assert_eq!(code(&output), 124, "{}", text(&output.stderr));

    let place = scratch("x", b"").with_file_name("their directory");
    fs::create_dir_all(&place).expect("a directory");
    chown(&place, Some(NOBODY), Some(NOBODY)).expect("root");
    let save = place.join("a.gm");
    let output = run(&[&arguments[..], &["--save", save.to_str().expect("text")]].concat());
    let message = text(&output.stderr);
    assert_eq!(code(&output), 2, "{message}");
    assert!(message.contains("cannot write in") && message.contains("root"), "{message}");
}

#[test]
fn guest_memory_is_not_dumped() {
    let guest = scratch("undumped.elf", &idle());
    let arguments = ["run", guest.to_str().expect("text"), "--memory", "77M", "--timeout", "60"];
    let session = Session::start(command(&arguments));
    privileges(&session, 6);
    let maps = fs::read_to_string(format!("/proc/{}/smaps", session.pid().as_raw_pid()));
    let maps = maps.expect("it runs");
    // From 1 MiB on, and what lies before it if the host has put that next to it.
    let memory = (77 - 1) << 10..=77 << 10;
    let mut ours = false;
    let mut found = 0;
    for line in maps.lines() {
        match line.split_once(':') {
            Some(("Size", value)) => {
                let size = value.trim().trim_end_matches(" kB").parse();
                ours = size.is_ok_and(|size: u64| memory.contains(&size));
            }
            Some(("VmFlags", flags)) if ours => {
                assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
                found += 1;
            }
            _ => {}
        }
    }
    assert_eq!(found, 1, "{maps}");
}
