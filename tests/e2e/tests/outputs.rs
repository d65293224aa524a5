//! What a run reads stays as it is, whatever a run is told to write; and output that is lost is no
//! success.

use e2e::{Session, code, command, idle, kernel, run, scratch, text, writes_debug_exit};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

fn path(name: &str, content: &[u8]) -> String {
    scratch(name, content).to_str().expect("text").to_owned()
}

/// A directory of this test's own.
fn directory(name: &str) -> PathBuf {
    let place = scratch("x", b"").with_file_name(name);
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).expect("a scratch directory");
    place
}

/// A pipe with a name.
fn fifo(name: &str) -> String {
    let path = directory(name).join("pipe");
    let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo");
    assert!(made.success());
    path.to_str().expect("text").to_owned()
}

fn shell(script: &str) -> Output {
    let gemello = e2e::gemello().to_str().expect("text");
    Command::new("bash")
        .args(["-c", script])
        .env("G", gemello)
        .stdin(Stdio::null())
        .output()
        .expect("a shell")
}

fn refused(output: &Output, pieces: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(code(output), 2, "{message}");
    assert!(pieces.iter().all(|piece| message.contains(piece)), "no {pieces:?} in {message}");
}

#[test]
fn what_a_run_reads_is_never_written() {
    let place = directory("in-use");
    let file = |name: &str, content: &[u8]| {
        let path = place.join(name);
        fs::write(&path, content).expect("a scratch file");
        path.to_str().expect("text").to_owned()
    };
    let (kernel, module) = (file("kernel", &idle()), file("module", b"content"));
    let disk = file("disk", &[7; 4096]);
    let link = |name: &str, to: &str| {
        let path = place.join(name);
        std::os::unix::fs::symlink(to, &path).expect("a link");
        path.to_str().expect("text").to_owned()
    };
    let hard = place.join("hard");
    fs::hard_link(&disk, &hard).expect("a link");
    let hard = hard.to_str().expect("text").to_owned();
    let cases = [
        (kernel.clone(), "kernel"),
        (module.clone(), "module"),
        (disk.clone(), "disk"),
        (link("link", &kernel), "kernel"),
        (link("link-to-disk", &disk), "disk"),
        (hard, "disk"),
    ];
    for (target, role) in &cases {
        let inputs = ["run", &kernel, "--module", &module, "--disk", &disk, "--timeout", "1"];
        for output in [&["--log", target][..], &["--trace", "boot", "--trace-file", target]] {
            let piece = format!("it is the {role} of this run");
            refused(&run(&[&inputs[..], output].concat()), &[&piece, target]);
        }
    }
    let same = file("same", b"");
    let both = ["--log", &same, "--trace", "boot", "--trace-file", &same];
    refused(&run(&[&["run", &kernel][..], &both].concat()), &["the log of this run"]);
    assert_eq!(fs::read(&kernel).expect("there"), idle());
    assert_eq!(fs::read(&module).expect("there"), b"content");
    assert_eq!(fs::read(&disk).expect("there"), [7; 4096]);
}

