//! Debian is the same each time in a deterministic machine, to the last bit, whatever the host does
//! meanwhile.

use e2e::{code, command, debian, scratch, text};
use std::fs::File;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

/// What would differ: dates, times, random numbers, interrupts, where things lie in memory; a disk,
/// and input.
const SCRIPT: &str = "date +%s.%N; cat /proc/uptime /proc/interrupts /proc/self/maps; \
    head -c 1048576 /dev/urandom | sha256sum; \
    dd if=/dev/vda bs=64k 2>/dev/null | sha256sum; cat | sha256sum; sleep 1; nproc";

/// What a run said, and its digest.
type Said = (String, String);

/// Runs the script with `input`, and `more` options.
fn said(input: &str, more: &[&str]) -> Said {
    let content: Vec<u8> = (0..1 << 20_u32).map(|n| (n >> 7) as u8).collect();
    let disk = scratch("deterministic.img", &content);
    let disk = format!("{},ro,format=raw", disk.to_str().expect("text"));
    let input = scratch("deterministic-input", input.as_bytes());
    let words =
        ["run", "busybox", "--deterministic", "--digest", "--disk", &disk, "--timeout", "5m"];
    let mut gemello = command(&words);
    gemello.args(more).args(["--", "sh", "-c", SCRIPT]);
    gemello.stdin(Stdio::from(File::open(input).expect("it was written")));
    let output = gemello.output().expect("gemello starts");
    let errors = text(&output.stderr);
    assert_eq!(code(&output), 0, "{errors}");
    let digest = errors.lines().find(|line| line.starts_with("gemello: digest: "));
    (text(&output.stdout), digest.expect("it was asked for").to_owned())
}

/// Does `work` while the host's processors are busy.
fn under_load<T>(work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn debian_is_the_same_each_time_on_each_tier() {
    let _turn = debian("cloud");
    let first = said("some input\n", &[]);
    assert!(first.0.ends_with("\n1\n"), "{}", first.0);
    assert_eq!(under_load(|| said("some input\n", &[])), first);
    assert_eq!(said("some input\n", &["--tier", "interp"]), first);
    let other = said("other input\n", &[]);
    assert_ne!(other.1, first.1);
}

#[test]
fn debian_on_two_processors_is_the_same_each_time() {
    let _turn = debian("cloud");
    let first = said("", &["--vcpus", "2"]);
    assert!(first.0.ends_with("\n2\n"), "{}", first.0);
    assert_eq!(under_load(|| said("", &["--vcpus", "2"])), first);
}
