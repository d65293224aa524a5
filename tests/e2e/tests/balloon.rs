//! Memory that a guest gives back, by Debian's own driver: the host's memory follows.

use e2e::{Session, command, debian, scratch, text};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const BOOT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A machine of 512 MiB with a balloon, and where its control socket is.
struct Machine {
    session: Session,
    folder: PathBuf,
}

/// A folder for control sockets.
fn folder(name: &str) -> PathBuf {
    let folder = scratch(name, b"").with_extension("runtime");
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("mine");
    folder
}

impl Machine {
    /// Called `name`, with `options` besides.
    fn new(name: &str, options: &[&str]) -> Self {
        let folder = folder(name);
        let mut run = command(&["run", "busybox", "--balloon", "--name", name, "--timeout", "5m"]);
        run.args(options).env("XDG_RUNTIME_DIR", &folder);
        let mut session = Session::start(run);
        session.expect("# ", BOOT);
        Self { session, folder }
    }

    fn gemello(&self, arguments: &[&str]) -> String {
        let mut command: Command = command(arguments);
        let output = command.env("XDG_RUNTIME_DIR", &self.folder).output().expect("it starts");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Bytes of the guest's memory that are in the host's.
    fn resident(&self) -> u64 {
        let machines = self.gemello(&["ps", "--json"]);
        let (_, after) = machines.split_once("\"resident\": ").expect("it is told");
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    /// Waits until `there` is true of what is resident.
    fn wait(&self, what: &str, there: impl Fn(u64) -> bool) -> u64 {
        let deadline = Instant::now() + SOON;
        loop {
            let resident = self.resident();
            if there(resident) {
                return resident;
            }
            assert!(Instant::now() < deadline, "{what}: {} MiB are resident", resident / MIB);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Has the guest do `command`.
    fn has(&mut self, command: &str) {
        self.session.send(&format!("{command}; echo \"d\"one\n"));
        self.session.expect("done\r", SOON);
    }
}

/// A guest with a file in its memory, taken to half, and back: the host's memory follows.
fn to_half_and_back(name: &str, options: &[&str]) {
    let _turn = debian("cloud");
    let mut machine = Machine::new(name, options);
    // Memory that is in use, in the page cache, and not reported as free.
    machine.has("mkdir /m; mount -t tmpfs -o size=450m m /m");
    machine.has("dd if=/dev/zero of=/m/f bs=1M count=100");
    let told = machine.gemello(&["balloon", name, "256M"]);
    assert!(told.contains("the guest is to keep") && told.contains("256M"), "{told}");
    machine.wait("half", |resident| resident <= 256 * MIB * 110 / 100);
    let keeps = |machine: &Machine, size: &str| {
        let deadline = Instant::now() + SOON;
        loop {
            let told = machine.gemello(&["balloon", name]);
            let line = told.lines().find(|line| line.starts_with("the guest keeps"));
            if line.is_some_and(|line| line.ends_with(size)) {
                return told;
            }
            assert!(Instant::now() < deadline, "{told}");
        }
    };
    let told = keeps(&machine, " 256M");
    assert!(told.lines().any(|line| line.starts_with("  available") && line.ends_with('M')));
    machine.gemello(&["balloon", name, "512M"]);
    keeps(&machine, " 512M");
    // The guest has its memory again, and what it kept is as it was.
    machine.has("dd if=/dev/zero of=/m/g bs=1M count=250");
    machine.wait("back", |resident| resident >= 350 * MIB * 9 / 10);
    machine.session.send("cmp -n 104857600 /m/f /dev/zero && echo \"s\"ame\n");
    machine.session.expect("same", SOON);
    machine.session.send("poweroff\n");
    assert_eq!(machine.session.finish(SOON).0, 0);
}

#[test]
fn the_hosts_memory_follows_to_half_and_back() {
    to_half_and_back("half", &[]);
}

#[test]
#[ignore = "second step: with a pager"]
fn it_follows_under_a_pager_too() {
    to_half_and_back("paged", &["--resident", "384M", "--transport", "mmio"]);
}

/// Free page reporting: nobody asks for anything.
#[test]
fn what_the_guest_frees_comes_back_by_itself() {
    let _turn = debian("cloud");
    let mut machine = Machine::new("frees", &[]);
    machine.has("mkdir /m; mount -t tmpfs -o size=450m m /m");
    let before = machine.resident();
    machine.has("dd if=/dev/zero of=/m/f bs=1M count=300");
    machine.wait("full", |resident| resident >= 300 * MIB);
    machine.has("rm /m/f");
    machine.wait("freed", |resident| resident <= before + 40 * MIB);
    machine.session.send("poweroff\n");
    assert_eq!(machine.session.finish(SOON).0, 0);
}

#[test]
fn a_machine_without_one_says_so() {
    let _turn = debian("cloud");
    let folder = folder("none");
    let mut run = command(&["run", "busybox", "--name", "none", "--timeout", "60"]);
    run.env("XDG_RUNTIME_DIR", &folder);
    let mut session = Session::start(run);
    session.expect("# ", BOOT);
    let mut ask = command(&["balloon", "none"]);
    let refused = ask.env("XDG_RUNTIME_DIR", &folder).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("no balloon; start it with --balloon"));
    session.send("poweroff\n");
    assert_eq!(session.finish(SOON).0, 0);
}
