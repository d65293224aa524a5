//! The nucleus from the command line. What it does inside is tested in crates/nucleus-image.

use e2e::{Session, code, command, run, text};
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn a_word_less_gemello_boots_it_to_its_shell() {
    let mut child =
        command(&[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gemello starts");
    child.stdin.take().expect("piped").write_all(b"swap\npoweroff\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(code(&output), 0);
    let said = text(&output.stdout);
    assert!(said.contains("nucleus: ready after"), "{said}");
    assert!(said.contains("swap disk: virtio-blk"), "it has a disk to page to: {said}");
    assert!(said.contains("nucleus>"), "{said}");
}

#[test]
fn its_tour_runs_through_and_leaves_no_file_behind() {
    let place = std::env::temp_dir().join(format!("gemello-nucleus-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a scratch directory");
    let output = command(&["run", "--nucleus", "demo", "--timeout", "5m"])
        .env("TMPDIR", &place)
        .output()
        .expect("gemello starts");
    let said = text(&output.stdout);
    assert_eq!(code(&output), 0, "{said}");
    assert!(said.contains("That was the tour."), "{said}");
    let left = std::fs::read_dir(&place).expect("still there").count();
    assert_eq!(left, 0, "the swap disk is gone");
    std::fs::remove_dir_all(&place).expect("empty");
}

/// Most of it is the program's own file and libc; the guest's memory counts, too.
#[test]
fn it_stays_small() {
    const MOST: u64 = 12 << 20;
    let mut session = Session::start(command(&["run", "--nucleus"]));
    session.expect("nucleus>", Duration::from_secs(60));
    let pid = session.pid().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    let kib = peak.trim().strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok());
    let bytes = kib.expect("KiB (proc_pid_status(5))") << 10;
    assert!(bytes < MOST, "{bytes} bytes resident:\n{status}");
    session.send("poweroff\n");
    assert_eq!(session.finish(Duration::from_secs(60)).0, 0);
}

#[test]
fn it_takes_no_other_image() {
    let output = run(&["run", "--nucleus", "demo", "--kernel", "vmlinuz"]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("--kernel"), "{}", text(&output.stderr));
}
