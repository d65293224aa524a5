//! Folders of the host's in a guest, with Debian's own driver.

use e2e::{Session, code, command, compile, debian, debian_alone, gemello, run, scratch, text};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);

/// An empty folder, and its name.
fn folder(name: &str) -> (PathBuf, String) {
    let path = scratch("beside", b"").with_file_name(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("a folder");
    let name = path.to_str().expect("text").to_owned();
    (path, name)
}

/// Runs `script` in Debian with `shares`. The status and the output.
fn guest(shares: &[&str], script: &str) -> (i32, String) {
    guest_with(shares, script, &[])
}

/// As [`guest`], with `more` options.
fn guest_with(shares: &[&str], script: &str, more: &[&str]) -> (i32, String) {
    let mut arguments = vec!["run", "busybox", "--timeout", "10m"];
    arguments.extend(more);
    shares.iter().for_each(|share| arguments.extend(["--share", share]));
    arguments.extend(["--", "sh", "-c", script]);
    let output = run(&arguments);
    (code(&output), text(&output.stdout) + &text(&output.stderr))
}

/// The suite is a program in the share itself.
#[test]
fn files_are_as_posix_says_for_root_and_for_a_user() {
    let _turn = debian("cloud");
    let (root, roots) = folder("roots");
    let (user, users) = folder("users");
    for place in [&root, &user] {
        compile("share", &place.join("share"));
        fs::set_permissions(place, PermissionsExt::from_mode(0o777)).expect("set");
    }
    let users = format!("{users}:u,owner=1000");
    let script = "cd /mnt/roots && ./share 0 && cd /mnt/u && ./share 1000";
    let (status, said) = guest(&[&roots, &users], script);
    assert_eq!(status, 0, "{said}");
    assert_eq!(said.matches(" 0 wrong").count(), 2, "{said}");
    assert!(root.join("suite-0/big").is_file() && user.join("suite-1000/big").is_file());
}

#[test]
fn a_read_only_share_stays_as_it_is_and_nothing_leads_out() {
    let _turn = debian("cloud");
    let (path, name) = folder("ro");
    fs::write(path.join("file"), "content").expect("written");
    fs::write(path.with_extension("secret"), "secret").expect("written");
    symlink("../ro.secret", path.join("out")).expect("made");
    symlink(path.with_extension("secret"), path.join("absolute")).expect("made");
    let script = "cd /mnt/tag; cat file; mount -o remount,rw /mnt/tag; rm file; echo x > file; \
        echo x > new; chmod 777 file; mkdir d; cat out; cat absolute; cat ../ro.secret; \
        cat /mnt/tag/../../ro.secret; grep -c ' /mnt/tag virtiofs rw,nosuid,nodev' /proc/mounts";
    let (status, said) = guest(&[&format!("{name}:tag,ro")], script);
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with("content") && !said.contains("secret\n"), "{said}");
    assert!(said.matches("Read-only file system").count() >= 4, "{said}");
    assert_eq!(fs::read_to_string(path.join("file")).expect("there"), "content");
    assert_eq!(fs::read_dir(&path).expect("a folder").count(), 3);
}

