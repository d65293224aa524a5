//! `--resident`: guests with more memory than they may take of the host's.
//!
//! `PAGER_MIB=1536 PAGER_RESIDENT=256 PAGER_SECONDS=60` makes the ignored test as large.

use e2e::{Ends, Session, code, command, debian_alone, program_disk, run, scratch, text};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};
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

/// Whether all threads of `pid` stand still, or it has ended.
fn stands(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).ok();
    // The state follows the name, which ends with a parenthesis.
    let state = |stat: String| stat.rsplit(')').next().and_then(|rest| rest.chars().nth(1));
    tasks.filter_map(stat).filter_map(state).all(|state| "TZX".contains(state))
}

/// Waits for `child`. The most that [`resident`] said, every 100 ms: while it is stopped, since the
/// host tells of one region after the other.
fn most_resident(child: &mut Child) -> u64 {
    let pid = Pid::from_child(child);
    let mut most = 0;
    while child.try_wait().expect("a child").is_none() {
        kill_process(pid, Signal::STOP).expect("it runs");
        let limit = Instant::now() + Duration::from_secs(20);
        while !stands(child.id()) && Instant::now() < limit {
            thread::sleep(Duration::from_millis(1));
        }
        most = most.max(resident(child.id()).unwrap_or(0));
        kill_process(pid, Signal::CONT).expect("it is there");
        thread::sleep(Duration::from_millis(100));
    }
    most
}

/// A Debian with two processors and `memory` MiB. Two processes fill `mib` of them and change them
/// for `seconds`, a disk writes to them, and `budget` MiB may be resident.
fn fill_and_check(memory: u64, mib: u64, budget: u64, seconds: u64) {
    let _turn = debian_alone("cloud");
    let fill = format!("/run/fill {} {seconds} /dev/vda", mib / 2);
    let script = format!(
        "cp /dev/vda /run/fill; chmod +x /run/fill; {fill} & {fill} && wait $! && echo both; \
         grep HYP: /proc/interrupts"
    );
    let (memory, resident) = (format!("{memory}M"), format!("{budget}M"));
    let (disk, seconds) = (program_disk("fill"), format!("{}", 10 * seconds + 300));
    let mut command = command(&["run", "busybox", "--memory", &memory, "--resident", &resident]);
    command.args(["--vcpus", "2", "--swap", SWAP, "--disk", &disk]);
    command.args(["--stats", "--timeout", &seconds]);
    command.args(["--", "sh", "-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("gemello");
    let most = most_resident(&mut child);
    let told = child.wait_with_output().expect("its output");
    let (out, err) = (text(&told.stdout), text(&told.stderr));
    assert_eq!(code(&told), 0, "{out}{err}");
    assert_eq!(out.matches("all right: ").count(), 2, "{out}{err}");
    assert!(out.contains("both"), "{out}{err}");
    told_of_pages(&out, &err);
    let budget = budget << 20;
    assert!(most > budget / 2 && most <= budget + budget / 50, "{most} of {budget} bytes\n{err}");
    assert!(err.contains("page-ins"), "{err}");
    println!("{out}{err}at most {most} bytes resident");
}

/// The guest was told of pages that were absent, and when they had come.
fn told_of_pages(out: &str, err: &str) {
    let ready = out.lines().find_map(|line| line.trim().strip_prefix("HYP:")).expect(out);
    let ready = ready.split_whitespace().map_while(|count| count.parse::<u64>().ok()).sum::<u64>();
    let faults = err.lines().filter_map(|line| line.trim().strip_prefix("async page faults"));
    let count = |line: &str| line.split_whitespace().next()?.parse::<u64>().ok();
    let faults: u64 = faults.filter_map(count).sum();
    // Each processor is told once at the start that all are there.
    assert!(faults > 0 && ready > 2, "{faults} absent, {ready} told of\n{out}{err}");
}

#[test]
fn a_guest_runs_other_work_while_a_page_comes_in() {
    let _turn = debian_alone("cloud");
    let script = "cp /dev/vda /run/fill; chmod +x /run/fill; n=0; \
                  while :; do n=$((n+1)); [ $((n%100)) = 0 ] && echo $n >> /run/n; done & \
                  /run/fill 16 1 /dev/vda && kill $! && echo counted $(tail -n 1 /run/n); \
                  grep HYP: /proc/interrupts";
    let disk = program_disk("fill");
    let mut command = command(&["run", "busybox", "--memory", "192M", "--resident", "32M"]);
    command.args(["--swap", SWAP, "--disk", &disk, "--stats", "--timeout", "5m"]);
    let told = command.args(["--", "sh", "-c", script]).output().expect("gemello");
    let (out, err) = (text(&told.stdout), text(&told.stderr));
    assert_eq!(code(&told), 0, "{out}{err}");
    assert!(out.contains("all right: "), "{out}{err}");
    let counted = out.lines().find_map(|line| line.trim().strip_prefix("counted "));
    assert!(counted.is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n > 100)), "{out}{err}");
    told_of_pages(&out, &err);
}

