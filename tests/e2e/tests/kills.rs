//! gemello killed at random moments while a guest's file system is synced all the time, by SQLite
//! and by a program that writes files: the file system and the database are whole, and every record
//! that was acknowledged is there.
//!
//! `KILLS=100` kills so often, and tells what it found.

use e2e::{Initramfs, Session, cache, command, debian, packages, scratch, succeeds, text};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use test_support::Rng;

/// SQLite's shell and what it is linked with.
const PACKAGES: [&str; 6] =
    ["sqlite3", "libsqlite3-0", "libreadline8", "libtinfo6", "zlib1g", "libc6"];

/// What process 1 goes on with, after `mode` is set. Files: one for each record, synced before it
/// is acknowledged; every third goes again. Rows: each is a transaction, synced likewise.
const INIT: &str = r#"
busybox mount -t ext4 /dev/vda /mnt || echo =nomount
files() {
    n=0
    while true; do
        busybox dd if=/dev/zero of=/mnt/file$n bs=512 count=$((1 + n % 9)) conv=fsync 2>/dev/null &&
            busybox sync /mnt && echo "=file $n."
        [ $((n % 3)) = 2 ] && busybox rm /mnt/file$((n - 1))
        n=$((n + 1))
    done
}
rows() {
    echo "pragma journal_mode=$mode; pragma synchronous=extra; create table t(n integer, pad text);"
    n=0
    while true; do
        echo "insert into t values($n, hex(zeroblob($n % 1500))); select '=row $n.';"
        n=$((n + 1))
    done
}
files &
rows | sqlite3 /mnt/db
"#;

/// The last record of a `kind` that was acknowledged in `output`, if one was.
fn acknowledged(output: &str, kind: &str) -> Option<u64> {
    output.rsplit(&format!("={kind} ")).find_map(|rest| rest.split_once('.')?.0.parse().ok())
}

/// What a run's disk and database are.
#[derive(Clone, Copy, Debug)]
struct Run {
    qcow2: bool,
    mode: &'static str,
}

impl Run {
    /// Runs take turns at all four ways.
    fn new(number: u64) -> Self {
        let mode = if (number ^ number >> 1) & 1 == 0 { "delete" } else { "wal" };
        Self { qcow2: number % 2 == 1, mode }
    }

    /// How many records were acknowledged, files and rows, and are there after all.
    fn play(self, initrd: &Path, delay: Duration) -> [u64; 2] {
        let image = scratch("kill.raw", b"");
        fs::OpenOptions::new()
            .write(true)
            .open(&image)
            .and_then(|f| f.set_len(32 << 20))
            .expect("set");
        succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let over = image.with_file_name("kill.qcow2");
        if self.qcow2 {
            let mut convert = Command::new("qemu-img");
            succeeds(convert.args(["convert", "-O", "qcow2"]).arg(&image).arg(&over));
        }
        let disk = match self.qcow2 {
            true => over.display().to_string(),
            false => format!("{},format=raw", image.display()),
        };
        let mut start = command(&["run", "--vcpus", "2", "--timeout", "5m", "--kernel"]);
        start.arg(cache().join("cloud/vmlinuz")).arg("--initrd").arg(initrd);
        start.args(["--cmdline", "console=ttyS0 quiet panic=-1", "--disk", &disk]);
        let mut session = Session::start(start);
        session.expect("=row 0.", Duration::from_secs(120));
        std::thread::sleep(delay);
        session.signal(rustix::process::Signal::KILL);
        let (_, output) = session.finish(Duration::from_secs(60));
        if self.qcow2 {
            succeeds(Command::new("qemu-img").arg("check").arg(&over));
            let mut convert = Command::new("qemu-img");
            succeeds(convert.args(["convert", "-O", "raw"]).arg(&over).arg(&image));
        }
        // The journal is replayed as the next boot would; the rest has to be right as it is.
        let _ = Command::new("e2fsck").args(["-fy", "-E", "journal_only"]).arg(&image).output();
        succeeds(Command::new("e2fsck").arg("-fn").arg(&image));
        let found = image.with_file_name("found");
        let _ = fs::remove_dir_all(&found);
        fs::create_dir(&found).expect("a folder");
        let mut dump = Command::new("debugfs");
        succeeds(dump.arg("-R").arg(format!("rdump / {}", found.display())).arg(&image));
        [self.files(&output, &found), self.rows(&output, &found)]
    }

    /// That the files which were acknowledged are in the folder `found`. How many they are.
    fn files(self, output: &str, found: &Path) -> u64 {
        let Some(last) = acknowledged(output, "file") else { return 0 };
        for n in 0..=last {
            // What the guest removes may be there still, if the removal was not synced; and it may
            // have come further than it was heard to say.
            let removed = n % 3 == 1;
            let size = fs::metadata(found.join(format!("file{n}"))).map(|file| file.len());
            let whole = size.is_ok_and(|size| size == 512 * (1 + n % 9));
            assert!(whole || removed, "{self:?}: file {n} of {last} is lost");
        }
        last + 1
    }

    /// That the rows which were acknowledged are in the database. How many they are.
    fn rows(self, output: &str, found: &Path) -> u64 {
        let last = acknowledged(output, "row").expect("the first one was seen");
        let query = format!(
            "pragma integrity_check; \
             select count(*), sum(length(pad) = 2 * (n % 1500)) from t where n <= {last}"
        );
        let output = Command::new("sqlite3").arg(found.join("db")).arg(query).output();
        let output = output.expect("sqlite3");
        let (rows, said) = (last + 1, text(&[output.stdout, output.stderr].concat()));
        assert_eq!(said, format!("ok\n{rows}|{rows}\n"), "{self:?}");
        rows
    }
}

#[test]
#[ignore = "second step: two kills; KILLS=100 for more"]
fn a_disk_is_whole_after_a_kill_at_any_moment() {
    let _turn = debian("cloud");
    let kills = test_support::setting("KILLS").unwrap_or(2);
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = packages(&place.join("sqlite"), &PACKAGES);
    let initrd = ["delete", "wal"].map(|mode| {
        // ext4 is built into Debian's kernels.
        let mut initramfs = Initramfs::new(env!("CARGO_TARGET_TMPDIR"));
        initramfs.tree(&root);
        let file = initramfs.file(&format!("mode={mode}\n{INIT}"));
        let named = file.with_file_name(format!("initrd-{mode}"));
        fs::rename(&file, &named).expect("a rename");
        named
    });
    let mut random = Rng::new(test_support::setting("KILLS_SEED").unwrap_or(1));
    let (mut files, mut rows) = (0, 0);
    for number in 0..kills {
        let run = Run::new(number);
        let initrd = &initrd[usize::from(run.mode == "wal")];
        let [f, r] = run.play(initrd, Duration::from_millis(random.below(1500)));
        (files, rows) = (files + f, rows + r);
        println!("{} kills, {files} files, {rows} rows", number + 1);
    }
}
