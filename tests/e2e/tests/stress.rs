//! stress-ng, Debian's package, in a guest: every stressor checks its own results.
//!
//! Short where nothing is said. `STRESS_SECONDS=75` gives each of 24 stressors that time, which
//! makes half an hour; `STRESS_SAVES=20` saves and restores the machine that often under load;
//! `STORM_SECONDS=1200` keeps four processors in a storm for twenty minutes, twice.

use e2e::{Ends, Session, code, command, debian_alone, run, succeeds, text};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const BOOT: Duration = Duration::from_secs(60);

const STRESSORS: [&str; 24] = [
    "cpu",
    "vm",
    "fork",
    "vfork",
    "clone",
    "sigfpe",
    "sigsegv",
    "sigsuspend",
    "sigq",
    "sigtrap",
    "mmap",
    "mremap",
    "mprotect",
    "switch",
    "context",
    "pipe",
    "futex",
    "malloc",
    "qsort",
    "matrix",
    "memcpy",
    "vecmath",
    "x86cpuid",
    "mutex",
];

/// stress-ng and what it is linked with.
const PACKAGES: [&str; 31] = [
    "stress-ng",
    "libc6",
    "libapparmor1",
    "libbsd0",
    "libmd0",
    "libcrypt1",
    "libegl1",
    "libglvnd0",
    "libgbm1",
    "libgles2",
    "libipsec-mb1",
    "libjpeg62-turbo",
    "libjudydebian1",
    "libkmod2",
    "libsctp1",
    "libxxhash0",
    "zlib1g",
    "libzstd1",
    "liblzma5",
    "libssl3",
    "libdrm2",
    "libexpat1",
    "libwayland-server0",
    "libffi8",
    "libx11-6",
    "libxcb1",
    "libxau6",
    "libxdmcp6",
    "libxcb-randr0",
    "libx11-xcb1",
    "libgcc-s1",
];

/// A disk that is a tar archive with stress-ng in it, made once.
fn disk() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stress-ng");
    let archive = place.join("stress-ng.tar");
    if archive.exists() {
        return archive;
    }
    let root = e2e::packages(&place, &PACKAGES);
    let draft = place.join("draft.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&root).arg("-cf").arg(&draft).arg(".");
    succeeds(&mut tar);
    std::fs::rename(draft, &archive).expect("a rename");
    archive
}

fn disk_option() -> String {
    format!("{},ro", disk().to_str().expect("text"))
}

fn number(variable: &str, otherwise: u32) -> u32 {
    let said = std::env::var(variable).ok();
    said.map_or(otherwise, |n| n.parse().unwrap_or_else(|_| panic!("{variable} is no number: {n}")))
}

/// What the kernel complains of, on lines of its own.
const COMPLAINTS: &str =
    "dmesg | grep -E 'BUG:|WARNING:|stall|soft lockup|Oops|TSC.*unstable|lost' && echo complaints";