#[test]
fn a_machine_that_is_killed_leaves_no_file() {
    let folder = std::path::Path::new(SWAP).join(format!("killed-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder");
    let idle = scratch("killed", &e2e::idle());
    let mut command =
        command(&["run", "--kernel", idle.to_str().expect("text"), "--memory", "64M"]);
    command.args(["--resident", "16M", "--timeout", "5m"]).arg("--swap").arg(&folder);
    let mut child = command.stdin(Stdio::null()).spawn().expect("gemello");
    let limit = Instant::now() + Duration::from_secs(60);
    let maps = || fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap_or_default();
    while !maps().contains(folder.to_str().expect("text")) {
        assert!(Instant::now() < limit, "no swap file: {}", maps());
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("it runs");
    child.wait().expect("it is gone");
    fs::remove_dir(&folder).expect("it is empty");
}

#[test]
fn a_guest_has_more_memory_than_it_may_take_of_the_hosts() {
    fill_and_check(256, 96, 64, 2);
}

#[test]
#[ignore = "by hand: a minute and more; PAGER_MIB, PAGER_RESIDENT, PAGER_SECONDS for other sizes"]
fn a_guest_has_much_more_memory_than_it_may_take_by_hand() {
    let mib = setting("PAGER_MIB").unwrap_or(384);
    let budget = setting("PAGER_RESIDENT").unwrap_or(128);
    fill_and_check(mib + mib / 4 + 128, mib, budget, setting("PAGER_SECONDS").unwrap_or(10));
}

#[test]
fn a_swap_file_that_fails_ends_the_machine_with_the_cause() {
    let _turn = debian_alone("cloud");
    let mut command = command(&["run", "busybox", "--memory", "256M", "--resident", "48M"]);
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
    let fixed = ["run", "--kernel", idle, "--debug-exit", "--memory", "900G"];
    let output = run(&fixed);
    let warned = text(&output.stderr);
    assert_eq!(code(&output) & 1, 1, "{warned}");
    assert!(warned.contains("921600 MiB of guest memory are more than"), "{warned}");
    assert!(warned.contains("--resident SIZE"), "{warned}");
    let output = run(&[&fixed[..], &["--resident", "16M", "--swap", SWAP]].concat());
    let bounded = text(&output.stderr);
    assert!(!bounded.contains("that this host can give"), "{bounded}");
}

#[test]
fn a_disk_without_room_for_the_swap_file_is_told_at_the_start() {
    let mut limited = std::process::Command::new("prlimit");
    limited.args(["--fsize=33554432"]).arg(test_support::gemello());
    limited.args(["run", "--nucleus", "demo", "--memory", "64M", "--resident", "16M"]);
    let output = limited.args(["--swap", SWAP]).output().expect("prlimit");
    let told = text(&output.stderr);
    assert_eq!(code(&output), 2, "{told}");
    assert!(told.contains("cannot create a swap file in"), "{told}");
}
