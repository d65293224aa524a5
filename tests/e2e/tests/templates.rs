//! Boot templates: the next machine of the same kind goes on where an earlier one has booted, and
//! is a machine of its own all the same.

use e2e::{Ends, Session, code, command, debian, own_cache, text};
use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

const BOOT: Duration = Duration::from_secs(120);

/// A cache of a test's own.
struct Cache(PathBuf);

impl Cache {
    fn new() -> Self {
        Self(own_cache())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("XDG_CACHE_HOME", &self.0);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("gemello starts")
    }

    /// What `script` says in a guest of these `options`.
    fn says(&self, options: &[&str], script: &str) -> String {
        let words = [&["run", "busybox"], options, &["--", "sh", "-c", script]].concat();
        let output = self.run(&words);
        assert_eq!(code(&output), 0, "{options:?}: {}", text(&output.stderr));
        assert!(output.stderr.is_empty(), "{options:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn templates(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join("gemello/templates")).into_iter().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    }
}

/// When the guest's kernel was done with itself: the same in all that go on from one boot.
const BOOTED: &str = "dmesg | sed -n 's/^\\[ *\\([0-9.]*\\)\\] Run .init as init.*/\\1/p'";

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|metadata| metadata.modified()).expect("it is there")
}

#[test]
fn the_next_machine_goes_on_from_an_earlier_boot() {
    let (_turn, cache) = (debian("cloud"), Cache::new());
    let booted = cache.says(&[], BOOTED);
    let [template] = &cache.templates()[..] else { panic!("{:?}", cache.templates()) };
    let mode = fs::metadata(template.parent().expect("a folder")).expect("it").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "memory holds secrets");
    // It has booted before, and has a name, a network, a command and a time of its own.
    let script = format!(
        "{BOOTED}; cat /sys/class/net/eth0/address /proc/sys/kernel/random/boot_id; \
         head -c 16 /dev/urandom | od -An -tx1; ip -4 -o addr show eth0 | grep -c 10.0; \
         echo $WHO; date +%s"
    );
    let mut said = Vec::new();
    for name in ["one", "two"] {
        let told = cache.says(&["--name", name], &script.replace("$WHO", name));
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let lines: Vec<String> = told.lines().map(str::to_owned).collect();
        let [first, _, _, _, net, who, seconds] = &lines[..] else { panic!("{told}") };
        assert_eq!((first.trim(), &**net, &**who), (booted.trim(), "1", name), "{told}");
        let seconds: u64 = seconds.parse().expect("a number");
        assert!(now.abs_diff(seconds) <= 2, "the guest says {seconds}, the host {now}");
        said.push(lines);
    }
    for (line, what) in [(1, "MAC"), (2, "boot"), (3, "random number")] {
        assert_ne!(said[0][line], said[1][line], "one {what} for two machines");
    }
    assert_eq!(cache.templates(), std::slice::from_ref(template));
    // Another machine is none of these, and is no longer one from the second time on.
    let memory = "sed -n 's/^MemTotal: *//p' /proc/meminfo";
    let small = cache.says(&["--memory", "300M"], memory);
    assert_eq!(cache.templates().len(), 2);
    assert_eq!(cache.says(&["--memory", "300M"], memory), small);
    assert_ne!(cache.says(&[], memory), small);
    assert_eq!(cache.templates().len(), 2);
}

#[test]
fn one_that_is_of_no_use_is_replaced() {
    let (_turn, cache) = (debian("cloud"), Cache::new());
    let booted = cache.says(&[], BOOTED);
    let [template] = &cache.templates()[..] else { panic!("{:?}", cache.templates()) };
    let whole = fs::metadata(template).expect("there").len();
    let file = || fs::File::options().write(true).open(template).expect("a file");
    let damages: [(&str, &dyn Fn()); 3] = [
        ("cut", &|| file().set_len(whole / 2).expect("cut")),
        ("changed", &|| file().write_all_at(b"changed", whole / 2).expect("changed")),
        ("empty", &|| file().set_len(0).expect("emptied")),
    ];
    let mut last = booted;
    for (how, damage) in damages {
        damage();
        // Booted in its place; what was damaged inside is seen only when the machine is there.
        assert_ne!(cache.says(&[], BOOTED), last, "{how}");
        let now = cache.says(&[], BOOTED);
        assert_eq!(cache.says(&[], BOOTED), now, "{how}");
        last = now;
    }
    // One that is not wanted is not touched.
    let before = modified(template);
    assert_ne!(cache.says(&["--cold"], BOOTED), last);
    assert_eq!((cache.templates(), modified(template)), (vec![template.clone()], before));
    let listed = cache.run(&["images"]);
    assert!(text(&listed.stdout).contains("earlier boots to go on from: 1, "));
    // A folder that cannot be written costs nothing but time.
    let pruned = cache.run(&["prune"]);
    assert_eq!(code(&pruned), 0, "{}", text(&pruned.stderr));
    assert!(cache.templates().is_empty() && text(&pruned.stdout).contains("MiB freed"));
    fs::remove_dir(cache.0.join("gemello/templates")).expect("it is empty");
    fs::write(cache.0.join("gemello/templates"), b"no folder").expect("a file");
    cache.says(&[], "true");
}

#[test]
fn a_shell_from_a_template_begins_anew() {
    let (_turn, cache) = (debian("cloud"), Cache::new());
    for round in 0..2 {
        let shell = cache.command(&["run", "busybox", "--vcpus", "2", "--timeout", "5m"]);
        let (mut session, _terminal) = Session::on_terminal(&shell, &Ends::default());
        session.expect("# ", BOOT);
        session.send("echo mark > /m; echo cpus $(nproc)\n");
        session.expect("cpus 2", BOOT);
        session.send("\u{1}r");
        session.expect("the machine begins anew", BOOT);
        session.expect("# ", BOOT);
        session.send("ls /m; echo cpus $(nproc)\n");
        session.expect("No such file", BOOT);
        session.expect("cpus 2", BOOT);
        session.send("poweroff\n");
        assert_eq!(session.finish(BOOT).0, 0, "round {round}");
        assert_eq!(cache.templates().len(), 1);
    }
}

/// What is typed while the guest boots is for that guest.
#[test]
fn what_is_typed_early_is_not_kept() {
    let (_turn, cache) = (debian("cloud"), Cache::new());
    for words in ["echo e'a'rly; poweroff\n", "echo la't'e; poweroff\n"] {
        let mut session = Session::start(cache.command(&["run", "busybox"]));
        session.send(words);
        let (status, transcript) = session.finish(BOOT);
        assert_eq!(status, 0, "{transcript}");
        let said = |word: &str| transcript.lines().any(|line| line.trim() == word);
        assert_eq!((said("early"), said("late")), (words.contains("rly"), words.contains("la")));
        assert_eq!(cache.templates().len(), 1);
    }
}
