//! Hosts that deny what others give: a message that tells the true cause, never an abort.

use e2e::{code, gemello, text};
use std::process::{Command, Output, Stdio};

const MREMAP: &str = "25";
const MEMFD_CREATE: &str = "319";

fn denied(calls: &[&str], mdwe: &str) -> Output {
    let mut python = Command::new("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/host/deny.py"));
    python.args([&calls.join(","), mdwe]).arg(gemello());
    python.args(["run", "--nucleus", "demo", "--stats", "--timeout", "5m"]);
    python.stdin(Stdio::null()).output().expect("python3")
}

#[test]
fn without_memfd_create_code_is_still_mapped_twice() {
    for mdwe in ["", "mdwe"] {
        let output = denied(&[MEMFD_CREATE], mdwe);
        let message = text(&output.stderr);
        if code(&output) == 99 {
            return; // this host knows no such limits
        }
        // A mapping that is toggled would be denied with PR_SET_MDWE: this one is not.
        assert_eq!(code(&output), 0, "{mdwe}: {message}");
    }
}

#[test]
fn without_executable_memory_the_true_cause_is_told() {
    let output = denied(&[MEMFD_CREATE, MREMAP], "mdwe");
    let message = text(&output.stderr);
    if code(&output) == 99 {
        return;
    }
    assert_eq!(code(&output), 2, "{message}");
    assert!(message.contains("denies executable memory"), "{message}");
    assert!(!message.contains("--cpu"), "the processor is not to blame: {message}");
}

/// Where gemello has its threads, and the host's io_uring none for the nucleus's disk, that works
/// all the same.
#[test]
fn few_threads_are_told() {
    for limit in 1..=11 {
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--nproc={limit}"));
        // Who is root has no such limit.
        limited.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        limited.arg(gemello()).args(["run", "--nucleus", "demo", "--timeout", "5m"]);
        let output = limited.stdin(Stdio::null()).output().expect("prlimit");
        let message = text(&output.stderr);
        if message.contains("setpriv") {
            return; // not as root, or the program is out of that user's reach
        }
        assert!([0, 2].contains(&code(&output)), "{limit} threads: {message}");
        let defects = ["panicked", "disk"];
        assert!(!defects.iter().any(|d| message.contains(d)), "{limit} threads: {message}");
    }
}

/// In a mount namespace of its own, where this test may make one.
#[test]
fn doctor_knows_the_processor_without_proc() {
    let script = "mount --make-rprivate / && umount -l /proc && exec \"$0\" doctor";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script]).arg(gemello()).stdin(Stdio::null());
    let output = unshare.output().expect("unshare");
    let (told, message) = (text(&output.stdout), text(&output.stderr));
    if !output.status.success() && message.contains("not permitted") {
        assert!(std::env::var_os("CI").is_none(), "the host of CI lets root unmount: {message}");
        eprintln!("not tried: {message}");
        return;
    }
    let usual = text(&e2e::run(&["doctor"]).stdout);
    for what in ["processor ", "has ", "engines "] {
        let line = |text: &str| text.lines().find(|line| line.starts_with(what)).map(str::to_owned);
        assert!(line(&told).is_some_and(|l| l.len() > 20), "{told}{message}");
        assert_eq!(line(&told), line(&usual), "without /proc");
    }
}