/// A guest that has files open, one of them without a name, goes on with them.
#[test]
fn a_restored_guest_goes_on_with_its_files() {
    let _turn = debian("cloud");
    let (path, name) = folder("kept");
    let file = path.with_extension("gm");
    let saved = file.to_str().expect("text");
    let arguments = ["run", "busybox", "--timeout", "5m", "--share", &name, "--save", saved];
    let mut session = Session::start(command(&arguments));
    session.expect("# ", LONG);
    session.send("mkdir -p /mnt/kept/d; cd /mnt/kept/d; exec 7>>log 8>gone; rm gone\n");
    session.send("echo before >&7; (while :; do echo x >&7; done) & echo \"r\"eady\n");
    session.expect("ready", LONG);
    session.signal(Signal::USR1);
    let deadline = Instant::now() + LONG;
    while !file.exists() {
        assert!(Instant::now() < deadline, "it is not saved");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(session);

    let mut session = Session::start(command(&["restore", saved, "--timeout", "5m"]));
    session.send("kill $!; echo after >&7; tail -n 1 log; echo x >&8; ls; pwd\n");
    session.expect("after", LONG);
    session.expect("Input/output error", LONG);
    session.expect("/mnt/kept/d", LONG);
    session.send("poweroff\n");
    let (status, said) = session.finish(LONG);
    assert_eq!(status, 0, "{said}");
    let log = fs::read_to_string(path.join("d/log")).expect("there");
    assert!(log.starts_with("before\nx\n") && log.ends_with("after\n"));
    assert!(!log.contains('\0'));
    fs::remove_file(&file).expect("it is there");
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let (path, name) = folder("refused");
    fs::write(path.join("file"), "").expect("written");
    for (shares, expected) in [
        (vec![format!("{name}/none")], "No such file or directory"),
        (vec![format!("{name}/file:a")], "Not a directory"),
        (vec![format!("{name}:a/b")], "cannot be called \"a/b\""),
        (vec![format!("{name}:a"), format!("{name}:a")], "two shared folders are called \"a\""),
        (vec![format!("{name},rw")], "no option is called rw"),
        (vec![format!("{name},owner=root")], "owner is me"),
    ] {
        let mut arguments = vec!["run", "busybox"];
        shares.iter().for_each(|share| arguments.extend(["--share", share]));
        let output = run(&arguments);
        assert_eq!(code(&output), 2, "{shares:?}");
        assert!(text(&output.stderr).contains(expected), "{shares:?}: {}", text(&output.stderr));
    }
    let output = run(&["run", "busybox", "--deterministic", "--share", &name]);
    assert!(text(&output.stderr).contains("no shared folders"), "{}", text(&output.stderr));
}

/// The host's own programs, from a share of its root that the guest can only read.
fn with_the_hosts_programs(
    work: &Path,
    share: &str,
    job: &str,
    as_user: &str,
    more: &[&str],
) -> (i32, String) {
    fs::write(work.join("job"), job).expect("written");
    let script = format!(
        "h=/mnt/host; mount -t proc proc $h/proc; mount --bind /dev $h/dev; \
         mount -t tmpfs tmpfs $h/tmp; chmod 1777 $h/tmp; mkdir $h/tmp/w; \
         mount --bind /mnt/work $h/tmp/w; \
         HOME=/tmp PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
         exec chroot $h {as_user} /bin/sh -e /tmp/w/job"
    );
    guest_with(&["/:host,ro", share], &script, more)
}

#[test]
#[ignore = "second step: git, tar, make, cc and sqlite3, as root and as a user"]
fn the_hosts_programs_work_in_a_share() {
    const JOB: &str = r#"
        cd /tmp/w
        git init -q repo
        cd repo
        git config user.email a@b
        git config user.name n
        for i in 1 2 3; do echo $i > file-$i; git add .; git commit -qm $i; done
        git gc -q
        git fsck
        test -z "$(git status --short)"
        git clone -q . ../clone
        test "$(git -C ../clone log --oneline | wc -l)" = 3
        cd ..
        tar cf repo.tar repo
        mkdir out
        tar xf repo.tar -C out
        diff -r repo out/repo
        for mode in delete wal; do
            sqlite3 -cmd '.timeout 60000' db "pragma journal_mode=$mode"
            sqlite3 -cmd '.timeout 60000' db 'create table if not exists t(a)'
            for i in 1 2 3 4 5; do
                sqlite3 -cmd '.timeout 60000' db "insert into t values($i)" &
            done
            wait
            sqlite3 -cmd '.timeout 60000' db 'select count(*) from t; pragma integrity_check'
        done
        mkdir made
        cd made
        printf 'int main(void) { return 7; }' > a.c
        printf 'a: a.c\n\tcc -o a a.c\n' > Makefile
        make
        ./a || echo status $?
        make
        cd ..
        rm -rf repo clone out made repo.tar db*
    "#;
    let _turn = debian_alone("cloud");
    for (owner, as_user) in
        [("me", ""), ("1000", "/usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups")]
    {
        let (path, name) = folder("work");
        let share = format!("{name},owner={owner}");
        let (status, said) = with_the_hosts_programs(&path, &share, JOB, as_user, &[]);
        assert_eq!(status, 0, "{said}");
        for expected in ["status 7", "'a' is up to date", "ok"] {
            assert!(said.contains(expected), "{said}");
        }
        assert!(!said.contains("dubious"), "{said}");
        assert_eq!(fs::read_dir(&path).expect("a folder").count(), 1, "all is removed but the job");
    }
}

/// The guest goes for long by what it knows, and hears of what the host changes.
#[test]
fn a_guest_that_knows_many_files_hears_of_changes() {
    const SCRIPT: &str = "cd /mnt/heard; \
        look() { cat d6/late 2> /tmp/none; find . -type f -exec stat -c %s {} +; }; \
        look | wc -l; read go; look > /tmp/a; look > /tmp/a; echo known; \
        for i in 1 2 3; do sleep 1.2; look > /tmp/a; done; echo waits; \
        read go; sleep 1; stat -c %s d0/1; ls d1/; cat d2/2; ls d3 d4; stat -c %a d5; \
        cat d6/late; ls d7 | wc -l; echo done; sleep 1000";
    let _turn = debian("cloud");
    let (path, name) = folder("heard");
    for d in 0..10 {
        fs::create_dir(path.join(format!("d{d}"))).expect("a folder");
        (0..40).for_each(|f| fs::write(path.join(format!("d{d}/{f}")), "x").expect("a file"));
    }
    let table = scratch("heard-table", b"");
    let mut machine = Command::new(gemello());
    machine.args(["run", "busybox", "--stats", "--timeout", "5m", "--share", &name]);
    machine.args(["--", "sh", "-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = machine.stderr(File::create(&table).expect("a file")).spawn().expect("run");
    let watches = format!("/proc/{}/fd", child.id());
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let mut session = Session::over(child, input.expect("piped"), output.expect("piped"));
    session.expect("400\n", LONG);
    let deadline = Instant::now() + LONG;
    let watches = || {
        let mut open = fs::read_dir(&watches).expect("it runs").flatten();
        open.any(|fd| fs::read_link(fd.path()).is_ok_and(|it| it.ends_with("anon_inode:inotify")))
    };
    while !watches() {
        assert!(Instant::now() < deadline, "nothing is watched");
        std::thread::sleep(Duration::from_millis(20));
    }
    session.send("\n");
    session.expect("waits\n", LONG);
    fs::write(path.join("d0/1"), "longer").expect("written");
    (1..40).for_each(|f| fs::remove_file(path.join(format!("d1/{f}"))).expect("removed"));
    fs::write(path.join("d2/new"), "replaced").expect("written");
    fs::rename(path.join("d2/new"), path.join("d2/2")).expect("renamed");
    fs::rename(path.join("d3"), path.join("d4/moved")).expect("renamed");
    fs::set_permissions(path.join("d5"), PermissionsExt::from_mode(0o711)).expect("set");
    // A name that the guest has looked for in vain, and one that it has not.
    fs::write(path.join("d6/late"), "is here\n").expect("written");
    fs::write(path.join("d7/more"), "").expect("written");
    session.send("\n");
    let (said, _) = session.expect("done\n", LONG);
    session.signal(Signal::TERM);
    assert_eq!(session.finish(LONG).0, 143);
    let table = fs::read_to_string(table).expect("text");
    for expected in ["6\n0\nreplaced", "d4:\n", "\nmoved\n", "\n711\nis here\n41\ndone"] {
        assert!(said.contains(expected), "{expected:?}: {said}{table}");
    }
    assert!(!said.contains("d3:"), "{said}");
    let of = |name: &str| {
        let line = table.lines().find(|line| line.trim().starts_with(name)).expect(name);
        line.split([' ', ',']).find_map(|word| word.parse::<u64>().ok()).expect(name)
    };
    assert!(of("requests") < 1500, "each look asked: {table}");
}

/// Prints how long `git status` of a tree as large as Linux's takes on the host and in guests.
#[test]
#[ignore = "by hand: cargo test -p e2e git_status -- --ignored --nocapture"]
fn git_status_of_a_large_tree_by_hand() {
    const MAKE: &str = "git init -q . && git add . && \
        git -c user.name=n -c user.email=e@e commit -qm x && git status --short";
    const STATUS: &str = "cd /tmp/w; git config --global safe.directory '*'; \
        for i in 1 2 3 4 5 6; do sleep 3; \
        a=$(date +%s%N); git status --short; b=$(date +%s%N); echo $(((b - a) / 1000000)) ms; done";
    let _turn = debian_alone("cloud");
    let (path, name) = folder("large");
    for d in 0..4500 {
        let directory = path.join(format!("{}/{}", d % 67, d / 67));
        fs::create_dir_all(&directory).expect("a folder");
        for f in 0..18 {
            fs::write(directory.join(format!("{f}.c")), format!("{d} {f}\n")).expect("a file");
        }
    }
    let here = |script: &str| {
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", script]).current_dir(&path).output().expect("sh");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    here(MAKE);
    println!("native\n{}", here(&STATUS.replace("cd /tmp/w; git config", "true git config")));
    for cache in ["auto", "always", "none"] {
        for vcpus in ["1", "2"] {
            let share = format!("{name}:work,cache={cache}");
            let more = ["--vcpus", vcpus, "--memory", "2G"];
            let (_, said) = with_the_hosts_programs(&path, &share, STATUS, "", &more);
            println!("cache={cache}, {vcpus} vcpus\n{said}");
        }
    }
}

/// A tree of a million files with 1024 descriptors. Prints how many the guest knew.
#[test]
#[ignore = "by hand: cargo test -p e2e million -- --ignored --nocapture"]
fn a_million_files_by_hand() {
    let _turn = debian_alone("cloud");
    let (path, name) = folder("million");
    for d in 0..1000 {
        let directory = path.join(d.to_string());
        fs::create_dir(&directory).expect("a folder");
        for f in 0..1000 {
            fs::write(directory.join(f.to_string()), []).expect("a file");
        }
    }
    let script = "cd /mnt/million; time find . -type f | wc -l; \
        for d in 1 500 999; do echo $d >> $d/7; cat $d/7; done; echo ready; sleep 1000";
    let table = scratch("table", b"");
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=1024").arg(gemello()).args(["run", "busybox", "--memory", "3G"]);
    limited.args(["--stats", "--timeout", "30m", "--share", &name, "--", "sh", "-c", script]);
    limited.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = limited.stderr(File::create(&table).expect("a file")).spawn().expect("prlimit");
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let mut session = Session::over(child, input.expect("piped"), output.expect("piped"));
    let (said, _) = session.expect("ready\n", 5 * LONG);
    // A guest that ends by itself forgets them all.
    session.signal(Signal::TERM);
    assert_eq!(session.finish(LONG).0, 143);
    let table = fs::read_to_string(table).expect("text");
    println!("{said}{table}");
    assert_eq!(said, "1000000\n1\n500\n999\nready\n");
    let known = table.lines().find_map(|line| line.trim().strip_prefix("files that it knows"));
    let known = known.and_then(|rest| rest.trim().split(',').next()?.parse::<u64>().ok());
    assert!(known.is_some_and(|known| known > 900_000), "{known:?}");
    fs::remove_dir_all(path).expect("it is there");
}
