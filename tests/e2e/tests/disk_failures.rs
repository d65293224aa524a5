//! What fails on the host while a machine runs: its disk is full, a file is sealed, cut short or
//! limited, its cache cannot be written. The guest finds an error of its disk and goes on; the user
//! is told which file it is, and what to do.

use e2e::{Session, debian, gemello, scratch, succeeds};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Resource, Rlimit, prlimit};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BOOT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
/// Bytes of each disk.
const BYTES: u64 = 32 << 20;

/// A machine whose disks are in trouble.
struct Machine {
    session: Session,
    /// What gemello says to its user.
    errors: PathBuf,
}

impl Machine {
    /// Starts `command`, with `disks`.
    fn start(mut command: Command, disks: &[String]) -> Self {
        let errors = scratch("errors.txt", b"");
        command.args(["run", "busybox", "--timeout", "5m"]);
        for disk in disks {
            command.args(["--disk", disk]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(&errors).expect("a file"));
        let mut child = command.spawn().expect("it starts");
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut session = Session::over(child, input.expect("piped"), output.expect("piped"));
        session.expect("# ", BOOT);
        // The kernel's messages would stand in the middle of the answers.
        session.send("dmesg -n 1; echo \"qui\"et\n");
        session.expect("quiet\r", SOON);
        Self { session, errors }
    }

    /// Whether the guest's `command` succeeds.
    fn does(&mut self, command: &str) -> bool {
        self.session.send(&format!("{command}; echo \"st\"atus $?.\n"));
        let (said, _) = self.session.expect("status ", SOON);
        let (status, _) = self.session.expect(".", SOON);
        println!("{command}: {status} {said}");
        status == "0."
    }

    /// Whether the guest can write `count` MiB of `disk`, from MiB `from`, with a flush.
    fn writes(&mut self, disk: &str, from: u64, count: u64) -> bool {
        let dd = format!("dd of=/dev/{disk} bs=1M seek={from} count={count} iflag=fullblock");
        self.does(&format!("yes abcdefg | {dd} conv=fsync"))
    }

    /// Whether the guest reads a MiB of `disk`, from MiB `from`, from the disk itself.
    fn reads(&mut self, disk: &str, from: u64) -> bool {
        let drop_caches = "echo 3 >/proc/sys/vm/drop_caches";
        self.does(&format!("{drop_caches}; dd if=/dev/{disk} of=/x bs=1M skip={from} count=1"))
    }

    /// Waits until the user has been told this of `disk`.
    fn told(&self, disk: &Path, pieces: &[&str]) {
        let begin = format!("gemello: the disk {}", disk.display());
        let deadline = Instant::now() + SOON;
        loop {
            let said = fs::read_to_string(&self.errors).expect("text");
            let mut lines = said.lines().filter(|line| line.starts_with(&begin));
            if lines.any(|line| pieces.iter().all(|piece| line.contains(piece))) {
                return;
            }
            assert!(Instant::now() < deadline, "{begin}: no {pieces:?} in {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ends(mut self) {
        self.session.send("poweroff\n");
        let (status, said) = self.session.finish(SOON);
        assert_eq!(status, 0, "{said}");
    }
}

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = scratch("beside", b"").with_file_name(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("a folder");
    path
}

/// An empty disk.
fn image(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let mut create = Command::new("qemu-img");
    let format = path.extension().and_then(|extension| extension.to_str()).expect("a format");
    succeeds(create.args(["create", "-q", "-f", format]).arg(&path).arg(BYTES.to_string()));
    path
}

/// An option that has `path` used as what its name ends with.
fn disk(path: &Path) -> String {
    let name = path.to_str().expect("text");
    format!("{name},format={}", name.rsplit('.').next().expect("a format"))
}

/// The command that has gemello's `place` hold the files of `from` and 6 MiB more. `None`: this
/// host allows no mount.
fn in_a_small_place(place: &Path, from: &Path) -> Option<Command> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-c"]);
        unshare
    };
    let may = unshare().arg("mount -t tmpfs none /mnt").output().expect("unshare");
    if !may.status.success() {
        assert!(std::env::var_os("CI").is_none(), "the host of CI lets root mount");
        return None;
    }
    let mut command = unshare();
    command.arg(
        "mount -t tmpfs -o size=8m none \"$0\" && cp --sparse=always \"$1\"/* \"$0\" && \
         head -c 2M /dev/zero >\"$0\"/ballast && shift && exec \"$@\"",
    );
    command.arg(place).arg(from).arg(gemello());
    Some(command)
}

#[test]
fn a_full_disk_of_the_hosts_is_an_error_of_the_guests() {
    let _turn = debian("cloud");
    let (place, from) = (folder("place"), folder("from"));
    for name in ["a.raw", "b.qcow2"] {
        image(&from, name);
    }
    let Some(mut command) = in_a_small_place(&place, &from) else { return };
    let (library, flag) = (place.with_file_name("flushes.so"), place.with_file_name("failing"));
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&library);
    succeeds(compile.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/host/flushes.c")));
    command.env("LD_PRELOAD", &library).env("FAILING_FLUSHES", &flag);
    let (raw, qcow2) = (place.join("a.raw"), place.join("b.qcow2"));
    let mut machine = Machine::start(command, &[disk(&raw), disk(&qcow2)]);
    let there = PathBuf::from(format!("/proc/{}/root", machine.session.pid().as_raw_nonzero()));
    let there = there.join(place.strip_prefix("/").expect("a path"));

    assert!(machine.writes("vda", 0, 1) && machine.writes("vdb", 0, 1));
    assert!(!machine.writes("vda", 1, 12), "the raw disk has no room");
    machine.told(&raw, &["No space left", "make room on the host"]);
    assert!(!machine.writes("vdb", 1, 12), "nor has the other");
    machine.told(&qcow2, &["No space left", "make room on the host"]);
    assert!(machine.reads("vda", 0) && machine.reads("vdb", 0), "the guest goes on");
    fs::remove_file(there.join("ballast")).expect("it is there");
    assert!(machine.writes("vda", 0, 1) && machine.writes("vdb", 14, 1), "there is room again");

    fs::write(&flag, b"").expect("a file");
    assert!(!machine.writes("vda", 0, 1) && !machine.writes("vdb", 0, 1), "a flush fails");
    for disk in [&raw, &qcow2] {
        machine.told(disk, &["could not write what its cache held", "check its file systems"]);
    }
    fs::remove_file(&flag).expect("it is there");
    assert!(!machine.writes("vda", 0, 1) && !machine.writes("vdb", 0, 1), "so do all after it");
    assert!(machine.reads("vda", 0) && machine.reads("vdb", 14), "the guest goes on");
    let copy = place.with_file_name("copy.qcow2");
    fs::copy(there.join("b.qcow2"), &copy).expect("a copy");
    succeeds(Command::new("qemu-img").arg("check").arg(&copy));
    machine.ends();
}

/// A file without a name, which is given to gemello and can be sealed; and its path there.
fn nameless(content: &Path) -> (OwnedFd, PathBuf) {
    let file = memfd_create("disk", MemfdFlags::ALLOW_SEALING).expect("a file");
    let mut writer = File::from(file.try_clone().expect("a descriptor"));
    writer.write_all(&fs::read(content).expect("an image")).expect("written");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    (file, path)
}

#[test]
fn a_file_that_is_sealed_cut_or_limited_is_an_error_of_the_guests_disk() {
    let _turn = debian("cloud");
    let folder = folder("files");
    let [raw, qcow2, cut_raw, cut_qcow2, limited] =
        ["a.raw", "b.qcow2", "c.raw", "d.qcow2", "e.raw"].map(|name| image(&folder, name));
    let [(sealed_raw, raw), (sealed_qcow2, qcow2)] = [&raw, &qcow2].map(|path| nameless(path));
    let disks = [
        format!("{},format=raw", raw.display()),
        format!("{},format=qcow2", qcow2.display()),
        disk(&cut_raw),
        disk(&cut_qcow2),
        disk(&limited),
    ];
    let mut machine = Machine::start(Command::new(gemello()), &disks);
    for disk in ["vda", "vdb", "vdc", "vdd", "vde"] {
        assert!(machine.writes(disk, 1, 1), "{disk}");
    }
    for file in [&sealed_raw, &sealed_qcow2] {
        fcntl_add_seals(file, SealFlags::WRITE).expect("sealed");
    }
    for (disk, path) in [("vda", &raw), ("vdb", &qcow2)] {
        assert!(!machine.writes(disk, 1, 1), "{disk}");
        machine.told(path, &["not permitted", "permit the file again"]);
        assert!(machine.reads(disk, 1), "{disk}");
    }

    for (disk, path) in [("vdc", &cut_raw), ("vdd", &cut_qcow2)] {
        let file = File::options().write(true).open(path).expect("there");
        let size = file.metadata().expect("there").len();
        file.set_len(size / 64).expect("cut");
        assert!(!machine.reads(disk, 1), "{disk}");
        machine.told(path, &["give the file its old size back"]);
        file.set_len(size).expect("as long as before");
        assert!(machine.reads(disk, 1), "{disk}");
    }

    let pid = Some(machine.session.pid());
    let limit = |bytes| Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::Fsize, limit(Some(16 << 20))).expect("set");
    assert!(!machine.writes("vde", 20, 1));
    machine.told(&limited, &["File too large", "ulimit -f"]);
    assert!(machine.writes("vde", 2, 1));
    prlimit(pid, Resource::Fsize, limit(None)).expect("set");
    assert!(machine.writes("vde", 20, 1));
    machine.ends();
}
