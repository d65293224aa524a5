//! Every command that the help and README.md show, run as it is shown, in a folder that has the
//! files it names. gemello's own tests hold that each is parsed; what takes minutes is left out.

#[path = "../../../crates/oci/tests/builder/mod.rs"]
#[allow(dead_code)] // what the crate's own tests call
mod builder;

use builder::{Archive, Packing, saved};
use e2e::{RESET, cache, code, debian, gemello, prints, run, system_disk, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Not run here: what measures, needs a key pressed first or a machine that runs, or fetches
/// a system or another kernel. `saved.rs`, `balloon.rs`, `detached.rs`, `bench.rs` and `whole.rs`
/// do.
const LEFT_OUT: [&str; 9] = [
    "gemello bench",
    "gemello fetch debian",
    "--release",
    "gemello restore",
    "gemello balloon",
    "--detach",
    "--tier lockstep",
    "--flavour full",
    " web",
];

/// The commands in `text`'s indented lines, up to their explanation.
fn commands(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("  ")).map(str::trim);
    let shown = lines.filter_map(|line| Some(line.split("  ").next()?.split(" #").next()?.trim()));
    let ours = |line: &&str| line.starts_with("gemello") || line.contains("| gemello ");
    shown.filter(ours).map(str::to_owned).collect()
}

fn of_the_readme() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    commands(&fs::read_to_string(path).expect("README.md"))
}

fn every_command() -> BTreeSet<String> {
    let mut all = BTreeSet::from_iter(of_the_readme());
    for help in [&["--help"][..], &["run", "--help"], &["fetch", "--help"], &["doctor", "--help"]] {
        let output = run(help);
        assert_eq!(code(&output), 0, "{help:?}");
        let found = commands(&text(&output.stdout));
        assert!(!found.is_empty(), "{help:?} shows no example");
        all.extend(found);
    }
    for help in [["bench", "--help"], ["restore", "--help"]] {
        assert!(!commands(&text(&run(&help).stdout)).is_empty(), "{help:?} shows no example");
    }
    all
}

/// A folder with `gemello` in the path, and what the examples name.
fn place() -> PathBuf {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let place = std::env::temp_dir().join(format!("gemello-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(place.join("bin")).expect("a directory");
    symlink(fs::canonicalize(gemello()).expect("built"), place.join("bin/gemello"))
        .expect("a link");
    let file = |name: &str, content: &[u8]| fs::write(place.join(name), content).expect("a file");
    file("names", b"b\na\nb\n");
    file("kernel.elf", &prints(b"text\r\n", RESET));
    file("init.bin", b"content");
    file("data.img", &[0; 1 << 20]);
    fs::create_dir(place.join("src")).expect("a folder");
    let base = place.join("base.qcow2");
    assert_eq!(code(&run(&["disk", "create", base.to_str().expect("text"), "1M"])), 0);
    fs::copy(system_disk("qcow2"), place.join("system.qcow2")).expect("a disk");
    for name in ["web.toml", "db.toml"] {
        file(name, b"[boot]\nnucleus = \"\"\n");
    }
    file("machine.toml", b"[boot]\nkernel = \"kernel.elf\"\n");
    fs::copy(cache().join("cloud/vmlinuz"), place.join("vmlinuz")).expect("Debian's kernel");
    initrd(&place);
    image(&place);
    place
}

/// An image with a shell, and a cache for what is made of it.
fn image(place: &Path) {
    let busybox = fs::read(cache().join("cloud/busybox")).expect("busybox");
    let content = Archive::new().folder("bin", 0o755, (0, 0));
    let content = content.file("bin/busybox", 0o755, (0, 0), &busybox);
    let layer = content.symlink("bin/sh", "busybox").symlink("bin/poweroff", "busybox").end();
    let config = json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] });
    saved(&[(layer, Packing::Gzip)], &config).write_archive(&place.join("image.tar"));
    fs::create_dir_all(place.join("cache/gemello")).expect("a folder");
    symlink(cache(), place.join("cache/gemello/debian")).expect("a link");
}

/// An initial file system whose init powers off.
fn initrd(place: &Path) {
    let tree = place.join("tree");
    fs::create_dir_all(tree.join("bin")).expect("a directory");
    fs::copy(cache().join("cloud/busybox"), tree.join("bin/busybox")).expect("busybox");
    fs::write(tree.join("init"), "#!/bin/busybox sh\n/bin/busybox poweroff -f\n").expect("a file");
    let script = "chmod +x init bin/busybox && find . | \"$0\" cpio -o -H newc > ../initrd.img";
    let busybox = cache().join("cloud/busybox");
    let mut shell = Command::new("sh");
    e2e::succeeds(shell.arg("-c").arg(script).arg(busybox).current_dir(&tree));
}