#[test]
#[ignore = "a second for each stressor; STRESS_SECONDS=75 for half an hour"]
fn every_stressor_finds_its_results_right() {
    let _turn = debian_alone("cloud");
    let seconds = number("STRESS_SECONDS", 1);
    let options = STRESSORS.map(|stressor| {
        format!("stress-ng --verify --oomable --vm-bytes 64M --timeout {seconds} --{stressor} 1")
    });
    // The first that fails ends it, with its status.
    let script =
        format!("cd / && tar xf /dev/vda && {} || exit; {COMPLAINTS}; true", options.join(" && "));
    let limit = format!("{}", 120 + 48 * seconds);
    let output = run(&[
        "run",
        "busybox",
        "--memory",
        "1G",
        "--disk",
        &disk_option(),
        "--timeout",
        &limit,
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let told = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(code(&output), 0, "{told}");
    assert_eq!(told.matches("successful run completed").count(), STRESSORS.len(), "{told}");
    assert!(!told.contains("complaints"), "{told}");
}

/// All at once: messages, futexes, processes, page tables, signals, barriers.
const STORM: &str = "--switch 2 --msg 2 --sockpair 2 --pipe 2 --futex 2 --mutex 2 --yield 2 \
                     --fork 2 --mmap 1 --mremap 1 --mprotect 2 --tlb-shootdown 1 --vm 1 \
                     --sigq 2 --sigsuspend 2 --sigsegv 1 --membarrier 1 --cpu 1";

/// Patches the kernel's code as long as there is no file `/done`: the function tracer changes all
/// its functions, statistics and events change static keys. Says how often.
const PATCHES: &str = "mount -t tracefs nodev /sys/kernel/tracing || exit 1; n=0; \
     while [ ! -e /done ]; do cd /sys/kernel/tracing; \
     echo function > current_tracer; sleep 1; echo nop > current_tracer; \
     for on in 1 0; do echo $on > /proc/sys/kernel/sched_schedstats; \
     echo $on > events/sched/enable; sleep 1; done; n=$((n + 1)); done; echo patched $n times";

#[test]
#[ignore = "by hand: half a minute for each number of workers; STORM_SECONDS=1200 for long, \
            STORM_PCPUS=2 for one of them"]
fn four_processors_in_a_storm_are_right_by_hand() {
    let _turn = debian_alone("cloud");
    let seconds = number("STORM_SECONDS", 10);
    let script = format!(
        "cd / && tar xf /dev/vda || exit; ({PATCHES}) & stress-ng --verify --oomable \
         --vm-bytes 64M --mmap-bytes 64M --timeout {seconds} {STORM} || \
         {{ dmesg | tail -50; exit 1; }}; touch /done; wait; {COMPLAINTS}; true"
    );
    let only = std::env::var("STORM_PCPUS").ok();
    for pcpus in ["1", "2"].into_iter().filter(|it| only.as_deref().is_none_or(|only| only == *it))
    {
        let limit = format!("{}", 240 + 2 * seconds);
        let disk = disk_option();
        // What stress-ng maps grows with time: 0.6 GiB after three minutes.
        let machine = ["run", "busybox", "--vcpus", "4", "--pcpus", pcpus, "--memory", "3G"];
        let rest = ["--disk", &disk, "--timeout", &limit, "--", "sh", "-c", &script];
        let output = run(&[&machine[..], &rest].concat());
        let told = text(&output.stdout) + &text(&output.stderr);
        eprintln!("{told}");
        assert_eq!(code(&output), 0, "{told}");
        assert!(told.contains("successful run completed"), "{told}");
        let times = told.split("patched ").nth(1).and_then(|rest| rest.split(' ').next());
        assert!(times.is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 0)), "{told}");
        assert!(!told.contains("complaints"), "{told}");
    }
}

#[test]
#[ignore = "by hand: saves and restores twice; STRESS_SAVES=20 for more"]
fn a_machine_under_stress_is_saved_and_goes_on_elsewhere_by_hand() {
    let _turn = debian_alone("cloud");
    let saves = number("STRESS_SAVES", 2);
    let place = std::env::temp_dir().join(format!("gemello-stress-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a scratch directory");
    let file = |n: u32| place.join(format!("{n}.gm")).to_str().expect("text").to_owned();
    let first = command(&[
        "run",
        "busybox",
        "--memory",
        "512M",
        "--disk",
        &disk_option(),
        "--save",
        &file(0),
    ]);
    let (mut session, mut _terminal) = Session::on_terminal(&first, &Ends::default());
    session.expect("# ", BOOT);
    session.send("cd /; tar xf /dev/vda; echo unpacked $((6 * 7))\r");
    session.expect("unpacked 42", BOOT);
    // The guest's clock stands still while the machine is saved.
    let seconds = 4 * saves + 10;
    session.send(&format!(
        "stress-ng --verify --oomable --vm-bytes 32M --mmap-bytes 32M --timeout {seconds} \
         --cpu 1 --vm 1 --fork 1 --sigsegv 1 --mmap 1 --switch 1 --pipe 1 --futex 1 --qsort 1 \
         --matrix 1 --vecmath 1 --memcpy 1; echo status $?.\r"
    ));
    session.expect("dispatching hogs", BOOT);
    for n in 0..saves {
        std::thread::sleep(Duration::from_secs(2));
        session.send("\x01s");
        session.expect("saved to", BOOT);
        drop(session); // killed
        let next = command(&["restore", &file(n), "--save", &file(n + 1), "--timeout", "10m"]);
        (session, _terminal) = Session::on_terminal(&next, &Ends::default());
        if n > 0 {
            std::fs::remove_file(file(n - 1)).expect("it is there");
        }
    }
    let (told, _) = session.expect("status ", Duration::from_secs(120 + 4 * u64::from(seconds)));
    session.expect("0.", BOOT);
    assert!(told.contains("successful run completed"), "{told}");
    session.send(&format!("{COMPLAINTS}; poweroff\r"));
    let (status, told) = session.finish(BOOT);
    assert_eq!(status, 0, "{told}");
    assert!(!told.contains("\ncomplaints"), "{told}");
    std::fs::remove_dir_all(place).expect("it is there");
}