/// Waits until somebody has locked `file`.
fn until_locked(file: &str) {
    let deadline = Instant::now() + SOON;
    let inode = format!(":{} ", fs::metadata(file).expect("there").ino());
    while !fs::read_to_string("/proc/locks").expect("Linux").contains(&inode) {
        assert!(Instant::now() < deadline, "{file} is never locked");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn another_machines_disk_is_never_written() {
    for read_only in ["", ",ro"] {
        let disk = path("running.img", &[7; 4096]);
        let guest = path("running.elf", &idle());
        let given = format!("{disk}{read_only}");
        let first = command(&["run", &guest, "--disk", &given, "--timeout", "30"]);
        let first = Session::start(first);
        until_locked(&disk);
        refused(&run(&["run", &guest, "--log", &disk]), &["another machine", &disk]);
        assert_eq!(fs::read(&disk).expect("there"), [7; 4096]);
        drop(first);
    }
}

/// And the other way round.
#[test]
fn another_machines_log_is_no_disk() {
    let (log, guest) = (path("running.log", b""), path("logs.elf", &idle()));
    let first = Session::start(command(&["run", &guest, "--log", &log, "--timeout", "30"]));
    until_locked(&log);
    let disk = format!("{log},format=raw");
    refused(&run(&["run", &guest, "--disk", &disk]), &["in use", &log]);
    drop(first);
}

#[test]
fn a_run_that_is_refused_leaves_old_logs_alone() {
    let (log, trace) = (path("old.log", b"old"), path("old.trace", b"old"));
    let outputs = ["--log", &log, "--trace", "boot", "--trace-file", &trace];
    let kernel = path("no-kernel", b"text");
    refused(&run(&[&["run", &kernel][..], &outputs].concat()), &[&kernel]);
    let guest = path("good.elf", &writes_debug_exit());
    refused(&run(&[&["run", &guest, "--disk", "/nonexistent"][..], &outputs].concat()), &[]);
    assert_eq!(
        (fs::read(&log).expect("log"), fs::read(&trace).expect("trace")),
        (b"old".into(), b"old".into())
    );
    let output = run(&[&["run", &guest, "--debug-exit"][..], &outputs].concat());
    assert_eq!(code(&output), 0x21);
    assert_eq!(fs::read(&log).expect("log"), b"");
    // What is traced before the file is opened is there too.
    assert!(fs::read_to_string(&trace).expect("trace").contains("boot: kernel"));
}

#[test]
fn a_file_that_never_ends_or_opens_is_refused_in_time() {
    let (guest, pipe) = (path("pipes.elf", &idle()), fifo("unread"));
    let read_only = format!("{pipe},ro");
    let cases: [(&[&str], &str); 9] = [
        (&["--kernel", &pipe], "nobody writes"),
        (&["--kernel", "/dev/zero"], "a device"),
        (&[&guest, "--module", &pipe], "nobody writes"),
        (&[&guest, "--module", "/dev/zero"], "a device"),
        (&[&guest, "--disk", &pipe], "a pipe"),
        (&[&guest, "--disk", &read_only], "a pipe"),
        (&[&guest, "--disk", "/dev/zero"], "a character device"),
        (&[&guest, "--log", &pipe], "nobody reads"),
        (&[&guest, "--log", "/tmp"], "a directory"),
    ];
    for (arguments, piece) in cases {
        let began = Instant::now();
        let output = run(&[&["run"][..], arguments, &["--timeout", "9"]].concat());
        refused(&output, &[piece]);
        assert!(began.elapsed() < Duration::from_secs(6), "{arguments:?}");
    }
}

#[test]
fn boot_files_come_through_pipes() {
    let guest = path("piped.elf", &writes_debug_exit());
    let output = shell(&format!("$G run <(cat {guest}) --module <(echo x) --debug-exit"));
    assert_eq!(code(&output), 0x21, "{}", text(&output.stderr));
    let began = Instant::now();
    let output = shell("$G run <(sleep 8 2>&-) --timeout 500ms");
    refused(&output, &["--timeout"]);
    assert!(began.elapsed() < Duration::from_secs(6));
    let output = shell(&format!("$G run {guest} --module <(yes) --memory 64M --timeout 60"));
    refused(&output, &["memory"]);
}

/// Writes 'x' to COM1 and COM2, then 10H to port F4H.
fn chatty() -> Vec<u8> {
    // mov al, 'x'; mov dx, 3f8h; out dx, al; mov dx, 2f8h; out dx, al; mov al, 10h; out 0f4h, al;
    // cli; 1: hlt; jmp 1b
    kernel(&[
        0xB0, b'x', 0x66, 0xBA, 0xF8, 0x03, 0xEE, 0x66, 0xBA, 0xF8, 0x02, 0xEE, 0xB0, 0x10, 0xE6,
        0xF4, 0xFA, 0xF4, 0xEB, 0xFD,
    ])
}

#[test]
fn a_full_disk_is_told_and_no_success() {
    let guest = path("chatty-once.elf", &chatty());
    let output = shell(&format!("$G run {guest} --debug-exit --timeout 5 > /dev/full"));
    let message = text(&output.stderr);
    assert!(message.contains("output: No space left"), "{message}");
    assert_eq!(code(&output), 1, "{message}");
    let output = shell("$G run --nucleus demo --timeout 5m > /dev/full");
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    for what in ["--log /dev/full", "--trace ports,console --trace-file /dev/full"] {
        // mov al, 'x'; mov dx, 2f8h; out dx, al; mov al, 6; mov dx, 0cf9h; out dx, al: a reset,
        // which is a success
        let reset = kernel(&[
            0xB0, b'x', 0x66, 0xBA, 0xF8, 0x02, 0xEE, 0xB0, 6, 0x66, 0xBA, 0xF9, 0x0C, 0xEE, 0xF4,
        ]);
        let guest = path("resets.elf", &reset);
        let output = shell(&format!("$G run {guest} --timeout 5 {what}"));
        let message = text(&output.stderr);
        assert_eq!(code(&output), 1, "{what}: {message}");
        assert!(message.contains("No space left"), "{what}: {message}");
        assert_eq!(code(&shell(&format!("$G run {guest} --timeout 5"))), 0);
    }
}

#[test]
fn output_that_cannot_be_written_never_aborts() {
    let cases = [
        ("$G doctor > /dev/full", 1),
        ("$G --help > /dev/full", 1),
        ("$G --version > /dev/full", 1),
        ("$G bench --list > /dev/full", 1),
        ("set -o pipefail; $G doctor | true; $G doctor | { exec <&-; sleep 0.5; }", 141),
        ("$G run /nonexistent 2> /dev/full", 2),
        ("$G nonsense 2> /dev/full", 2),
        ("$G run --nucleus demo --stats --trace ports 2> /dev/full > /dev/null", 0),
        ("$G run --nucleus demo <&- >&- 2>&-", 0),
        ("$G doctor <&- 2>&-", 0),
    ];
    for (script, expected) in cases {
        let output = shell(script);
        assert_eq!(code(&output), expected, "{script}: {}", text(&output.stderr));
    }
}

#[test]
fn a_reader_that_takes_nothing_holds_no_end_up() {
    // mov dx, 3f8h; mov al, 'x'; 1: out dx, al; jmp 1b
    let code_bytes = [0x66, 0xBA, 0xF8, 0x03, 0xB0, b'x', 0xEE, 0xEB, 0xFD];
    let guest = path("stuck.elf", &kernel(&code_bytes));
    let mut command = command(&["run", &guest, "--timeout", "2"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("gemello starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the time given with --timeout is long over");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.wait().expect("a child").code(), Some(124));
}
