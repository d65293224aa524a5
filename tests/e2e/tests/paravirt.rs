//! KVM's interface as Debian uses it.

use e2e::{Session, code, command, debian, run, scratch, text};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const BOOT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
const AWAY: Duration = Duration::from_secs(25);

/// The kernel's messages of a whole boot on processor `cpu`, and its clocksource.
fn messages(cpu: &str) -> String {
    let script =
        "dmesg; echo; cat /sys/devices/system/clocksource/clocksource0/current_clocksource";
    let output =
        run(&["run", "busybox", "--cpu", cpu, "--timeout", "60", "--", "sh", "-c", script]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn debian_takes_the_clock() {
    let _turn = debian("cloud");
    let messages = messages("gemello-v2");
    assert!(messages.contains("Hypervisor detected: KVM"), "{messages}");
    assert!(messages.contains("kvm-clock: Using msrs 4b564d01 and 4b564d00"), "{messages}");
    // The TSC is invariant, and Linux prefers it to the clock then.
    assert!(messages.trim_end().ends_with("\ntsc"), "{messages}");
    for wrong in ["unstable", "TSC warp", "WARNING", "Oops"] {
        assert!(!messages.contains(wrong), "{wrong}: {messages}");
    }
}

#[test]
fn debian_does_without_it() {
    let _turn = debian("cloud");
    let messages = messages("gemello-v2,-kvm");
    assert!(!messages.to_lowercase().contains("kvm"), "{messages}");
    assert!(messages.trim_end().ends_with("\ntsc"), "{messages}");
}

#[test]
fn debian_takes_what_helps_processors_that_share_a_thread() {
    let _turn = debian("cloud");
    let script = "dmesg; for n in 1 2 3 4; do (while :; do :; done) & all=\"$all $!\"; done; \
                  sleep 1; kill -9 $all; head -1 /proc/stat";
    let arguments = ["run", "busybox", "--vcpus", "4", "--pcpus", "1", "--timeout", "60", "--"];
    let output = run(&[&arguments[..], &["sh", "-c", script]].concat());
    let said = text(&output.stdout);
    for line in [
        "PV spinlocks enabled",
        "KVM setup pv remote TLB flush",
        "setup PV sched yield",
        "setup PV IPIs",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    // cpu, user, nice, system, idle, iowait, irq, softirq, steal: hundredths of a second.
    let times: Vec<_> = said.lines().last().expect("a line").split_whitespace().collect();
    let steal: u64 = times[8].parse().expect("a number");
    assert!(steal > 50, "four processors on one thread for a second: {times:?}");
}

/// What a kernel says of so many stops of 10 s each, whose watchdog allows 4 s. `busy` of its two
/// processors are busy.
fn stopped(busy: usize, times: usize) -> String {
    let _turn = debian("cloud");
    let mut session = Session::start(command(&["run", "busybox", "--vcpus", "2"]));
    session.expect("# ", BOOT);
    session.send("echo 2 > /proc/sys/kernel/watchdog_thresh; echo th\"at\" is set\n");
    session.expect("that is set", SOON);
    let loops = "(while :; do :; done) & ".repeat(busy);
    session.send(&format!("{loops}sleep 3; echo b\"e\"fore\n"));
    session.expect("before", SOON);
    for time in 0..times as u64 {
        session.signal(Signal::STOP);
        std::thread::sleep(Duration::from_secs(10));
        session.signal(Signal::CONT);
        // Each time somewhere else within a tick of the guest's.
        std::thread::sleep(Duration::from_micros(1_000_000 + 137 * time));
    }
    session.send("sleep 6; dmesg | grep -iE 'stall|lockup|unstable|hung'; echo a\"f\"ter\n");
    let (seen, _) = session.expect("\nafter", SOON);
    seen.lines().filter(|line| line.starts_with('[')).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_guest_whose_process_was_stopped_reports_no_lockup() {
    assert_eq!(stopped(1, 1), "");
}

/// Wherever in the kernel it is stopped, its timer's handler included, which looks at the clock
/// before another interrupt could tell it anything.
#[test]
#[ignore = "STOPS=60: eleven minutes"]
fn a_guest_that_is_stopped_again_and_again_reports_none_by_hand() {
    let stops = test_support::setting("STOPS").unwrap_or(60);
    assert_eq!(stopped(2, stops as usize), "");
}

/// Longer than the kernel lets a processor be away (20 s by default, cut to 4 s here).
#[test]
fn a_guest_that_was_away_reports_no_stall() {
    let _turn = debian("cloud");
    let path = scratch("away.gm", b"");
    std::fs::remove_file(&path).expect("it was just made");
    let file = path.to_str().expect("text");
    let mut session = Session::start(command(&["run", "busybox", "--save", file]));
    session.expect("# ", BOOT);
    session.send("echo 2 > /proc/sys/kernel/watchdog_thresh; echo th\"at\" is set\n");
    session.expect("that is set", SOON);
    session.send("cut -d. -f1 /proc/uptime; echo b\"e\"fore\n");
    session.expect("before", SOON);
    session.signal(Signal::USR1);
    let deadline = Instant::now() + SOON;
    while !path.exists() {
        assert!(Instant::now() < deadline, "it is not saved");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(session);
    std::thread::sleep(AWAY);

    let mut session = Session::start(command(&["restore", file, "--timeout", "60"]));
    session.send("sleep 6; dmesg | grep -ciE 'stall|lockup|unstable|hung'; echo a\"f\"ter\n");
    let (seen, _) = session.expect("after", SOON);
    assert!(seen.lines().any(|line| line.trim() == "0"), "{seen}");
    session.send("poweroff\n");
    assert_eq!(session.finish(SOON).0, 0);
    std::fs::remove_file(&path).expect("it is there");
}
