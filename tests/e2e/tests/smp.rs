//! Debian's kernel on several processors.

use e2e::{code, debian, run, scratch, text};

/// What the kernel complains of where processors, interrupts or clocks go wrong.
const COMPLAINTS: [&str; 12] = [
    "BUG:",
    "WARNING:",
    "stall",
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
fn guest(vcpus: u32, script: &str) -> String {
    let _turn = debian("cloud");
    let log = scratch(&format!("smp-{vcpus}.log"), b"");
    let (number, path) = (vcpus.to_string(), log.to_str().expect("text"));
    let limit = format!("{}", 120 + 10 * vcpus);
    let mut words = vec!["run", "debian", "--vcpus", &number, "--log", path, "--timeout", &limit];
    words.extend(["--memory", "1G", "--", "sh", "-c", script]);
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
