//! Debian's kernel on several processors, and how memory behaves between them.
//!
//! `LITMUS_ROUNDS=1000000` runs each litmus test that often, for as long as that takes.

use e2e::{code, debian_alone, program_disk, run, scratch, text};

/// What the kernel complains of where processors, interrupts or clocks go wrong.
const COMPLAINTS: [&str; 12] = [
    "BUG:",
    "WARNING:",
    "detected stall",
    "soft lockup",
    "hard LOCKUP",
    "Oops",
    "unstable",
    "TSC warp",
    "not responding",
    "failed to come",
    "APIC error",
    "spurious",
];

/// Runs `script` in a guest with `vcpus` processors and gives its output. It must succeed, and the
/// kernel must not complain.
fn guest(vcpus: u32, more: &[&str], script: &str) -> String {
    let _turn = debian_alone("cloud");
    let log = scratch(&format!("smp-{vcpus}.log"), b"");
    let (number, path) = (vcpus.to_string(), log.to_str().expect("text"));
    let mut words = vec!["run", "busybox", "--vcpus", &number, "--log", path, "--memory", "1G"];
    words.extend(more);
    words.extend(["--", "sh", "-c", script]);
    let output = run(&words);
    let said = text(&output.stdout) + &text(&output.stderr);
    let kernel = std::fs::read_to_string(&log).expect("the kernel's messages");
    assert_eq!(code(&output), 0, "{said}\n{kernel}");
    for complaint in COMPLAINTS {
        let line = kernel.lines().find(|line| line.contains(complaint));
        assert_eq!(line, None, "with {vcpus} processors");
    }
    assert!(kernel.contains(&format!("smp: Brought up 1 node, {vcpus} CPUs")), "{kernel}");
    said
}

/// The processors are there, are cores of one package, and each takes its share.
fn all_are_there(vcpus: u32) {
    let said = guest(
        vcpus,
        &["--timeout", "5m"],
        "echo $(nproc) online; \
         echo $(grep -c ^processor /proc/cpuinfo) listed; \
         echo $(grep '^physical id' /proc/cpuinfo | sort -u | wc -l) packages; \
         echo $(grep '^core id' /proc/cpuinfo | sort -u | wc -l) cores; \
         echo $(grep '^siblings' /proc/cpuinfo | sort -u); \
         echo apicid $(grep '^apicid' /proc/cpuinfo | tr -cd '0-9\\n'); \
         echo threads $(cat /sys/devices/system/cpu/cpu*/topology/thread_siblings_list); \
         for n in $(seq $(nproc)); do \
         taskset -p $(printf %x $((1 << (n - 1)))) $$ >/dev/null || exit 1; \
         set -- $(cat /proc/self/stat); shift 38; echo on $1; done",
    );
    let numbers = (0..vcpus).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    let expected = [
        format!("{vcpus} online"),
        format!("{vcpus} listed"),
        "1 packages".to_owned(),
        format!("{vcpus} cores"),
        format!("siblings : {vcpus}"),
        format!("apicid {numbers}"),
    ];
    for line in expected {
        assert!(said.lines().any(|said| said == line), "no {line:?} in {said}");
    }
    for n in 0..vcpus {
        assert!(said.contains(&format!("on {n}\n")), "nothing ran on {n}: {said}");
    }
}

#[test]
fn two_and_four_processors_are_there() {
    [2, 4].into_iter().for_each(all_are_there);
}

#[test]
#[ignore = "longer: many processors on few"]
fn eight_and_sixteen_processors_are_there() {
    [8, 16].into_iter().for_each(all_are_there);
}

/// Processes that fork, run programs, and fill pipes and memory, twice as many as processors. Each
/// result is checked, and nothing is lost.
#[test]
#[ignore = "longer: keeps all processors busy"]
fn many_processes_get_their_results_right() {
    for vcpus in [2, 4, 8] {
        let said = guest(
            vcpus,
            &["--timeout", "10m"],
            "work() { for i in 1 2 3 4 5 6 7 8 9 10; do \
             [ $(seq 1 2000 | sort -rn | head -1) = 2000 ] || echo wrong sort; \
             (exit $i); [ $? = $i ] || echo wrong status; \
             set -- $(dd if=/dev/zero bs=1M count=4 2>/dev/null | md5sum); \
             [ $1 = b5cfa9d6c8febd618f91ac2843d50a1c ] || echo wrong sum; done; echo worked; }; \
             for n in $(seq $((2 * $(nproc)))); do work & done; wait",
        );
        assert_eq!(said, "worked\n".repeat(2 * vcpus as usize));
    }
}

/// More processors than threads: those that wait for each other go on, and no page can be written
/// once it is said that it cannot.
#[test]
#[ignore = "longer: eight processors that wait for each other"]
fn processors_that_share_threads_wait_for_each_other() {
    let disk = program_disk("storm");
    let loads = ["lock", "pipes", "protect", "replace", "map"];
    for (vcpus, pcpus) in [(8, "1"), (8, "2")] {
        let script = format!(
            "cat /dev/vda > /storm; chmod +x /storm; \
             for load in {}; do /storm $load 2 {vcpus} || exit 1; done",
            loads.join(" ")
        );
        let said = guest(vcpus, &["--pcpus", pcpus, "--disk", &disk], &script);
        eprintln!("{vcpus} on {pcpus}\n{said}");
        assert_eq!(said.lines().count(), loads.len(), "{said}");
    }
}

/// What x86's memory order forbids is never seen. What it allows is, where the host has two
/// processors: stores are buffered, and no fence hides that.
#[test]
#[ignore = "by hand: minutes; LITMUS_ROUNDS=1000000 for long"]
fn memory_is_ordered_as_x86_has_it_by_hand() {
    let rounds = std::env::var("LITMUS_ROUNDS").unwrap_or_else(|_| "20480".into());
    let disk = program_disk("litmus");
    for vcpus in [2, 4] {
        let script = format!("cat /dev/vda > /litmus; chmod +x /litmus; /litmus {rounds}");
        let said = guest(vcpus, &["--disk", &disk], &script);
        eprintln!("{said}");
        assert_eq!(said.lines().count(), 39, "{said}");
        assert!(!said.contains("FORBIDDEN"), "{said}");
        let parallel = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        let buffered = |line: &str| line.starts_with("sb") && !line.contains(": 0 of");
        assert!(!parallel || said.lines().any(buffered), "stores are not buffered: {said}");
    }
}
