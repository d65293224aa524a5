//! `gemello run --system`: what is on a disk has a process 1 of its own. Here that is a script,
//! which does what systemd would; by hand, it is systemd.

use e2e::{House, cache, code, command, debian, run, scratch, succeeds, text};
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs the service that systemd would start, and powers off as it would.
const INIT: &str = "#!/bin/sh
/run/gemello/agent job
busybox mount -o remount,ro /
busybox poweroff -f
";

/// What the command sees: its process 1, the units, the network, its input.
const TELL: &str = "busybox head -n 1 /proc/1/cmdline | busybox tr '\\0' ' '; echo
cd /run/systemd/system
for unit in multi-user.target.wants/gemello-job gemello-agent; do
    busybox head -n 1 $unit.service
done
busybox readlink getty@tty1.service
busybox stat -c %a /run/gemello/job
busybox hostname
busybox cat /etc/resolv.conf -
echo \"$HOME $(busybox id -u)\"
busybox touch /kept
echo wrong >&2
exit 7";

/// A disk with busybox and this `/sbin/init`, if it has one.
fn disk(init: Option<&str>) -> PathBuf {
    let image = scratch("root.ext4", b"");
    let root = image.with_file_name("root");
    let _ = fs::remove_dir_all(&root);
    for folder in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "root"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::copy(cache().join("cloud/busybox"), root.join("bin/busybox")).expect("a copy");
    symlink("busybox", root.join("bin/sh")).expect("a link");
    if let Some(script) = init {
        let path = root.join("sbin/init");
        fs::write(&path, script).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a mode");
    }
    let mut make = Command::new("/usr/sbin/mke2fs");
    succeeds(make.args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&image).arg("16M"));
    image
}

fn on(disk: &Path, options: &[&str]) -> Command {
    let mut command = command(&["run", "--system", "--timeout", "4m", "--disk"]);
    command.arg(format!("{},format=raw,cache=unsafe", disk.display())).args(options);
    command
}

#[test]
fn a_system_takes_over_and_runs_the_command() {
    let _turn = debian("cloud");
    let disk = disk(Some(INIT));
    let mut command = on(&disk, &["--name", "own.name", "--", "/bin/sh", "-c", TELL]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut guest = command.spawn().expect("gemello starts");
    guest.stdin.take().expect("a pipe").write_all(b"typed\n").expect("written");
    let output = guest.wait_with_output().expect("its end");
    let said = text(&output.stdout);
    assert_eq!(code(&output), 7, "{said}{}", text(&output.stderr));
    let expected = "/bin/sh /sbin/init \n[Unit]\n[Unit]\n/dev/null\n600\nown.name\n\
        nameserver 10.0.2.3\ntyped\n/root 0\n";
    assert_eq!(said, expected);
    assert_eq!(text(&output.stderr), "wrong\n");
    // As after an unmount: nothing is in the journal, and what the command wrote is there.
    let mut check = Command::new("/usr/sbin/e2fsck");
    succeeds(check.args(["-f", "-n"]).arg(&disk));
    let mut look = Command::new("/usr/sbin/debugfs");
    let there = look.args(["-R", "stat /kept"]).arg(&disk).output().expect("debugfs starts");
    assert!(text(&there.stdout).contains("Inode:"), "{}", text(&there.stderr));
    let mut look = Command::new("/usr/sbin/debugfs");
    let features = look.args(["-R", "features"]).arg(&disk).output().expect("debugfs starts");
    assert!(!text(&features.stdout).contains("needs_recovery"), "{}", text(&features.stdout));
}

/// Takes its time before it is up, and has a service manager that knows one unit.
const SLOW: &str = "#!/bin/sh
busybox printf '#!/bin/sh\n/run/gemello/agent serve &\n' > /bin/systemctl
busybox chmod 755 /bin/systemctl
busybox sleep 8
/run/gemello/agent job
busybox poweroff -f
";

#[test]
#[ignore = "ten seconds"]
fn who_wants_the_agent_waits_while_a_system_boots() {
    let _turn = debian("cloud");
    let house = House::new("slow");
    let disk = format!("{},format=raw,cache=unsafe", disk(Some(SLOW)).display());
    let run = ["run", "--system", "--disk", &disk, "--detach", "--name", "slow", "--"];
    house.told(&[&run[..], &["/bin/sh", "-c", "busybox sleep 300"]].concat());
    let output = house.run(&["exec", "slow", "--", "/bin/busybox", "echo", "here"]);
    house.told(&["stop", "--force", "slow"]);
    assert_eq!((code(&output), text(&output.stdout)), (0, "here\n".to_owned()));
    let said = text(&output.stderr);
    assert_eq!(said, "gemello: slow is booting; waiting until it is up\n");
}

#[test]
fn what_is_no_system_says_so() {
    let _turn = debian("cloud");
    let output = on(&disk(None), &["--", "true"]).output().expect("gemello starts");
    let said = text(&output.stderr);
    assert!(code(&output) != 0 && said.contains("the disk has no /sbin/init"), "{said}");
    let output = run(&["run", "--system", "--", "true"]);
    assert!(code(&output) == 2 && text(&output.stderr).contains("--disk"), "{output:?}");
}

/// `SYSTEM=root.ext4 cargo test -p e2e --test system -- --ignored --nocapture systemd`: a Debian
/// with systemd, on a disk that is not written. docs/measurements.md says how one is made.
#[test]
#[ignore = "needs a disk with systemd: see its comment"]
fn systemd_is_up_within_seconds_by_hand() {
    let _turn = debian("cloud");
    let given = std::env::var_os("SYSTEM").expect("SYSTEM names a disk");
    let disk = scratch("system.qcow2", b"");
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(given);
    succeeds(make.arg(&disk));
    let here = |words: &[&str]| {
        let mut command = command(&["run", "--system", "--timeout", "4m", "--disk"]);
        command.arg(format!("{},backing=allow", disk.display())).arg("--").args(words);
        let begun = Instant::now();
        let output = command.output().expect("gemello starts");
        println!("{words:?}: {:.2} s", begun.elapsed().as_secs_f64());
        assert_eq!(code(&output), 0, "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    here(&["touch", "/root/kept"]); // and makes the machine's identity
    here(&["test", "-e", "/root/kept"]);
    for _ in 0..5 {
        here(&["true"]);
    }
    assert_eq!(here(&["systemctl", "is-system-running", "--wait"]), "running\n");
    assert_eq!(here(&["systemctl", "--failed", "--no-legend", "--plain"]), "");
    assert!(here(&["journalctl", "-b", "-n", "1", "--no-pager"]).contains("systemd"));
    let raw = disk.with_file_name("system.raw");
    let mut convert = Command::new("qemu-img");
    succeeds(convert.args(["convert", "-O", "raw"]).arg(&disk).arg(&raw));
    succeeds(Command::new("/usr/sbin/e2fsck").args(["-f", "-n"]).arg(&raw));
}
