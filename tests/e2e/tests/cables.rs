//! What a network device can be joined to, and what is written down of it, with Debian's own
//! driver.

use e2e::{cache, code, debian, run, scratch, text};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The frames of the capture at `path`, each with its time.
fn frames(path: &Path) -> Vec<(Duration, Vec<u8>)> {
    let bytes = fs::read(path).expect("a capture");
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4).expect("whole").try_into();
        u32::from_ne_bytes(bytes.expect("four"))
    };
    // Magic with nanoseconds, version 2.4, Ethernet.
    assert_eq!((word(0), word(4), word(20)), (0xa1b2_3c4d, 0x0004_0002, 1));
    let (mut frames, mut at) = (Vec::new(), 24);
    while at < bytes.len() {
        let (time, len) = (Duration::new(word(at).into(), word(at + 4)), word(at + 8) as usize);
        assert_eq!(word(at + 12) as usize, len, "nothing is cut");
        let frame = bytes.get(at + 16..at + 16 + len).expect("whole");
        frames.push((time, frame.to_vec()));
        at += 16 + len;
    }
    frames
}

#[test]
fn a_capture_has_every_frame() {
    let _turn = debian("cloud");
    let path = scratch("frames.pcap", b"old");
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let began = now();
    let net = ["--net", "user,mac=52:54:00:aa:bb:cc", "--pcap", path.to_str().expect("text")];
    let script = "cat /sys/class/net/eth0/address; ping -c 2 -i 0.1 10.0.2.2 >/dev/null";
    let arguments = [&["run", "debian"][..], &net, &["--stats", "--", "sh", "-c", script]].concat();
    let output = run(&arguments);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "52:54:00:aa:bb:cc\n");
    let frames = frames(&path);
    assert!(frames.is_sorted_by_key(|(time, _)| *time));
    assert!(frames.iter().all(|(time, _)| (began..=now()).contains(time)));
    let mac = [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc];
    // IPv4 and ICMP: echo requests from the guest, the replies to it.
    let echo = |kind| {
        let icmp = |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == kind;
        frames.iter().filter(|(_, frame)| icmp(frame)).count()
    };
    assert_eq!((echo(8), echo(0)), (2, 2));
    let sent = frames.iter().filter(|(_, frame)| frame[6..12] == mac).count();
    let stats = text(&output.stderr);
    let counted = |name: &str| {
        let line = stats.lines().find(|line| line.trim_start().starts_with(name));
        let words = line.unwrap_or_else(|| panic!("{stats}")).split_whitespace();
        words.skip_while(|word| word.parse::<usize>().is_err()).next()?.parse().ok()
    };
    assert_eq!(counted("from it "), Some(sent), "{stats}");
    assert_eq!(counted("to the guest "), Some(frames.len() - sent), "{stats}");
}

#[test]
fn a_capture_is_where_it_may_be_and_a_full_disk_is_told() {
    let _turn = debian("cloud");
    let capture = |path: &str, options: &[&str]| {
        let arguments = [&["run", "debian", "--timeout", "60", "--pcap", path], options].concat();
        run(&[&arguments[..], &["--", "true"]].concat())
    };
    let output = capture("/dev/full", &["--net", "user"]);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 1, "{message}");
    assert!(message.contains("the capture ends here: No space left"), "{message}");
    let kernel = cache().join("cloud/vmlinuz");
    let kernel = kernel.to_str().expect("text");
    for (path, options, pieces) in [
        ("/x", &["--net", "none"][..], ["--pcap is for a network", "--net"]),
        (kernel, &["--net", "user"], ["it is the kernel of this run", kernel]),
        ("/nowhere/x", &["--net", "user"], ["cannot write the capture to /nowhere/x", "No such"]),
    ] {
        let output = capture(path, options);
        let message = text(&output.stderr);
        assert_eq!(code(&output), 2, "{message}");
        assert!(pieces.iter().all(|piece| message.contains(piece)), "{message}");
    }
    assert!(fs::metadata(kernel).expect("there").len() > 1 << 20);
}