/// Runs `line` in `place`; a guest that gives a shell is told to end. The input stays open.
fn paste(line: &str, place: &Path) -> (i32, String) {
    let path = format!("{}:{}", place.join("bin").display(), std::env::var("PATH").expect("PATH"));
    let mut shell = Command::new("timeout");
    shell.args(["90", "sh", "-c", line]).current_dir(place).env("PATH", path);
    let out = fs::File::create(place.join("out")).expect("a file");
    shell.stdin(Stdio::piped()).stdout(out.try_clone().expect("a file")).stderr(out);
    let of_an_image = line.contains("oci:");
    if of_an_image {
        shell.env("XDG_CACHE_HOME", place.join("cache"));
    }
    let mut child = shell.spawn().expect("timeout");
    let mut input = child.stdin.take().expect("piped");
    // It may not read it. An image's shell is a command, and has a status.
    let _ = input.write_all(if of_an_image { b"exit\n".as_slice() } else { b"poweroff\n" });
    let status = child.wait().expect("a child");
    (status.code().unwrap_or(-1), text(&fs::read(place.join("out")).expect("there")))
}

#[test]
fn each_works_as_it_is_shown() {
    let _turn = debian("cloud");
    let place = place();
    let mut tried = 0;
    for line in every_command() {
        if LEFT_OUT.iter().any(|what| line.contains(what)) && !line.contains("--list") {
            continue;
        }
        let began = Instant::now();
        // A whole Debian takes minutes to make, and `whole.rs` does; the small guest does the same.
        let (status, told) = paste(&line.replace("run debian", "run busybox"), &place);
        assert_eq!(status, 0, "{line}: {told}");
        eprintln!("{:.1} s: {line}", began.elapsed().as_secs_f64());
        tried += 1;
    }
    assert!(tried > 15, "{tried}");
    fs::remove_dir_all(&place).expect("it is there");
}

/// A command line in `place`, with a runtime folder of its own.
fn shell(line: &str, place: &Path) -> Command {
    let path = format!("{}:{}", place.join("bin").display(), std::env::var("PATH").expect("PATH"));
    let mut shell = Command::new("timeout");
    shell.args(["90", "sh", "-c", line]).current_dir(place).env("PATH", path);
    shell.env("XDG_RUNTIME_DIR", place.join("runtime")).stdin(Stdio::null());
    shell
}

/// What is said to running machines, in the order in which it is shown.
#[test]
fn what_is_said_to_running_machines_works() {
    let _turn = debian("cloud");
    let place = place();
    fs::create_dir(place.join("runtime")).expect("a folder");
    fs::set_permissions(place.join("runtime"), fs::Permissions::from_mode(0o700)).expect("mine");
    let there = |name: &str| place.join(format!("runtime/gemello/{name}.sock")).exists();
    for shown in [of_the_readme(), commands(&text(&run(&["ps", "--help"]).stdout))] {
        let mut shown = shown.into_iter().filter(|line| line.contains(" web"));
        let first = shown.next().expect("machines are run first");
        let mut machines: Option<Child> = None;
        for line in shown {
            if !there("web") || !there("db") {
                end(machines.take());
                machines = Some(shell(&format!("exec {first}"), &place).spawn().expect("sh"));
                let deadline = Instant::now() + Duration::from_secs(60);
                while !there("web") || !there("db") {
                    assert!(Instant::now() < deadline, "{first}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            let console = line.contains("console");
            let said = if console { format!("timeout 5 {line}") } else { line.clone() };
            let output = shell(&said, &place).output().expect("sh");
            let told = text(&output.stdout) + &text(&output.stderr);
            if console {
                assert!(told.contains("nucleus>"), "{line}: {told}");
            } else {
                assert_eq!(code(&output), 0, "{line}: {told}");
            }
        }
        end(machines);
    }
    fs::remove_dir_all(&place).expect("it is there");
}

/// Ends the machines, if they run still. SIGTERM, which `timeout` passes on: killed, it would leave
/// them behind.
fn end(machines: Option<Child>) {
    if let Some(mut machines) = machines {
        let _ = kill_process(Pid::from_child(&machines), Signal::TERM);
        let _ = machines.wait();
    }
}
