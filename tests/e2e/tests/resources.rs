//! A host that gives little: address space, files, sizes, places. What cannot be done is told in a
//! line with a status of its own; nothing is ever ended by a signal.

use e2e::{Session, code, command, debian_alone, gemello, idle, run, scratch, text};
use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// Runs gemello with `arguments` under `limit`, as prlimit(1) takes it.
fn limited(limit: &str, arguments: &[&str]) -> Output {
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(limit).arg(gemello()).args(arguments).stdin(Stdio::null());
    prlimit.output().expect("prlimit")
}

/// `output`'s message, which is one line if it tells a failure.
fn told(limit: &str, arguments: &[&str], output: &Output) -> String {
    let message = text(&output.stderr);
    let status = output.status.code();
    let context = format!("{limit} {arguments:?}: {:?}: {message}", output.status);
    match status {
        Some(0) => {}
        // The loader did not come as far as the program.
        Some(127) if message.contains("shared libraries") => {}
        Some(1 | 2) => {
            let lines: Vec<_> = message.lines().collect();
            assert!(matches!(lines[..], [line] if line.starts_with("gemello: ")), "{context}");
        }
        _ => panic!("{context}"),
    }
    message
}

#[test]
fn little_address_space_is_told() {
    let saved = a_saved_machine("little");
    let commands: [&[&str]; 4] = [
        &["run", "--nucleus", "demo", "--timeout", "5m"],
        &["restore", &saved, "--timeout", "200ms"],
        &["doctor"],
        &["bench", "--list"],
    ];
    let mut refused = 0;
    for arguments in commands {
        // Less than the program takes is the kernel's to tell.
        for mib in (16..40).step_by(4).chain((40..300).step_by(20)) {
            let limit = format!("--as={}", mib * MIB);
            let output = limited(&limit, arguments);
            if output.status.code() != Some(124) {
                let message = told(&limit, arguments, &output);
                refused += usize::from(message.contains("ulimit -v"));
            }
        }
        let output = limited(&format!("--as={}", 1024 * MIB), arguments);
        assert!([0, 124].contains(&code(&output)), "{arguments:?}: {}", text(&output.stderr));
    }
    assert!(refused > 10, "{refused}: the limits are too generous to test anything");
}

#[test]
fn little_address_space_is_told_by_debian() {
    let _turn = debian_alone("cloud");
    let arguments = ["run", "busybox", "--memory", "128M", "--timeout", "5m", "--", "true"];
    for mib in [40, 100, 160, 220, 280, 340, 400, 460] {
        let limit = format!("--as={}", mib * MIB);
        told(&limit, &arguments, &limited(&limit, &arguments));
    }
    assert_eq!(code(&limited(&format!("--as={}", 1024 * MIB), &arguments)), 0);
}

/// A machine of a few bytes.
fn a_saved_machine(name: &str) -> String {
    let guest = scratch(&format!("{name}.elf"), &idle());
    let file = scratch(&format!("{name}.gm"), b"");
    fs::remove_file(&file).expect("it was just made");
    let file = file.to_str().expect("text").to_owned();
    let guest = guest.to_str().expect("text");
    let arguments = ["run", guest, "--memory", "32M", "--save", &file, "--timeout", "60"];
    let session = Session::start(command(&arguments));
    let deadline = Instant::now() + SOON;
    while !fs::exists(&file).expect("a directory") {
        assert!(Instant::now() < deadline, "it is not saved");
        // Before it runs, nothing is listening for signals.
        std::thread::sleep(Duration::from_millis(300));
        session.signal(rustix::process::Signal::USR1);
    }
    file
}

#[test]
fn few_descriptors_are_told() {
    let arguments = ["run", "--nucleus", "demo", "--timeout", "5m"];
    for files in 4..=8 {
        let limit = format!("--nofile={files}");
        let output = limited(&limit, &arguments);
        let message = told(&limit, &arguments, &output);
        assert!(code(&output) == 0 || message.contains("ulimit -n"), "{files}: {message}");
    }
    assert_eq!(code(&limited("--nofile=12", &arguments)), 0);
}

