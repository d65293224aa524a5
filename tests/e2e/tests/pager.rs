//! `--resident`: guests with more memory than they may take of the host's.
//!
//! `PAGER_MIB=1536 PAGER_RESIDENT=256 PAGER_SECONDS=60` makes the ignored test as large.

use e2e::{Ends, Session, code, command, debian, program_disk, run, scratch, text};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;
use test_support::setting;

/// Where swap files are: on a disk, other than the host's temporary folder may be.
const SWAP: &str = env!("CARGO_TARGET_TMPDIR");

/// Bytes of guest memory that the process `pid` has in the host's memory: what is mapped of files
/// without a name in the swap folder.
fn resident(pid: u32) -> Option<u64> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let (mut own, mut sum) = (false, 0);
    for line in smaps.lines() {
        let mut fields = line.split_whitespace();
        let first = fields.next()?;
        if first.contains('-') && !first.ends_with(':') {
            own = line.contains(SWAP) && line.ends_with("(deleted)");
        } else if own && first == "Rss:" {
            sum += fields.next()?.parse::<u64>().ok()? << 10;
        }
    }
    Some(sum)
}

/// Waits for `child`, and stops it for a moment at times. The most that [`resident`] said.
fn most_resident(child: &mut Child) -> u64 {
    let pid = Pid::from_child(child);
    let mut most = 0;
    for turn in 0_u64.. {
        if child.try_wait().expect("a child").is_some() {
            break;
        }
        most = most.max(resident(child.id()).unwrap_or(0));
        if turn % 20 == 19 {
            kill_process(pid, Signal::STOP).expect("it runs");
            thread::sleep(Duration::from_millis(200));
            kill_process(pid, Signal::CONT).expect("it is there");
        }
        thread::sleep(Duration::from_millis(100));
    }
    most
}

/// A Debian with `memory` MiB that fills `mib` of them and changes them for `seconds`, of which
/// `budget` MiB may be resident.
fn fill_and_check(memory: u64, mib: u64, budget: u64, seconds: u64) {
    let _turn = debian("cloud");
    let script =
        format!("cp /dev/vda /run/fill; chmod +x /run/fill; /run/fill {mib} {seconds} /dev/vda");
    let (memory, resident) = (format!("{memory}M"), format!("{budget}M"));
    let (disk, seconds) = (program_disk("fill"), format!("{}", 10 * seconds + 300));
    let mut command = command(&["run", "debian", "--memory", &memory, "--resident", &resident]);
    command.args(["--swap", SWAP, "--disk", &disk, "--stats", "--timeout", &seconds]);
    command.args(["--", "sh", "-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("gemello");
    let most = most_resident(&mut child);
    let told = child.wait_with_output().expect("its output");
    let (out, err) = (text(&told.stdout), text(&told.stderr));
    assert_eq!(code(&told), 0, "{out}{err}");
    assert!(out.contains("all right: "), "{out}{err}");
    let budget = budget << 20;
    assert!(most > budget / 2 && most <= budget + budget / 50, "{most} of {budget} bytes\n{err}");
    assert!(err.contains("page-ins"), "{err}");
    println!("{out}{err}at most {most} bytes resident");
}

#[test]
fn a_guest_has_more_memory_than_it_may_take_of_the_hosts() {
    fill_and_check(256, 96, 64, 2);
}

#[test]
#[ignore = "a minute and more; PAGER_MIB, PAGER_RESIDENT, PAGER_SECONDS for other sizes"]
fn a_guest_has_much_more_memory_than_it_may_take_of_the_hosts() {
    let mib = setting("PAGER_MIB").unwrap_or(384);
    let budget = setting("PAGER_RESIDENT").unwrap_or(128);
    fill_and_check(mib + mib / 4 + 128, mib, budget, setting("PAGER_SECONDS").unwrap_or(10));
}

#[test]
fn a_swap_file_that_fails_ends_the_machine_with_the_cause() {
    let _turn = debian("cloud");
    let mut command = command(&["run", "debian", "--memory", "256M", "--resident", "48M"]);
    command.args(["--swap", SWAP, "--timeout", "5m"]);
    let (mut session, _terminal) = Session::on_terminal(&command, &Ends::default());
    session.expect("# ", Duration::from_secs(120));
    let fds = format!("/proc/{}/fd", session.pid().as_raw_nonzero());
    let own = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|file| {
            let file = file.to_string_lossy().into_owned();
            file.starts_with(SWAP) && file.ends_with("(deleted)")
        })
    };
    let mut paths = fs::read_dir(fds).expect("fds").filter_map(|entry| Some(entry.ok()?.path()));
    let swap = paths.find(own).expect("a swap file");
    fs::File::options().write(true).open(swap).expect("it").set_len(0).expect("cut off");
    session.send("ls\r");
    let (status, told) = session.finish(Duration::from_secs(60));
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("the guest's memory is lost: "), "{told}");
}

#[test]
fn budgets_and_folders_that_cannot_be_are_refused() {
    for (arguments, message) in [
        (["--resident", "1M", "--memory", "64M"], "set --resident to 4M or more"),
        (["--resident", "16M", "--swap", "/nonexistent"], "/nonexistent"),
        (["--resident", "16M", "--swap", "/dev/shm"], "it is in memory"),
        (["--swap", "/var/tmp", "--memory", "64M"], "say with --resident"),
    ] {
        let output = run(&[&["run", "--nucleus"], &arguments[..]].concat());
        let told = text(&output.stderr);
        assert_eq!(code(&output), 2, "{arguments:?}: {told}");
        assert!(told.contains(message), "{arguments:?}: {told}");
    }
}

#[test]
fn more_memory_than_the_host_has_is_said_unless_it_has_a_budget() {
    let idle = scratch("idle", &e2e::writes_debug_exit());
    let idle = idle.to_str().expect("text");
    let told = |arguments: &[&str]| {
        let fixed = ["run", "--kernel", idle, "--debug-exit", "--memory", "900G"];
        let output = run(&[&fixed[..], arguments].concat());
        assert_eq!(code(&output) & 1, 1, "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let warned = told(&[]);
    assert!(warned.contains("921600 MiB of guest memory are more than"), "{warned}");
    assert!(warned.contains("--resident SIZE"), "{warned}");
    let bounded = told(&["--resident", "16M", "--swap", SWAP]);
    assert_eq!(bounded, "", "nothing to warn of");
}
