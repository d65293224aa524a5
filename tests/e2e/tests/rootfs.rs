//! `gemello run --rootfs`: the host's own files as a guest's root, its user's programs in it.

use e2e::{Ends, Session, cache, code, command, debian, run, scratch, text};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// A boot and a command; a busy CI machine may need much.
const BOOT: Duration = Duration::from_secs(120);

/// `script` in a guest with the host's root, started in `folder` with these options of ours.
fn guest(folder: &Path, options: &[&str], script: &str) -> Command {
    let mut command = command(&["run", "--rootfs", "/", "--timeout", "4m"]);
    command.args(options).args(["--", "sh", "-c", script]).current_dir(folder);
    command
}

fn output(folder: &Path, options: &[&str], script: &str) -> Output {
    guest(folder, options, script).output().expect("gemello starts")
}

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = scratch("beside", b"").with_file_name(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("a folder");
    path.canonicalize().expect("it is there")
}

/// User, folder, environment and file mode are the caller's, and the kernel is another one.
#[test]
fn a_command_runs_as_its_caller_where_he_is() {
    let _turn = debian("cloud");
    let here = folder("here");
    fs::write(here.join("file"), "content").expect("written");
    let script = "pwd; id -u; id -g; echo \"$ODD\"; echo ${#LARGE}; umask; cat file; \
        stat -c %u:%g file; uname -r";
    let large = "x".repeat(100_000);
    let odd = "a b 'c' $d\nend";
    let mut command = guest(&here, &[], script);
    let output = command.env("ODD", odd).env("LARGE", large).output().expect("gemello starts");
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let own = fs::metadata("/proc/self").expect("there");
    let umask = Command::new("sh").args(["-c", "umask"]).output().expect("sh").stdout;
    let file = fs::metadata(here.join("file")).expect("there");
    let expected = format!(
        "{}\n{}\n{}\n{odd}\n100000\n{}content{}:{}\n",
        here.display(),
        own.uid(),
        own.gid(),
        text(&umask),
        file.uid(),
        file.gid()
    );
    let said = text(&output.stdout);
    assert!(said.starts_with(&expected), "{said} instead of {expected}");
    let kernel = fs::read_to_string(cache().join("cloud/RELEASE")).expect("a release");
    let release = said.lines().last().expect("a line");
    assert!(kernel.contains(release), "{release}");
}

#[test]
fn what_is_written_stays_in_the_guest_but_for_what_may_be_written() {
    let _turn = debian("cloud");
    let (here, open) = (folder("closed"), folder("open"));
    for folder in [&here, &open] {
        fs::write(folder.join("old"), "before").expect("written");
    }
    let script = format!(
        "echo after >old; echo new >new; rm -f {0}/old; echo new >{0}/new; mkdir {0}/made; \
         cat old new; touch /usr/bin/not-here && rm /bin/true; test ! -e /bin/true; echo $?",
        open.display()
    );
    let output = output(&here, &["--rw", open.to_str().expect("text")], &script);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with("after\nnew\n"), "{said}");
    assert_eq!(fs::read_to_string(here.join("old")).expect("there"), "before");
    assert!(!here.join("new").exists() && !Path::new("/usr/bin/not-here").exists());
    assert!(Path::new("/bin/true").exists());
    assert!(!open.join("old").exists() && open.join("made").is_dir());
    assert_eq!(fs::read_to_string(open.join("new")).expect("there"), "new\n");
}

#[test]
fn streams_and_statuses_are_a_processs() {
    let _turn = debian("cloud");
    let here = folder("streams");
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let input = fs::File::open(scratch("bytes", &bytes)).expect("input");
    let mut command = guest(&here, &[], "tee /dev/stderr; exit 7");
    let output = command.stdin(input).output().expect("gemello starts");
    assert_eq!(code(&output), 7);
    assert!(output.stdout == bytes, "{} bytes of output", output.stdout.len());
    assert!(output.stderr == bytes, "{} bytes of errors", output.stderr.len());
    let status = |words: &[&str]| {
        let mut all = vec!["run", "--rootfs", "/", "--timeout", "4m", "--"];
        all.extend(words);
        run(&all)
    };
    assert_eq!(code(&status(&["sh", "-c", "kill -TERM $$"])), 143);
    let missing = status(&["no-such-command"]);
    assert_eq!(code(&missing), 127);
    assert!(text(&missing.stderr).contains("no-such-command"), "{}", text(&missing.stderr));
}

#[test]
fn a_terminal_is_the_commands() {
    let _turn = debian("cloud");
    let command = guest(&folder("terminal"), &[], "test -t 0 && stty size && tty");
    let (session, terminal) = Session::on_terminal(&command, &Ends::default());
    terminal.resize(33, 99);
    let (status, said) = session.finish(BOOT);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("/dev/ttyS0"), "{said}");
}

/// A folder that is no whole system, by a kernel that the user names, its modules beside it.
#[test]
fn any_folder_is_a_root_and_any_kernel_boots_it() {
    let _turn = debian("cloud");
    let root = folder("root");
    for name in ["bin", "work"] {
        fs::create_dir(root.join(name)).expect("made");
    }
    fs::copy(cache().join("cloud/busybox"), root.join("bin/sh")).expect("a shell");
    let kernel = kernel_with_modules(&folder("kernel"));
    let mut command = command(&["run", "--timeout", "4m", "--rootfs"]);
    command.arg(&root).arg("--kernel").arg(&kernel).arg("--rw").arg(root.join("work"));
    command.args(["--", "/bin/sh", "-c", "pwd; cd /work; echo made >out; echo /*"]);
    let output = command.current_dir(root.join("work")).output().expect("gemello starts");
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "/work\n/bin /dev /etc /proc /run /sys /work\n");
    assert_eq!(fs::read_to_string(root.join("work/out")).expect("there"), "made\n");
}

