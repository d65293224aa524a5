//! Saved machines: a Debian in the middle of a shell loop goes on in another process.

use e2e::{Ends, Session, code, command, debian, run, scratch, text};
use rustix::process::Signal;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const BOOT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

/// A name in the scratch directory with nothing there.
fn fresh(name: &str) -> String {
    let path = scratch(name, b"");
    std::fs::remove_file(&path).expect("it was just made");
    path.to_str().expect("text").to_owned()
}

/// Has the machine of `session` saved to `file`, where there is nothing.
fn save(session: &Session, file: &str) {
    session.signal(Signal::USR1);
    let deadline = std::time::Instant::now() + SOON;
    while !std::path::Path::new(file).exists() {
        assert!(std::time::Instant::now() < deadline, "it is not saved");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_shell_loop_goes_on_in_another_process_and_on_another_tier() {
    let _turn = debian("cloud");
    let file = fresh("loop.gm");
    let (mut session, _terminal) =
        Session::on_terminal(&command(&["run", "busybox", "--save", &file]), &Ends::default());
    session.expect("# ", BOOT);
    // The sum tells whether anything was done twice, or not at all.
    session.send(
        "n=0; s=0; while true; do n=$((n+1)); s=$((s+n)); echo at $n: $s; usleep 50000; done\r",
    );
    session.expect("at 5: 15", SOON);
    session.send("\x01s");
    session.expect("saved to", SOON);
    let (later, _) = session.expect("at 20: 210", SOON);
    drop(session); // killed

    for tier in ["interp", "translate"] {
        let restored = command(&["restore", &file, "--tier", tier, "--timeout", "60"]);
        let (mut session, _terminal) = Session::on_terminal(&restored, &Ends::default());
        let (first, _) = session.expect("\n", SOON);
        assert!(later.contains(first.trim()), "{first:?} does not follow on\n{later}");
        session.expect("at 30: 465", SOON);
        session.send("\x03");
        session.expect("# ", SOON);
        session.send("echo still $((6 * 7)); poweroff\r");
        session.expect("still 42", SOON);
        let (status, transcript) = session.finish(SOON);
        assert_eq!(status, 0, "{transcript}");
    }

    let whole = std::fs::read(&file).expect("what was saved");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("a file");
    let output = run(&["restore", &file]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("it ends too soon"), "{}", text(&output.stderr));
    std::fs::remove_file(&file).expect("it is there");
}

/// What `session` says the time is, in seconds since 1970, after `command`.
fn time_after(session: &mut Session, command: &str) -> u64 {
    session.send(&format!("{command}; echo \"t\"ime $(date +%s).\n"));
    session.expect("time ", SOON);
    let (text, _) = session.expect(".", SOON);
    text.trim_end_matches('.').parse().unwrap_or_else(|_| panic!("{text:?} is no time"))
}

fn host_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The guest's clock has stood still in the file; gemello's init sets it by the RTC.
#[test]
fn a_restored_guest_has_the_right_time() {
    let _turn = debian("cloud");
    let file = fresh("clock.gm");
    let mut session = Session::start(command(&["run", "busybox", "--save", &file]));
    session.expect("# ", BOOT);
    let before = time_after(&mut session, "true");
    assert!(before.abs_diff(host_time()) <= 2, "{before}");
    save(&session, &file);
    drop(session);
    std::thread::sleep(Duration::from_secs(8));

    let mut session = Session::start(command(&["restore", &file, "--timeout", "60"]));
    let right =
        "for n in $(seq 50); do usleep 100000; [ $(date +%s) -ge $((LATE)) ] && break; done";
    let right = right.replace("LATE", &(before + 7).to_string());
    let set = time_after(&mut session, &right);
    assert!(set.abs_diff(host_time()) <= 2, "{set}, and the host {}", host_time());
    session.send("poweroff\n");
    assert_eq!(session.finish(SOON).0, 0);
    std::fs::remove_file(&file).expect("it is there");
}

#[test]
fn a_disk_that_was_written_since_is_refused() {
    let _turn = debian("cloud");
    let (file, disk) = (fresh("disk.gm"), scratch("saved-disk.img", &[0; 1 << 20]));
    let disk = disk.to_str().expect("text");
    let mut session = Session::start(command(&["run", "busybox", "--disk", disk, "--save", &file]));
    session.expect("# ", BOOT);
    session.send("echo before > /dev/vda; sync; echo written $((6 * 7))\n");
    session.expect("written 42", SOON);
    save(&session, &file);
    drop(session);

    let mut session = Session::start(command(&["restore", &file, "--timeout", "60"]));
    session.send("\nhead -c 6 /dev/vda; echo after > /dev/vda; sync; poweroff\n");
    session.expect("before", SOON);
    assert_eq!(session.finish(SOON).0, 0);
    // Now it is another disk than the saved guest believes.
    let output = run(&["restore", &file, "--timeout", "60"]);
    assert_eq!(code(&output), 2, "{}", text(&output.stderr));
    let message = text(&output.stderr);
    assert!(message.contains("has been written since") && message.contains(disk), "{message}");
    std::fs::remove_file(&file).expect("it is there");
}

#[test]
fn what_cannot_be_saved_or_restored_is_told_at_once() {
    let ordinary = scratch("ordinary", b"an ordinary file, long enough for a header");
    let ordinary = ordinary.to_str().expect("text");
    for (arguments, why) in [
        (vec!["restore", ordinary], "no saved machine"),
        (vec!["restore", "/nowhere/at/all"], "cannot read /nowhere/at/all"),
        (vec!["restore", "/dev/null"], "no saved machine"),
        (vec!["run", "busybox", "--save", ordinary], "no saved machine"),
        (vec!["run", "busybox", "--save", "/dev/null"], "no saved machine"),
        (vec!["run", "busybox", "--save", ordinary, "--", "true"], "no saved machine"),
        (vec!["run", "--nucleus", "--save", ordinary], "no saved machine"),
    ] {
        let _turn = arguments.contains(&"busybox").then(|| debian("cloud"));
        let output = run(&arguments);
        let message = text(&output.stderr);
        assert_eq!(code(&output), 2, "{arguments:?}: {message}");
        assert!(message.contains(why), "{arguments:?}: {message}");
    }
}
