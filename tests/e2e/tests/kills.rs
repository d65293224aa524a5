//! gemello killed at random moments while a guest's file system is synced all the time: the file
//! system is whole, and every record that was acknowledged is there.
//!
//! `KILLS=100` kills so often, and tells what it found.

use e2e::{Initramfs, Session, cache, command, debian, scratch, succeeds};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use test_support::Rng;

/// Process 1: a file for each record, synced before it is acknowledged; every third goes again.
const INIT: &str = "
busybox mount -t ext4 /dev/vda /mnt || echo =nomount
n=0
while true; do
    busybox dd if=/dev/zero of=/mnt/record$n bs=512 count=$((1 + n % 9)) conv=fsync 2>/dev/null &&
        busybox sync /mnt && echo \"=record $n.\"
    [ $((n % 3)) = 2 ] && busybox rm /mnt/record$((n - 1))
    n=$((n + 1))
done
";

/// The last record that was acknowledged in `output`, if one was.
fn acknowledged(output: &str) -> Option<u32> {
    output.rsplit("=record ").find_map(|rest| rest.split_once('.')?.0.parse().ok())
}

/// One run: how many records were acknowledged, and are there after all.
fn run(number: u64, initrd: &Path, delay: Duration) -> u32 {
    let (image, qcow2) = (scratch("kill.img", b""), number % 2 == 1);
    fs::OpenOptions::new().write(true).open(&image).and_then(|f| f.set_len(32 << 20)).expect("set");
    succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    let over = image.with_file_name("kill.qcow2");
    if qcow2 {
        let mut convert = Command::new("qemu-img");
        succeeds(convert.args(["convert", "-O", "qcow2"]).arg(&image).arg(&over));
    }
    let disk =
        if qcow2 { over.display().to_string() } else { format!("{},format=raw", image.display()) };
    let mut start = command(&["run", "--vcpus", "2", "--timeout", "5m", "--kernel"]);
    start.arg(cache().join("cloud/vmlinuz")).arg("--initrd").arg(initrd);
    start.args(["--cmdline", "console=ttyS0 quiet panic=-1", "--disk", &disk]);
    start.stdin(Stdio::piped());
    let mut session = Session::start(start);
    session.expect("=record 0.", Duration::from_secs(120));
    std::thread::sleep(delay);
    session.signal(rustix::process::Signal::KILL);
    let (_, output) = session.finish(Duration::from_secs(60));
    if qcow2 {
        succeeds(Command::new("qemu-img").arg("check").arg(&over));
        let mut convert = Command::new("qemu-img");
        succeeds(convert.args(["convert", "-O", "raw"]).arg(&over).arg(&image));
    }
    // The journal is replayed as the next boot would; the rest has to be right as it is.
    let _ = Command::new("e2fsck").args(["-fy", "-E", "journal_only"]).arg(&image).output();
    succeeds(Command::new("e2fsck").arg("-fn").arg(&image));
    let last = acknowledged(&output).unwrap_or(0);
    let listing = Command::new("debugfs").args(["-R", "ls -p /"]).arg(&image).output();
    let listing = e2e::text(&listing.expect("debugfs").stdout);
    for n in 0..=last {
        // What is removed may be there still, if the removal was not synced.
        let removed = n % 3 == 1 && n < last;
        let found = listing.contains(&format!("/record{n}/"));
        assert!(found || removed, "run {number}: record {n} of {last} is lost\n{listing}");
    }
    last + 1
}

#[test]
#[ignore = "second step: two kills; KILLS=100 for more"]
fn a_disk_is_whole_after_a_kill_at_any_moment() {
    let _turn = debian("cloud");
    let kills = test_support::setting("KILLS").unwrap_or(2);
    // ext4 is built into Debian's kernels.
    let initrd = Initramfs::new(env!("CARGO_TARGET_TMPDIR")).file(INIT);
    let mut random = Rng::new(test_support::setting("KILLS_SEED").unwrap_or(1));
    let mut records = 0;
    for number in 0..kills {
        records += run(number, &initrd, Duration::from_millis(random.below(1500)));
        println!("{} kills, {records} records", number + 1);
    }
}
