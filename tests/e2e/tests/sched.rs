//! How the host's processors are shared out, from the command line.

use e2e::{code, debian, kernel, run, scratch, text};

/// `cli; 1: jmp 1b`
fn busy() -> String {
    scratch("busy.elf", &kernel(&[0xFA, 0xEB, 0xFE])).to_str().expect("text").to_owned()
}

/// The number in the line of `--stats` that begins so.
fn number(stats: &str, begins: &str) -> f64 {
    let line = stats.lines().map(str::trim).find(|line| line.starts_with(begins));
    let line = line.unwrap_or_else(|| panic!("no {begins} in {stats}"));
    let word = line[begins.len()..].split_whitespace().next().expect("a word");
    word.parse().expect("a number")
}

#[test]
fn a_limit_bounds_a_guest_that_never_halts() {
    let arguments = ["run", &busy(), "--timeout", "2s", "--cpu-limit", "20%", "--stats"];
    let output = run(&arguments);
    assert_eq!(code(&output), 124);
    let stats = text(&output.stderr);
    // A period's budget may be spent before the first period is over.
    let ran = number(&stats, "ran ");
    let most = number(&stats, "wall time ") * 0.2 * 1.03 + 0.02;
    assert!(ran > 0.05 && ran < most, "{ran} s, {most} s at the most");
    assert!(number(&stats, "context switches ") > 10.0, "{stats}");
}

#[test]
fn what_devices_use_counts_against_a_limit() {
    let _turn = debian("cloud");
    let disk = scratch("zeros", &vec![0; 192 << 20]);
    let disk = format!("{},ro,format=raw", disk.to_str().expect("text"));
    let read = "for i in 1 2 3 4; do dd if=/dev/vda of=/dev/null bs=1M iflag=direct; done";
    let machine = ["run", "busybox", "--cpu-limit", "40%", "--stats", "--disk", &disk];
    let output = run(&[&machine[..], &["--", "sh", "-c", read]].concat());
    let stats = text(&output.stderr);
    assert_eq!(code(&output), 0, "{stats}");
    let devices = number(&stats, "devices and I/O ran ");
    let all = number(&stats, "ran ") + devices;
    let most = number(&stats, "wall time ") * 0.4 * 1.03 + 0.02;
    assert!(devices > 0.05 && all < most, "{devices} of {all} s, {most} s at the most");
}

#[test]
fn a_guest_alone_is_not_switched() {
    let arguments = ["run", &busy(), "--timeout", "1s", "--quantum", "0.1ms", "--stats"];
    let stats = text(&run(&arguments).stderr);
    assert!(number(&stats, "ran ") > 0.9, "{stats}");
    assert!(number(&stats, "context switches ") <= 2.0, "{stats}");
    assert!(number(&stats, "quantum used up ") < 1.0, "{stats}");
}

#[test]
fn what_is_no_share_is_refused() {
    let guest = busy();
    for (option, value, advice) in [
        ("--pcpus", "0", "zero"),
        ("--quantum", "5s", "0.1ms to 1s"),
        ("--cpu-weight", "0", "1 to 10000"),
        ("--cpu-limit", "50", "50%"),
    ] {
        let output = run(&["run", &guest, option, value]);
        let message = text(&output.stderr);
        assert_eq!(code(&output), 2, "{option} {value}: {message}");
        assert!(message.contains(option) && message.contains(advice), "{message}");
    }
}