/// Debian's kernel and its modules as a package has them.
fn kernel_with_modules(place: &Path) -> PathBuf {
    let release = fs::read_to_string(cache().join("cloud/RELEASE")).expect("a release");
    let package = release.split(' ').next().expect("a name");
    let version = package.strip_prefix("linux-image-").expect("a kernel");
    let modules = place.join("lib/modules").join(version);
    fs::create_dir_all(&modules).expect("made");
    fs::create_dir(place.join("boot")).expect("made");
    let kernel = place.join("boot/vmlinuz");
    fs::copy(cache().join("cloud/vmlinuz"), &kernel).expect("a kernel");
    let mut list = String::new();
    for entry in fs::read_dir(cache().join("cloud")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(module) = name.strip_suffix(".ko") else { continue };
        fs::copy(&path, modules.join(name)).expect("a module");
        let mut order = Vec::new();
        depends(module, &mut order);
        // As depmod has it: what is loaded first comes last.
        let needs: Vec<_> = order.iter().rev().skip(1).map(|it| format!("{it}.ko")).collect();
        list += &format!("{name}: {}\n", needs.join(" "));
    }
    fs::write(modules.join("modules.dep"), list).expect("a list");
    kernel
}

/// What `module` needs, as it says itself, and itself: each after what it needs.
fn depends(module: &str, order: &mut Vec<String>) {
    const WORD: &[u8] = b"\0depends=";
    let bytes = fs::read(cache().join(format!("cloud/{module}.ko"))).expect("a module");
    let at = bytes.windows(WORD.len()).position(|it| it == WORD).expect("it says so") + WORD.len();
    let end = bytes[at..].iter().position(|&byte| byte == 0).expect("an end");
    let needs = text(&bytes[at..at + end]);
    needs.split(',').filter(|name| !name.is_empty()).for_each(|name| depends(name, order));
    if !order.iter().any(|known| known == module) {
        order.push(module.to_owned());
    }
}

/// A user who may read little: what it takes to become another is made anew, and leads no further
/// than his own rights on the host.
#[test]
fn a_user_can_be_root_in_the_guest_and_not_on_the_host() {
    let _turn = debian("cloud");
    let here = folder("mine");
    let mine = here.join("program");
    fs::copy(e2e::gemello(), &mine).expect("a copy");
    fs::write(here.join("secret"), "secret").expect("written");
    for (path, mode) in [(&here, 0o755), (&mine, 0o755), (&here.join("secret"), 0o600)] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("set");
    }
    if fs::metadata("/proc/self").expect("there").uid() != 0 {
        eprintln!("left out: only root becomes another user");
        return;
    }
    let script = "id -u; test -w /tmp && echo can; cat secret; cat /etc/shadow; \
        unshare -r sh -c 'id -u; cat secret'";
    let share = "home";
    let home = folder(share);
    rustix::fs::chown(&home, Some(rustix::fs::Uid::from_raw(65534)), None).expect("root");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&mine);
    command.args(["run", "--timeout", "4m", "--rootfs", "/", "--kernel"]);
    let kernel = kernel_with_modules(&folder("for-all"));
    command.arg(kernel).args(["--", "sh", "-c", script]).current_dir(&here);
    let output = command.env("HOME", &home).output().expect("setpriv starts");
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(said.starts_with("65534\ncan\n0\n"), "{said}{errors}");
    assert!(!said.contains("secret") && !said.contains("root:"), "{said}");
    assert!(errors.matches("secret: Permission denied").count() == 2, "{errors}");
}

#[test]
fn a_shell_without_a_command_ends_by_exit() {
    let _turn = debian("cloud");
    let shell = command(&["run", "--rootfs", "/", "--timeout", "4m"]);
    let (mut session, _terminal) = Session::on_terminal(&shell, &Ends::default());
    session.expect("exit ends", BOOT);
    session.send("pwd; exit\r");
    let here = std::env::current_dir().expect("a folder").canonicalize().expect("it is there");
    session.expect(here.to_str().expect("text"), BOOT);
    assert_eq!(session.finish(BOOT).0, 0);
}

#[test]
fn what_cannot_be_a_root_is_refused() {
    let file = scratch("file", b"");
    let file = file.to_str().expect("text");
    for (arguments, expected) in [
        (&["--rootfs", "/none-such"][..], "cannot share /none-such"),
        (&["--rootfs", file], "Not a directory"),
        (&["--rootfs", "/", "--rw", "/none-such"], "cannot find /none-such, which --rw names"),
        (&["--rootfs", "/", "--rw", file], "Not a directory"),
        (&["--rw", "/tmp"], "--rootfs"),
    ] {
        let output = run(&[&["run"], arguments, &["--", "true"]].concat());
        assert_eq!(code(&output), 2, "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}

/// The reader's end of a pipe is its writer's.
#[test]
fn who_stops_reading_ends_the_command() {
    let _turn = debian("cloud");
    let mut command = guest(&folder("yes"), &[], "yes");
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut line = [0; 2];
    child.stdout.take().expect("piped").read_exact(&mut line).expect("a line");
    assert_eq!(child.wait().expect("a child").code(), Some(141));
}
