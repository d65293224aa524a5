//! `gemello run --system`, and Debian's command without it: what is on a disk has a process 1 of
//! its own, which is started or not. Here that is a script, which does what systemd would; by hand,
//! it is systemd.

use e2e::whole::whole;
use e2e::{House, Session, cache, code, command, debian, run, scratch, succeeds, text};
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);

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
    fs::write(root.join("etc/hostname"), "# whose\nits.name\n").expect("a file");
    fs::write(root.join("etc/machine-id"), "").expect("a file");
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
    whole(&disk);
    // What the command wrote is there.
    let mut look = Command::new("/usr/sbin/debugfs");
    let there = look.args(["-R", "stat /kept"]).arg(&disk).output().expect("debugfs starts");
    assert!(text(&there.stdout).contains("Inode:"), "{}", text(&there.stderr));
}

/// Takes its time before it hears anybody, and has then a service manager that powers off.
const LATE: &str = "#!/bin/sh
busybox sleep 3
busybox cat > /bin/systemctl << 'END'
#!/bin/sh
echo \"$@\" > /asked
busybox mount -o remount,ro /
busybox poweroff -f
END
busybox chmod 755 /bin/systemctl
busybox mkdir -p /run/systemd
busybox touch /run/systemd/private
while :; do busybox sleep 1; done
";

/// It is there before the system is, and its end is the system's, whether that hears it or not.
#[test]
fn a_systems_shell_does_not_wait() {
    let _turn = debian("cloud");
    let disk = disk(Some(LATE));
    let begin = || {
        let mut session = Session::start(on(&disk, &[]));
        session.expect("systemd starts the system meanwhile.", LONG);
        session
    };
    let mut early = begin();
    early.send("busybox head -n 1 /proc/1/cmdline; busybox test -e /run/systemd/private || exit\n");
    early.expect("/sbin/init", LONG);
    let (status, said) = early.finish(LONG);
    assert_eq!(status, 0, "{said}");
    whole(&disk);
    let mut late = begin();
    late.send("until busybox test -e /run/systemd/private; do busybox sleep 0.1; done; exit\n");
    let (status, said) = late.finish(LONG);
    assert_eq!(status, 0, "{said}");
    let mut look = Command::new("/usr/sbin/debugfs");
    let asked = look.args(["-R", "cat /asked"]).arg(&disk).output().expect("debugfs starts");
    let expected = "--no-block --job-mode=replace-irreversibly start poweroff.target\n";
    assert_eq!(text(&asked.stdout), expected);
}

/// Runs its job at once, and takes its time until it has a service manager, which knows one unit.
const SLOW: &str = "#!/bin/sh
busybox printf '#!/bin/sh\n/run/gemello/agent serve &\n' > /bin/systemctl
busybox chmod 755 /bin/systemctl
/run/gemello/agent job &
busybox sleep 8
busybox mkdir -p /run/systemd
busybox touch /run/systemd/private
wait
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

/// A cache in which this disk is a whole Debian.
fn place(disk: &Path) -> PathBuf {
    let digits = "5".repeat(64);
    let place = disk.with_file_name("cache");
    let _ = fs::remove_dir_all(&place);
    let base = place.join("gemello/images").join(&digits);
    fs::create_dir_all(&base).expect("a folder");
    fs::rename(disk, base.join("root.ext4")).expect("a disk");
    symlink(cache().join("cloud"), base.join("kernel")).expect("a link");
    let note = format!(
        "{{\"name\": \"debian:trixie\", \"digest\": \"sha256:{digits}\", \"system\": \"trixie\", \
        \"format\": 1}}"
    );
    fs::write(base.join("image.json"), note).expect("a file");
    place
}

fn start(place: &Path, options: &[&str], script: &str) -> Child {
    let mut command = command(&["run", "debian", "--timeout", "4m"]);
    command.args(options).args(["--", "/bin/sh", "-c", script]).env("XDG_CACHE_HOME", place);
    command.env("XDG_RUNTIME_DIR", place); // another test's machine is called debian, too
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("gemello starts")
}

fn in_debian(place: &Path, options: &[&str], script: &str) -> Output {
    let mut guest = start(place, options, script);
    guest.stdin.take().expect("a pipe").write_all(b"typed\n").expect("written");
    guest.wait_with_output().expect("its end")
}

/// What a command in Debian sees. It leaves one process, which has a file open for writing.
const WITHOUT_INIT: &str = "busybox tr '\\0' ' ' < /proc/1/cmdline; echo
busybox hostname
busybox grep -c '^[0-9a-f]\\{32\\}$' /etc/machine-id
busybox awk '{ print $2, $3 }' /proc/mounts | busybox grep -E '^/(run|tmp|sys/fs/cgroup) '
test -d /run/systemd/system || echo no systemd
busybox stat -c %a /tmp /run/lock
busybox cat /etc/resolv.conf -
busybox cp /etc/machine-id /kept
busybox sh -c 'exec > /held 2>&1 < /dev/null; while :; do echo; busybox sleep 0.01; done' &
echo wrong >&2
exit 7";

/// A command first, and the system later: on the same disk.
#[test]
fn debians_command_needs_no_init() {
    let _turn = debian("cloud");
    let place = place(&disk(Some(INIT)));
    let output = in_debian(&place, &[], WITHOUT_INIT);
    assert_eq!(code(&output), 7, "{}{}", text(&output.stdout), text(&output.stderr));
    let expected = "/init \nits.name\n1\n/run tmpfs\n/tmp tmpfs\n/sys/fs/cgroup cgroup2\n\
        no systemd\n1777\n1777\nnameserver 10.0.2.3\ntyped\n";
    assert_eq!((text(&output.stdout).as_str(), &*text(&output.stderr)), (expected, "wrong\n"));
    // As after an unmount, whoever was still writing.
    let (kept, raw) = (place.join("gemello/machines/debian.qcow2"), place.join("raw"));
    succeeds(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(kept).arg(&raw));
    whole(&raw);
    let script = "busybox head -n 1 /proc/1/cmdline | busybox tr '\\0' ' '; echo
        busybox cmp /kept /etc/machine-id && busybox cat -";
    let output = in_debian(&place, &["--system"], script);
    assert_eq!(text(&output.stdout), "/bin/sh /sbin/init \ntyped\n", "{}", text(&output.stderr));
}

/// As an image's command is.
#[test]
fn debians_command_is_asked_to_end() {
    let _turn = debian("cloud");
    let place = place(&disk(Some(INIT)));
    let script = "trap 'echo heard; exit 5' TERM; echo ready; while :; do busybox sleep 0.1; done";
    let mut guest = start(&place, &["--rm"], script);
    let mut lines = BufReader::new(guest.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().and_then(Result::ok);
    assert_eq!(line().as_deref(), Some("ready"));
    let pid = rustix::process::Pid::from_child(&guest);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(line().as_deref(), Some("heard"));
    assert_eq!(guest.wait().expect("its end").code(), Some(5));
}

/// `SYSTEM=root.ext4 cargo test -p e2e system:: -- --ignored --nocapture`: a Debian
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