/// The host sends SIGXFSZ to whoever writes beyond the limit.
#[test]
fn a_limit_of_file_sizes_is_told() {
    let nucleus = ["run", "--nucleus", "demo", "--timeout", "5m"];
    let output = limited("--fsize=4096", &nucleus);
    let message = told("--fsize=4096", &nucleus, &output);
    assert_eq!(code(&output), 2, "{message}");
    assert!(message.contains("64 MiB") && message.contains("ulimit -f"), "{message}");

    // mov al, 'x'; mov dx, 2f8h; mov ecx, 10000; 1: out dx, al; loop 1b; mov al, 6; mov dx, 0cf9h;
    // out dx, al; 2: hlt; jmp 2b
    let chatty = e2e::kernel(&[
        0xB0, b'x', 0x66, 0xBA, 0xF8, 0x02, 0xB9, 0x10, 0x27, 0, 0, 0xEE, 0xE2, 0xFD, 0xB0, 6,
        0x66, 0xBA, 0xF9, 0x0C, 0xEE, 0xF4, 0xEB, 0xFD,
    ]);
    let (guest, file) = (scratch("chatty-files.elf", &chatty), scratch("limited", b""));
    let (guest, file) = (guest.to_str().expect("text"), file.to_str().expect("text"));
    for output in [&["--log", file][..], &["--trace", "ports", "--trace-file", file]] {
        let arguments = [&["run", guest, "--timeout", "60"][..], output].concat();
        let output = limited("--fsize=4096", &arguments);
        let message = told("--fsize=4096", &arguments, &output);
        assert_eq!(code(&output), 1, "{message}");
        assert!(message.contains("File too large"), "{message}");
        assert_eq!(fs::metadata(file).expect("there").len(), 4096);
    }
    // Standard output as a file.
    let script = "exec \"$0\" doctor > \"$1\"";
    let mut shell = Command::new("prlimit");
    shell.args(["--fsize=100", "sh", "-c", script]).arg(gemello()).arg(file);
    let output = shell.output().expect("prlimit");
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("File too large"), "{}", text(&output.stderr));
}

#[test]
fn a_save_that_is_too_large_is_told_and_the_machine_goes_on() {
    let saved = a_saved_machine("large");
    let size = fs::metadata(&saved).expect("there").len();
    let again = format!("{saved}.again");
    let arguments = ["restore", &saved, "--save", &again, "--timeout", "4"];
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(format!("--fsize={}", size / 2)).arg(gemello()).args(arguments);
    let child = prlimit.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("prlimit");
    std::thread::sleep(Duration::from_secs(2));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("it runs");
    let output = child.wait_with_output().expect("a child");
    let message = text(&output.stderr);
    assert_eq!(code(&output), 124, "{message}");
    assert!(message.contains("File too large") && message.contains("goes on"), "{message}");
    assert!(!fs::exists(&again).expect("a directory"));
}

#[test]
fn no_place_for_temporary_files_is_no_obstacle() {
    let mut nucleus = command(&["run", "--nucleus", "demo", "--timeout", "5m"]);
    let output = nucleus.env("TMPDIR", "/nonexistent").output().expect("gemello starts");
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
}

#[test]
fn no_place_for_fetched_files_is_told() {
    let homes: [(Option<&str>, &str); 5] = [
        (None, "set one of them"),
        (Some(""), "set one of them"),
        (Some("relative"), "set one of them"),
        (Some("/proc"), "set XDG_CACHE_HOME"),
        (Some("/dev/null"), "set XDG_CACHE_HOME"),
    ];
    for (home, advice) in homes {
        for arguments in [&["fetch", "busybox"][..], &["run", "busybox", "--", "true"]] {
            let mut command = command(arguments);
            command.env_remove("HOME").env_remove("XDG_CACHE_HOME");
            home.map(|home| command.env("HOME", home));
            let output = command.output().expect("gemello starts");
            let message = text(&output.stderr);
            assert_eq!(code(&output), 2, "{home:?}: {message}");
            assert!(message.contains(advice), "{home:?}: {message}");
            assert_eq!(message.lines().count(), 1, "{home:?}: {message}");
        }
        let mut doctor = command(&["doctor"]);
        doctor.env_remove("HOME").env_remove("XDG_CACHE_HOME");
        home.map(|home| doctor.env("HOME", home));
        assert_eq!(code(&doctor.output().expect("gemello starts")), 0);
    }
}

#[test]
fn closed_and_full_ends_change_the_status_only_where_output_is_lost() {
    let guest = scratch("prints.elf", &e2e::prints(b"text", e2e::RESET));
    let run_it = format!("run {} --timeout 60", guest.display());
    let commands = [
        (&*run_it, 0),
        ("doctor", 0),
        ("bench --list", 0),
        ("--help", 0),
        ("run --help", 0),
        ("--version", 0),
        ("restore /nonexistent", 2),
        ("run /nonexistent", 2),
        ("nonsense", 2),
    ];
    let ends = [
        ("<&-", false),
        (">&-", false),
        ("2>&-", false),
        ("<&- >&- 2>&-", false),
        ("</", false),
        ("2>/dev/full", false),
        (">/dev/full", true),
        (">/dev/full 2>&1", true),
    ];
    for (arguments, status) in commands {
        for (redirection, loses) in ends {
            let mut shell = Command::new("bash");
            let script = format!("\"$0\" {arguments} {redirection}");
            let output = shell.args(["-c", &script]).arg(gemello()).output().expect("a shell");
            let expected = if loses && status == 0 { 1 } else { status };
            assert_eq!(code(&output), expected, "{script}: {}", text(&output.stderr));
        }
    }
    assert_eq!(code(&run(&["doctor"])), 0);
}
